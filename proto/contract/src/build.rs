//! The states of a build and the one function that changes them.
//!
//! ```text
//!             claim                    finish(ok)
//!  queued ───────────► running ───────────────────► succeeded
//!    ▲  │                │  │ step or health failed
//!    │  │ cancel         │  └──────────────────────► failed
//!    │  │                │ cancel
//!    │  │                └────────► cancelling ────► cancelled
//!    │  └──────────────────────────────────────────► cancelled
//!    └── released, or lost with attempts left
//!        lost, none left ──────────────────────────► failed (reason: lost, or what the host did)
//!        queued again, and its time is over ───────► failed (reason: build_timeout)
//! ```
//!
//! Pure: who holds the lease, and which attempt, is compared in the statement that writes.

use serde::{Deserialize, Serialize};

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for a runner.
    Queued,
    /// A runner holds the lease.
    Running,
    /// Somebody cancelled it; its sandbox is being destroyed.
    Cancelling,
    /// Its template is published.
    Succeeded,
    /// A step, the healthcheck or the last attempt failed.
    Failed,
    /// Cancelled, and its sandbox is gone.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether no event can change it any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word in Postgres and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no build status: use queued, running, cancelling, succeeded, failed or cancelled"
)]
pub struct UnknownStatus(pub String);

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// What can happen to a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A runner took it.
    Claimed,
    /// Its template was written.
    Finished,
    /// A step, the healthcheck or the publication failed.
    StepFailed,
    /// The runner gave it back before its end.
    Released,
    /// The attempt was lost: its runner was not heard of in time, or its host failed.
    LeaseExpired {
        /// Whether another attempt is allowed.
        attempts_left: bool,
    },
    /// Somebody asked for its end.
    CancelRequested,
    /// The sandbox of a cancelled build is gone.
    SandboxDestroyed,
    /// Its time is over, and no runner holds it.
    TimeOver,
}

/// The event does not fit the state; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a build that is {status} refuses {event:?}")]
pub struct Refused {
    /// Where the build stands.
    pub status: Status,
    /// What was asked of it.
    pub event: Event,
}

impl Status {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`Refused`] when the event does not fit the state. A second cancel fits `cancelling` and changes
    /// nothing.
    pub fn apply(self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Queued, Event::Claimed) => Ok(Self::Running),
            (Self::Queued, Event::CancelRequested) => Ok(Self::Cancelled),
            (Self::Running, Event::Finished) => Ok(Self::Succeeded),
            (Self::Running, Event::StepFailed) => Ok(Self::Failed),
            (Self::Running, Event::Released | Event::LeaseExpired { attempts_left: true }) => {
                Ok(Self::Queued)
            }
            (Self::Running, Event::LeaseExpired { attempts_left: false })
            | (Self::Queued, Event::TimeOver) => Ok(Self::Failed),
            (Self::Running | Self::Cancelling, Event::CancelRequested) => Ok(Self::Cancelling),
            (Self::Cancelling, Event::SandboxDestroyed) => Ok(Self::Cancelled),
            (status, event) => Err(Refused { status, event }),
        }
    }
}

/// Why a build failed or went back to the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A stable word.
    pub code: ReasonCode,
    /// What happened and what to do, for people.
    pub message: String,
    /// The step as the user numbered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The end of the step's output, or of the guest's console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
}

/// The stable words of [`Reason::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// A step's command exited with another code than 0.
    StepFailed,
    /// A step ran over its time and was killed with its children.
    StepTimeout,
    /// The recipe needs what this version cannot do yet.
    Unsupported,
    /// The healthcheck did not pass in its time.
    HealthFailed,
    /// A START process ended before the healthcheck passed.
    StartDied,
    /// No microVM of the build became ready.
    GuestNotReady,
    /// The host could not be reached or broke.
    HostLost,
    /// The template could not be written.
    PublishFailed,
    /// The build took longer than this installation allows one.
    BuildTimeout,
    /// The microVM ended under a command: something in it turned it off, or it crashed.
    SandboxEnded,
    /// Runners were lost, and no attempt is left.
    Lost,
    /// A fault of Ovenbird itself.
    Internal,
}

impl ReasonCode {
    /// Whether the host is to blame, so that the build is tried again on another one by itself.
    pub fn is_host(self) -> bool {
        matches!(self, Self::HostLost | Self::GuestNotReady)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Claimed),
            Just(Event::Finished),
            Just(Event::StepFailed),
            Just(Event::Released),
            any::<bool>().prop_map(|attempts_left| Event::LeaseExpired { attempts_left }),
            Just(Event::CancelRequested),
            Just(Event::SandboxDestroyed),
            Just(Event::TimeOver),
        ]
    }

    proptest! {
        #[test]
        fn terminal_state_never_changes_and_cancel_never_ends_otherwise(
            sequence in proptest::collection::vec(events(), 0..40),
        ) {
            let mut status = Status::Queued;
            let mut cancelled = false;
            for event in sequence {
                let before = status;
                match status.apply(event) {
                    Ok(after) => {
                        prop_assert!(!before.is_terminal());
                        cancelled |= event == Event::CancelRequested;
                        status = after;
                    }
                    Err(refused) => prop_assert_eq!(refused, Refused { status: before, event }),
                }
                if cancelled {
                    prop_assert!(matches!(status, Status::Cancelling | Status::Cancelled));
                }
            }
        }
    }

    #[test]
    fn every_status_reads_back_from_its_word() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse::<Status>(), Ok(status));
            assert_eq!(serde_json::to_value(status).expect("serializes"), status.as_str());
        }
        assert!("done".parse::<Status>().is_err());
    }
}
