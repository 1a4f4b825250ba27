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

/// Output that is not in a [`StepLog`] (it is in the log).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncated {
    /// Bytes left out of stdout and stderr together.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
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
    /// What stdout and stderr above leave out, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
}
