//! The life of a sandbox, as one pure function.
//!
//! ```text
//!              ready            save
//!  creating ─────────► running ─────────► saving
//!     │                 │  ▲ │ ended        │ │
//!     │ failed, destroy │  │ ▼              │ │ saved
//!     │                 │  │ stopped        │ │
//!     │                 │  └────────────────┘ │   not saved
//!     ▼        destroy  ▼  destroy            ▼
//!  destroying ◄──────────────────────── (destroying)
//!     │  ▲
//!     │  │ destroy      removed: gone, and no longer known
//!     ▼  │
//!  broken               its removal failed: it keeps its slot until a removal succeeds
//! ```

use std::fmt;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being made; its guest is not ready.
    Creating,
    /// Serves calls.
    Running,
    /// Being turned into a template.
    Saving,
    /// Its guest has turned itself off, or its machine has failed.
    Stopped,
    /// Being removed.
    Destroying,
    /// Its removal failed half-way.
    Broken,
    /// Nothing of it is left.
    Gone,
}

/// What happens to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its guest answered for the first time.
    Ready,
    /// Its creation failed.
    Failed,
    /// It shall become a template.
    Save,
    /// Its machine no longer exists: its files are the template's.
    Saved,
    /// It did not become a template and goes on.
    NotSaved,
    /// Its machine ended by itself.
    Ended,
    /// It shall be removed.
    Destroy,
    /// Everything of it has been removed.
    Removed,
    /// Something of it could not be removed.
    NotRemoved,
}

/// The event cannot happen in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub State);

impl State {
    /// The state after an event.
    pub fn after(self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Creating, Event::Ready) | (Self::Saving, Event::NotSaved) => Ok(Self::Running),
            (Self::Running, Event::Save) => Ok(Self::Saving),
            (Self::Running, Event::Ended) => Ok(Self::Stopped),
            (Self::Creating, Event::Failed)
            | (Self::Saving, Event::Saved)
            | (Self::Running | Self::Stopped | Self::Broken, Event::Destroy) => {
                Ok(Self::Destroying)
            }
            (Self::Destroying, Event::Removed) => Ok(Self::Gone),
            (Self::Destroying, Event::NotRemoved) => Ok(Self::Broken),
            _ => Err(Refused(self)),
        }
    }

    /// Whether the state ends by itself, so that it is worth waiting for the next.
    pub fn passes(self) -> bool {
        matches!(self, Self::Creating | Self::Saving | Self::Destroying)
    }

    /// As callers see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Saving => "saving",
            Self::Stopped => "stopped",
            Self::Destroying => "destroying",
            Self::Broken => "broken",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Creating,
        State::Running,
        State::Saving,
        State::Stopped,
        State::Destroying,
        State::Broken,
        State::Gone,
    ];
    const EVENTS: [Event; 9] = [
        Event::Ready,
        Event::Failed,
        Event::Save,
        Event::Saved,
        Event::NotSaved,
        Event::Ended,
        Event::Destroy,
        Event::Removed,
        Event::NotRemoved,
    ];

    #[test]
    fn only_removal_leads_to_gone_and_nothing_leads_out_of_it() {
        for state in STATES {
            for event in EVENTS {
                let next = state.after(event);
                if next == Ok(State::Gone) {
                    assert_eq!((state, event), (State::Destroying, Event::Removed));
                }
                if state == State::Gone {
                    assert_eq!(next, Err(Refused(state)));
                }
            }
        }
    }

    #[test]
    fn every_state_that_does_not_pass_can_be_destroyed() {
        for state in STATES.into_iter().filter(|state| !state.passes() && *state != State::Gone) {
            assert_eq!(state.after(Event::Destroy), Ok(State::Destroying), "{state}");
        }
    }

    #[test]
    fn nothing_but_a_running_sandbox_can_be_saved() {
        for state in STATES.into_iter().filter(|state| *state != State::Running) {
            assert!(state.after(Event::Save).is_err(), "{state}");
        }
    }
}
