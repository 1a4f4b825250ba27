//! How far a build is, as the last message of its log says: what a runner that takes over goes on from.
//!
//! It travels with the log because the log is the one thing that two runners can never both write (see
//! [`crate::log`]): whoever reads the last message knows exactly what is in the log, and no runner that was
//! cut off can change it afterwards.
//!
//! It may be behind the guest, never ahead of it. A step that ended after the last message is found by its
//! exec id, which the guest keeps: it is read to its end, not run again.

use serde::{Deserialize, Serialize};

use crate::{
    build::Reason,
    id::HostId,
    log::{LineRecord, Resume},
};

/// Where a build stands after a message of its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where its sandbox is.
    pub host_id: HostId,
    /// The sandbox; it may not exist yet while it is not ready.
    pub sandbox_id: String,
    /// Its guest has answered.
    #[serde(default)]
    pub ready: bool,
    /// Steps that are done: all up to this number.
    #[serde(default)]
    pub steps_done: u32,
    /// Which try of the next step it is, from 1.
    #[serde(default)]
    pub step_try: u32,
    /// The healthcheck has passed; only the template is missing.
    #[serde(default)]
    pub healthy: bool,
    /// The build has failed by its recipe, and only the desk has not heard of it: nothing of it is done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Reason>,
    /// How far the output of each command that still matters is in the log: those of START steps, and the
    /// last other one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Resume>,
    /// Bytes of all commands' output that are in the log, for the build's cap.
    #[serde(default)]
    pub log_bytes: u64,
}

/// What the runner of a later attempt goes on from, as the claim says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeFrom {
    /// Where the build stands.
    pub standing: Standing,
    /// The last lines that the commands of [`Standing::outputs`] wrote, so that what is kept of a step does
    /// not begin in its middle. Bounded, and a help only: the log has them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LineRecord>,
}
