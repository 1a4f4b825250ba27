//! The life of a sandbox, as one pure function.
//!
//! ```text
//!  creating ─ ready ─► running
//!      └─ failed ─► destroying
//!
//!  running ─ pause ─► pausing ─ paused ─► paused ─ resume ─► resuming ─ resumed ─► running
//!                        └─ not paused ─► running               └─ not resumed ─► paused
//!
//!  running ─ save ─► saving ─ saved ─► destroying
//!                       └─ not saved ─► running
//!
//!  running, stopped ─ restore ─► restoring ─ restored ─► running
//!
//!  running, pausing, resuming, restoring ─ ended ─► stopped
//!
//!  running, paused, stopped, broken ─ destroy ─► destroying ─ removed ─► gone: no longer known
//!                                                    └─ not removed ─► broken: keeps its slot
//! ```
//!
//! Running, pausing and saving sandboxes have a machine; creating, resuming and restoring ones get one. A paused
//! sandbox has its files and its network only, and so has a stopped one that was on its way to a machine. `ended`
//! in the middle of a step means that there is no way back: neither the machine that was, nor a state that belongs
//! to the memory and the disk. An agent that takes over from an earlier one finds sandboxes without an event: running,
//! paused, stopped or broken.

use std::fmt;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being made; its guest is not ready.
    Creating,
    /// Serves calls.
    Running,
    /// Its memory is on its way to the disk.
    Pausing,
    /// Its memory is on the disk, and it has no process.
    Paused,
    /// Its memory is on its way back.
    Resuming,
    /// Its disk is being put back to a checkpoint.
    Restoring,
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
    /// It shall give its memory back.
    Pause,
    /// Memory and devices are on the disk, its machine is gone.
    Paused,
    /// It did not come to that, and goes on.
    NotPaused,
    /// It shall go on where it was paused.
    Resume,
    /// Its guest answers again.
    Resumed,
    /// It did not come to that, and can be resumed again.
    NotResumed,
    /// Its disk shall be put back to a checkpoint, and booted.
    Restore,
    /// The guest of that boot answers.
    Restored,
    /// It shall become a template.
    Save,
    /// Its machine no longer exists: its files are the template's.
    Saved,
    /// It did not become a template and goes on.
    NotSaved,
    /// Its machine ended by itself, or was lost on the way.
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
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Creating,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
        Self::Restoring,
        Self::Saving,
        Self::Stopped,
        Self::Destroying,
        Self::Broken,
        Self::Gone,
    ];

    /// The state after an event.
    ///
    /// # Errors
    /// [`Refused`], with this state.
    pub fn after(self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Creating, Event::Ready)
            | (Self::Saving, Event::NotSaved)
            | (Self::Pausing, Event::NotPaused)
            | (Self::Resuming, Event::Resumed)
            | (Self::Restoring, Event::Restored) => Ok(Self::Running),
            (Self::Running, Event::Pause) => Ok(Self::Pausing),
            (Self::Pausing, Event::Paused) | (Self::Resuming, Event::NotResumed) => {
                Ok(Self::Paused)
            }
            (Self::Paused, Event::Resume) => Ok(Self::Resuming),
            (Self::Running | Self::Stopped, Event::Restore) => Ok(Self::Restoring),
            (Self::Running, Event::Save) => Ok(Self::Saving),
            (Self::Running | Self::Pausing | Self::Resuming | Self::Restoring, Event::Ended) => {
                Ok(Self::Stopped)
            }
            (Self::Creating, Event::Failed)
            | (Self::Saving, Event::Saved)
            | (Self::Running | Self::Paused | Self::Stopped | Self::Broken, Event::Destroy) => {
                Ok(Self::Destroying)
            }
            (Self::Destroying, Event::Removed) => Ok(Self::Gone),
            (Self::Destroying, Event::NotRemoved) => Ok(Self::Broken),
            _ => Err(Refused(self)),
        }
    }

    /// Whether the state ends by itself, so that it is worth waiting for the next.
    pub fn passes(self) -> bool {
        match self {
            Self::Creating
            | Self::Pausing
            | Self::Resuming
            | Self::Restoring
            | Self::Saving
            | Self::Destroying => true,
            Self::Running | Self::Paused | Self::Stopped | Self::Broken | Self::Gone => false,
        }
    }

    /// As callers see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Restoring => "restoring",
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
    use std::collections::HashSet;

    use super::*;

    /// What follows an event in the one order of all events: a new one does not compile without a place in it.
    fn next_event(event: Event) -> Option<Event> {
        Some(match event {
            Event::Ready => Event::Failed,
            Event::Failed => Event::Pause,
            Event::Pause => Event::Paused,
            Event::Paused => Event::NotPaused,
            Event::NotPaused => Event::Resume,
            Event::Resume => Event::Resumed,
            Event::Resumed => Event::NotResumed,
            Event::NotResumed => Event::Restore,
            Event::Restore => Event::Restored,
            Event::Restored => Event::Save,
            Event::Save => Event::Saved,
            Event::Saved => Event::NotSaved,
            Event::NotSaved => Event::Ended,
            Event::Ended => Event::Destroy,
            Event::Destroy => Event::Removed,
            Event::Removed => Event::NotRemoved,
            Event::NotRemoved => return None,
        })
    }

    fn events() -> Vec<Event> {
        std::iter::successors(Some(Event::Ready), |event| next_event(*event)).collect()
    }

    fn transitions() -> impl Iterator<Item = (State, Event, State)> {
        let pairs = State::ALL
            .into_iter()
            .flat_map(|state| events().into_iter().map(move |event| (state, event)));
        pairs.filter_map(|(state, event)| Some((state, event, state.after(event).ok()?)))
    }

    #[test]
    fn list_of_states_is_complete_and_every_name_is_its_own() {
        let names: HashSet<_> = State::ALL.into_iter().map(State::name).collect();
        assert_eq!(names.len(), State::ALL.len());
        // A state that is missing from the list would be a target, or nothing would ever lead to it.
        let targets: HashSet<_> = transitions().map(|(.., next)| next.name()).collect();
        let reached: HashSet<_> =
            names.iter().copied().filter(|name| *name != "creating").collect();
        assert_eq!(targets, reached);
    }

    #[test]
    fn every_event_happens_in_some_state_and_a_refusal_names_the_state() {
        for event in events() {
            assert!(transitions().any(|(_, other, _)| other == event), "{event:?}");
        }
        for state in State::ALL {
            for event in events() {
                if let Err(refused) = state.after(event) {
                    assert_eq!(refused, Refused(state));
                }
            }
        }
    }

    #[test]
    fn only_removal_leads_to_gone_and_nothing_leads_out_of_it() {
        for (state, event, next) in transitions() {
            assert_ne!(state, State::Gone, "{event:?}");
            if next == State::Gone {
                assert_eq!((state, event), (State::Destroying, Event::Removed));
            }
        }
    }

    #[test]
    fn every_state_that_does_not_pass_can_be_destroyed() {
        for state in State::ALL.into_iter().filter(|state| !state.passes() && *state != State::Gone)
        {
            assert_eq!(state.after(Event::Destroy), Ok(State::Destroying), "{state}");
        }
    }

    #[test]
    fn every_state_that_passes_has_a_way_to_one_that_does_not() {
        for state in State::ALL.into_iter().filter(|state| state.passes()) {
            let (mut seen, mut next) = (vec![state], state);
            while next.passes() {
                let step = transitions().find(|(from, _, to)| *from == next && !seen.contains(to));
                next = step.unwrap_or_else(|| panic!("{state} never ends")).2;
                seen.push(next);
            }
        }
    }

    #[test]
    fn nothing_but_a_running_sandbox_is_saved_or_paused_and_nothing_but_a_paused_one_is_resumed() {
        for (state, event, _) in transitions() {
            match event {
                Event::Save | Event::Pause => assert_eq!(state, State::Running, "{event:?}"),
                Event::Resume => assert_eq!(state, State::Paused),
                _ => {}
            }
        }
    }

    #[test]
    fn step_that_fails_leads_back_or_to_stopped_but_never_to_where_it_was_going() {
        let steps = [
            (State::Pausing, Event::NotPaused, State::Running),
            (State::Resuming, Event::NotResumed, State::Paused),
            (State::Saving, Event::NotSaved, State::Running),
            (State::Pausing, Event::Ended, State::Stopped),
            (State::Resuming, Event::Ended, State::Stopped),
            (State::Restoring, Event::Ended, State::Stopped),
        ];
        for (state, event, next) in steps {
            assert_eq!(state.after(event), Ok(next), "{state} {event:?}");
        }
    }
}
