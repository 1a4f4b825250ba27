//! Why something could not be done with a sandbox.

use ovenbird_host::{cgroup, net, storage, vm};

use super::{SandboxId, State, room::NoRoom};
use crate::{guest_link, name::TemplateName, template};

/// See the module. The text is for the caller; what is inside the host stands in the sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of this id.
    #[error("there is no sandbox {0} on this host")]
    Unknown(SandboxId),
    /// There is one already.
    #[error("a sandbox {0} exists already")]
    Exists(SandboxId),
    /// A wish outside of what this host allows.
    #[error("{0}")]
    Invalid(String),
    /// The host is full.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The agent is ending.
    #[error("this host agent is shutting down")]
    Closing,
    /// The sandbox is in another state than the call needs.
    #[error("sandbox {id} is {state}, not running{}", detail.as_deref().unwrap_or_default())]
    WrongState {
        /// Which.
        id: SandboxId,
        /// Where it is.
        state: State,
        /// Why it is there.
        detail: Option<String>,
    },
    /// It was destroyed while it was being made.
    #[error("sandbox {0} was destroyed while it was being made")]
    Cancelled(SandboxId),
    /// Its guest did not come up.
    #[error(
        "the guest of sandbox {id} was not ready in time ({reason}); the end of its console:\n{console}"
    )]
    NotReady {
        /// Which.
        id: SandboxId,
        /// What was seen of it.
        reason: String,
        /// The last 2 KiB.
        console: String,
    },
    /// Its guest was asked something and did not do it.
    #[error("the guest of sandbox {id} could not {action}")]
    Guest {
        /// Which.
        id: SandboxId,
        /// What it should do.
        action: &'static str,
        /// What it, or the link, says.
        #[source]
        source: Box<tonic::Status>,
    },
    /// It has nothing to be paused or resumed with.
    #[error("sandbox {id} can neither be paused nor resumed: {reason}")]
    NotPaused {
        /// Which.
        id: SandboxId,
        /// Why.
        reason: &'static str,
    },
    /// Its machine was started by another QEMU, or on another processor: a state of it would be of no use here.
    #[error("sandbox {id} cannot be paused, saved or resumed here: {reason}")]
    Elsewhere {
        /// Which.
        id: SandboxId,
        /// What differs.
        reason: String,
    },
    /// It has no checkpoint of this name.
    #[error("sandbox {id} has no checkpoint {name:?}")]
    NoCheckpoint {
        /// Which.
        id: SandboxId,
        /// What was asked for.
        name: String,
    },
    /// It has too many checkpoints.
    #[error("sandbox {id} has {max} checkpoints already: use one of their names again")]
    Checkpoints {
        /// Which.
        id: SandboxId,
        /// The most there can be.
        max: usize,
    },
    /// Its guest did not turn itself off.
    #[error("the guest of sandbox {0} did not turn itself off in time; the sandbox is destroyed")]
    StillOn(SandboxId),
    /// The link to the guest was lost and did not come back.
    #[error("the guest of sandbox {id} does not answer any more")]
    LinkLost {
        /// Which.
        id: SandboxId,
        /// Why.
        #[source]
        source: guest_link::Error,
    },
    /// A snapshot of another host, or of another version.
    #[error("snapshot {name} cannot be restored here: {reason}; build it again on this host")]
    Mismatch {
        /// Which.
        name: TemplateName,
        /// What differs.
        reason: String,
    },
    /// A template.
    #[error(transparent)]
    Template(#[from] template::Error),
    /// A root disk.
    #[error(transparent)]
    Volume(#[from] storage::Error),
    /// A network.
    #[error(transparent)]
    Network(#[from] net::Error),
    /// A control group.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A machine.
    #[error(transparent)]
    Machine(#[from] vm::Error),
    /// A directory or file of a sandbox.
    #[error("the directory of sandbox {id} cannot be {action}")]
    Directory {
        /// Which.
        id: SandboxId,
        /// What was tried, as a participle.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// What an earlier agent left.
    #[error("what an earlier agent left in {} cannot be looked through and removed", path.display())]
    Leftovers {
        /// Where.
        path: std::path::PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A task of this agent panicked. Its sandbox keeps its slot until it is destroyed.
    #[error("the host agent failed inside; its log says where")]
    Panicked,
}
