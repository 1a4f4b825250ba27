//! What a recipe becomes: numbered steps and a healthcheck, as the api stores them and a runner reads them.
//!
//! The JSON is stable: fields may be added, none is renamed or removed while [`VERSION`] stays. Where a
//! field is called *template* its text still holds `$VAR`, `${VAR}` and `$$`; [`crate::expand`] turns it into
//! the text to use. No position in the source is kept: two sources of one meaning give one plan.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The version of [`Plan`] that this code writes and reads.
pub const VERSION: u32 = 1;

/// A whole recipe, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`]; a plan with another one is refused when it is read.
    #[serde(deserialize_with = "known_version")]
    pub v: u32,
    /// In the order of the recipe, never empty.
    pub steps: Vec<Step>,
    /// Present means that the build becomes a snapshot, absent that it becomes an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// As the user counts: 1 for the first step; comments and blank lines do not count.
    pub number: u32,
    /// The step as one canonical line of the text form, for display.
    pub cmd: String,
    /// What to do: `"kind"` and the fields of that kind stand beside `number` and `cmd`.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Runs a command and waits for exit 0.
    Run {
        /// For `/bin/sh -c`, verbatim: the shell expands its variables.
        command: String,
        /// Time of one try, in milliseconds; the command is killed with its children after it.
        timeout_ms: u64,
        /// Tries after the first one failed or ran too long.
        retries: u32,
        /// Names of the secrets it sees.
        secrets: Vec<String>,
    },
    /// Starts a process that must still run when the healthcheck passes.
    Start {
        /// For `/bin/sh -c`, verbatim.
        command: String,
    },
    /// Sets variables for later steps and for the template.
    Env {
        /// In order; a later one sees the earlier ones. Give them to [`crate::env_apply`].
        variables: Vec<Variable>,
    },
    /// Changes the working directory, which is created if missing.
    Workdir {
        /// Template; after expansion give it to [`crate::path_join`] with the current directory.
        path: String,
    },
    /// Changes the user, who is created if missing.
    User {
        /// Template; after expansion check it with [`crate::user_name_is_valid`].
        name: String,
        /// Whether the user may become root by `sudo` without a password.
        sudo: bool,
    },
    /// Copies from the build's context.
    Copy {
        /// Templates of paths relative to the context's root, never empty.
        sources: Vec<String>,
        /// Template; relative to the working directory.
        destination: String,
        /// Who owns what was copied; absent means root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
}

impl Action {
    /// The word that begins the step's line: `RUN`, `START`, `ENV`, `WORKDIR`, `USER` or `COPY`.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Run { .. } => "RUN",
            Self::Start { .. } => "START",
            Self::Env { .. } => "ENV",
            Self::Workdir { .. } => "WORKDIR",
            Self::User { .. } => "USER",
            Self::Copy { .. } => "COPY",
        }
    }
}

/// One assignment of `ENV`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// `[A-Za-z_][A-Za-z0-9_]*`.
    pub key: String,
    /// Template.
    pub value: String,
}

/// The owner that `COPY --chown` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// A user's name or number.
    pub user: String,
    /// A group's name or number; absent means the user's own group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// When the template is ready to be snapshotted.
///
/// The first attempt begins at once, each next one `interval_ms` after the end of the one before. One that
/// exits 0 within `timeout_ms` passes and ends the check. Failures that begin within `start_period_ms` do
/// not count; the `retries`-th failure after it ends the build, and so does `deadline_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// For `/bin/sh -c`, verbatim.
    pub command: String,
    /// Pause between two attempts, in milliseconds.
    pub interval_ms: u64,
    /// Time of one attempt, in milliseconds; it is killed with its children after it.
    pub timeout_ms: u64,
    /// Failures that begin within this time do not count, in milliseconds.
    pub start_period_ms: u64,
    /// Failures that count until the build fails; at least 1.
    pub retries: u32,
    /// The end of it all, in milliseconds from the first attempt:
    /// `start_period_ms + retries × (timeout_ms + interval_ms)`, at most one hour.
    pub deadline_ms: u64,
}

fn known_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let v = u32::deserialize(deserializer)?;
    if v == VERSION {
        Ok(v)
    } else {
        Err(D::Error::custom(format!("plan version {v} is not known here (known: {VERSION})")))
    }
}
