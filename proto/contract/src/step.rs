//! What is kept of one step in the build's row: enough to see what happened, never the whole output.

use serde::{Deserialize, Serialize};

/// The part of a build that a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Booting the sandbox.
    Boot,
    /// The base template's hooks before the user's steps.
    Pre,
    /// A step of the recipe.
    Step,
    /// The base template's hooks after the user's steps.
    Post,
    /// Waiting for the healthcheck.
    Health,
    /// Writing the template.
    Publish,
}

/// How much output, of stdout and stderr together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
}

impl Amount {
    /// Whether it is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What is left of it without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            lines: self.lines.saturating_sub(other.lines),
        }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.lines += other.lines;
    }
}

impl std::ops::Add for Amount {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// One step's entry in `template_builds.logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLog {
    /// The number the user knows: 1 for the first step of the recipe. 0 outside of the recipe.
    pub step: u32,
    /// The part of the build.
    pub phase: Phase,
    /// The step as the user wrote it; for other phases what is done, in words.
    pub cmd: String,
    /// Head and tail of stdout, lossy UTF-8.
    pub stdout: String,
    /// Head and tail of stderr, lossy UTF-8.
    pub stderr: String,
    /// Exit code, where there was a command that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Whether it did what was asked.
    pub ok: bool,
    /// Wall time, in milliseconds.
    pub elapsed_ms: u64,
    /// Taken from an earlier build instead of run.
    #[serde(default)]
    pub cached: bool,
    /// What stdout and stderr above leave out, where they do. It is in the log, but for `log_truncated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Amount>,
    /// What of it the caps kept out of the log as well. Line ends that a runner saw just before it was killed
    /// may be missing here; bytes never are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_truncated: Option<Amount>,
}
