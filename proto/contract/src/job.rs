//! The message on the work queue: ids only, the plan comes with the claim.

use serde::{Deserialize, Serialize};

use crate::id::BuildId;

/// The version of [`Job`] that this code writes.
pub const VERSION: u32 = 1;

/// A build that waits for a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// [`VERSION`].
    pub v: u32,
    /// The build.
    pub build_id: BuildId,
    /// The attempt that a claim of this job begins.
    pub attempt: u32,
    /// W3C `traceparent` in which the attempt goes on: the relay's, in the trace of the request that asked for the build;
    /// where the relay exports no spans, that request's own. May be empty.
    #[serde(default)]
    pub trace: String,
}

impl Job {
    /// `Nats-Msg-Id`: a job that is pushed twice is stored once.
    pub fn message_id(&self) -> String {
        format!("{}.{}", self.build_id, self.attempt)
    }
}
