//! The states of a sandbox that somebody started from a template, and the one function that changes them.
//!
//! ```text
//!               runs              pause              sleeps
//!  creating ───────────► running ───────► pausing ───────────► paused
//!     │                  │ ▲ ▲ │ └── resume ─┐ sleeps: idle       │ resume
//!     │             save │ │ │ └─────────────│──────────────────► │
//!     │                  ▼ │ └── runs ────── resuming ◄───────────┘
//!     │              saving┘
//!     │                  │ gone: it is a template now
//!     │ destroy          ▼
//!     └──► destroying ─► destroyed       failed: it ended otherwise; the reason says how
//!                gone                      ▲ fails, from every state that is no end
//! ```
//!
//! `destroy` fits every state that is no end. The words that end in -ing are intents: they are in the row before
//! the host is asked, so that whoever dies in between has said what it was about to do. `runs`, `sleeps`, `gone` and
//! `fails` are the host's word, which wins over what the row says.
//!
//! Pure: whose word is the newest is compared in the statement that writes.

use serde::{Deserialize, Serialize};

/// Where a sandbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its host was chosen and is being asked for it.
    Creating,
    /// Its guest answers.
    Running,
    /// Its memory is on its way to the host's disk.
    Pausing,
    /// Its memory is on the host's disk; it takes no room.
    Paused,
    /// Its memory is on its way back.
    Resuming,
    /// It is becoming a template.
    Saving,
    /// It is being removed from its host.
    Destroying,
    /// Nothing of it is left, as somebody wished.
    Destroyed,
    /// Nothing of it is left, and nobody wished so.
    Failed,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it paused.
    Pause,
    /// Somebody wants it to go on.
    Resume,
    /// Somebody wants it to become a template.
    Save,
    /// Somebody wants it gone, or nobody can use it any more.
    Destroy,
    /// The host says that it runs.
    Runs,
    /// The host says that it is paused.
    Sleeps,
    /// The host says that nothing of it is left, which was wanted.
    Gone,
    /// The host says that nothing of it is left, which was not wanted.
    Fails,
}

/// The event does not fit the state; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox that is {status} refuses {event:?}")]
pub struct Refused {
    /// Where the sandbox stands.
    pub status: Status,
    /// What was asked of it.
    pub event: Event,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Creating,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
        Self::Saving,
        Self::Destroying,
        Self::Destroyed,
        Self::Failed,
    ];

    /// Whether no event can change it any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Destroyed | Self::Failed)
    }

    /// Whether processors and memory of its host are promised to it.
    pub fn takes_room(self) -> bool {
        !self.is_terminal() && self != Self::Paused
    }

    /// The word in Postgres and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Saving => "saving",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Failed => "failed",
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Refused`] when the event does not fit the state. A repeated intent fits and changes nothing.
    pub fn apply(self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Running | Self::Pausing, Event::Pause) => Ok(Self::Pausing),
            // One that paused by itself may still be told to be running.
            (Self::Running | Self::Paused | Self::Resuming, Event::Resume) => Ok(Self::Resuming),
            (Self::Running, Event::Save) => Ok(Self::Saving),
            (status, Event::Destroy) if !status.is_terminal() => Ok(Self::Destroying),
            (
                Self::Creating
                | Self::Running
                | Self::Pausing
                | Self::Paused
                | Self::Resuming
                | Self::Saving,
                Event::Runs,
            ) => Ok(Self::Running),
            (
                Self::Running | Self::Pausing | Self::Paused | Self::Resuming | Self::Saving,
                Event::Sleeps,
            ) => Ok(Self::Paused),
            (Self::Saving | Self::Destroying, Event::Gone) => Ok(Self::Destroyed),
            (status, Event::Fails) if !status.is_terminal() => Ok(Self::Failed),
            (status, event) => Err(Refused { status, event }),
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
#[error("`{0}` is no status of a sandbox")]
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

/// What a host says of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It runs.
    Runs,
    /// It is paused.
    Sleeps,
    /// Something is being done with it, which ends by itself.
    Passes,
    /// It is there and of no use any more: its guest turned itself off, or its machine broke.
    Stopped,
    /// There is none.
    Absent,
}

impl Seen {
    /// Of the agent's word for a state.
    pub fn of(word: &str) -> Self {
        match word {
            "running" => Self::Runs,
            "paused" => Self::Sleeps,
            "stopped" | "broken" => Self::Stopped,
            _ => Self::Passes,
        }
    }
}

/// What is to be done about a sandbox whose host was asked, and which nobody is working on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Nothing: row and host agree, or the host is still at it.
    Keep,
    /// The row is behind the host.
    Apply(Event),
    /// The row says so already: the host has to hear it.
    Remove,
    /// Nobody can use it: the row says so first.
    GiveUp(ReasonCode),
    /// It is a template now, or nothing is left of it: its host's templates tell.
    LookForTemplate,
}

impl Status {
    /// Compares a row with its host.
    pub fn settle(self, seen: Seen) -> Settlement {
        match (self, seen) {
            (Self::Destroyed | Self::Failed | Self::Destroying, _) => Settlement::Remove,
            (_, Seen::Passes) => Settlement::Keep,
            // Whoever asked for it has no answer, and will not get one.
            (Self::Creating, _) => Settlement::GiveUp(ReasonCode::CreateInterrupted),
            (Self::Running, Seen::Runs) | (Self::Paused, Seen::Sleeps) => Settlement::Keep,
            (_, Seen::Runs) => Settlement::Apply(Event::Runs),
            (_, Seen::Sleeps) => Settlement::Apply(Event::Sleeps),
            (_, Seen::Stopped) => Settlement::GiveUp(ReasonCode::Stopped),
            (Self::Saving, Seen::Absent) => Settlement::LookForTemplate,
            (_, Seen::Absent) => Settlement::GiveUp(ReasonCode::Lost),
        }
    }
}

/// Why a sandbox failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A stable word.
    pub code: ReasonCode,
    /// What happened and what to do, for people.
    pub message: String,
}

/// The stable words of [`Reason::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Its host could not make it.
    CreateFailed,
    /// Whoever was making it went away in the middle.
    CreateInterrupted,
    /// Its guest turned itself off, or its machine broke.
    Stopped,
    /// Its host has no sandbox of this id any more, as after the host's own restart.
    Lost,
    /// It was lost while it was becoming a template.
    SaveFailed,
}

impl ReasonCode {
    /// The reason, in general words.
    pub fn reason(self) -> Reason {
        let message = match self {
            Self::CreateFailed => "Its host could not make it.",
            Self::CreateInterrupted => "Whoever was making it went away; it was removed.",
            Self::Stopped => "Its guest turned itself off, or its machine broke.",
            Self::Lost => "Its host has it no more, as after a restart of the host.",
            Self::SaveFailed => "It was lost while it was becoming a template.",
        };
        Reason { code: self, message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 8] = [
        Event::Pause,
        Event::Resume,
        Event::Save,
        Event::Destroy,
        Event::Runs,
        Event::Sleeps,
        Event::Gone,
        Event::Fails,
    ];
    const SEEN: [Seen; 5] = [Seen::Runs, Seen::Sleeps, Seen::Passes, Seen::Stopped, Seen::Absent];

    proptest! {
        #[test]
        fn end_never_changes_and_what_is_to_be_destroyed_never_runs_again(
            sequence in proptest::collection::vec(proptest::sample::select(&EVENTS), 0..40),
        ) {
            let mut status = Status::Creating;
            let mut is_over = false;
            for event in sequence {
                let before = status;
                match status.apply(event) {
                    Ok(after) => {
                        prop_assert!(!before.is_terminal());
                        is_over |= event == Event::Destroy;
                        status = after;
                    }
                    Err(refused) => prop_assert_eq!(refused, Refused { status: before, event }),
                }
                prop_assert!(!is_over || status == Status::Destroying || status.is_terminal());
            }
        }
    }

    #[test]
    fn every_settlement_is_one_that_the_state_allows() {
        for (status, seen) in Status::ALL.into_iter().flat_map(|it| SEEN.map(|seen| (it, seen))) {
            match status.settle(seen) {
                Settlement::Apply(event) => {
                    assert!(status.apply(event).is_ok(), "{status} {seen:?}")
                }
                Settlement::GiveUp(_) => assert!(status.apply(Event::Destroy).is_ok()),
                Settlement::LookForTemplate => assert_eq!(status, Status::Saving),
                Settlement::Keep => assert!(!status.is_terminal()),
                Settlement::Remove => assert!(status.is_terminal() || status == Status::Destroying),
            }
        }
    }

    #[test]
    fn every_status_reads_back_from_its_word() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse::<Status>(), Ok(status));
            assert_eq!(serde_json::to_value(status).expect("serializes"), status.as_str());
        }
        assert!("gone".parse::<Status>().is_err());
    }
}
