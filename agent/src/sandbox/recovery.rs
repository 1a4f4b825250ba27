//! What becomes of a sandbox whose agent has ended, as one pure function of its journal and of what is there.
//!
//! | noted | its machine runs | it has none |
//! |---|---|---|
//! | creating | removed | removed |
//! | running | goes on | stopped |
//! | paused, with its state | machine ended, paused | paused |
//! | paused, its state is gone | machine ended, stopped | stopped |
//! | restoring | machine ended, stopped | stopped |
//! | saving, its disk is the sandbox's: a snapshot | machine ended, paused | paused |
//! | the same, without its state; an image | machine ended, stopped | stopped |
//! | saving, its disk is a draft's | template finished, removed | template finished, removed |
//! | saving, the template is there | removed | removed |
//! | stopped | machine ended, stopped | stopped |
//! | destroying | removed | removed |
//! | anything, of another boot, configuration or version | removed | removed |
//!
//! What cannot be looked at has no machine and no state here. A machine that goes on may still turn out not to answer: it has stopped then. More than one process in a directory
//! is no machine that could go on.

use ovenbird_host::vm::Saved;

use super::journal::Stage;
use crate::template::{Given, Kind};

/// What is there of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// Why its journal says nothing about this host, if so.
    pub(super) foreign: Option<&'static str>,
    /// Processes of its user in its directory.
    pub(super) machines: usize,
    /// Whether there is a saved state.
    pub(super) has_state: bool,
    /// What that contains when it was saved for a template.
    pub(super) saved: Saved,
    /// How much of it is a template's.
    pub(super) given: Given,
}

impl Facts {
    /// Of what cannot be looked at: nothing that could go on.
    pub(super) fn unknown(foreign: Option<&'static str>) -> Self {
        let (saved, given) = (Saved::Devices, Given::Nothing);
        Self { foreign, machines: 0, has_state: false, saved, given }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Course {
    /// It runs on its machine.
    GoOn,
    /// It is paused. A machine that is there has no say any more.
    Sleep { saved: Saved, untold: bool },
    /// It has stopped, and says why. Its disk and its address are kept.
    Stop { detail: String },
    /// Its template is published, and nothing else of it stays.
    Finish { kind: Kind, template: String },
    /// Nothing of it stays.
    Remove { why: &'static str },
}

/// See the module.
pub(super) fn course(stage: &Stage, facts: Facts) -> Course {
    let stop = |detail: &str| Course::Stop { detail: detail.to_owned() };
    if let Some(why) = facts.foreign {
        return Course::Remove { why };
    }
    match stage {
        Stage::Creating => Course::Remove { why: "it was still being made" },
        Stage::Running => match facts.machines {
            1 => Course::GoOn,
            0 => stop(": its QEMU ended while no agent ran"),
            _ => stop(": there was more than one QEMU in its directory"),
        },
        Stage::Paused { saved, untold } if facts.has_state => {
            Course::Sleep { saved: *saved, untold: *untold }
        }
        Stage::Paused { .. } => stop(": its saved state is gone"),
        Stage::Restoring { .. } => {
            stop(": the host agent ended while its checkpoint was put back; try again")
        }
        Stage::Saving { kind, template } => match (facts.given, kind) {
            (Given::Published, _) => Course::Remove { why: "its files are a template's" },
            (Given::Draft, _) => Course::Finish { kind: *kind, template: template.clone() },
            (Given::Nothing, Kind::Snapshot) if facts.has_state => {
                Course::Sleep { saved: facts.saved, untold: false }
            }
            (Given::Nothing, Kind::Snapshot) => stop(": its saved state is gone"),
            (Given::Nothing, Kind::Image) => {
                stop(": the host agent ended while its disk was made a template")
            }
        },
        Stage::Stopped { detail } => stop(detail),
        Stage::Destroying => Course::Remove { why: "it was being removed" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSED: Stage = Stage::Paused { saved: Saved::Devices, untold: false };

    /// What follows a stage in the one order of all: a new one does not compile without a place in it.
    fn next(stage: &Stage) -> Option<Stage> {
        Some(match stage {
            Stage::Creating => Stage::Running,
            Stage::Running => PAUSED,
            Stage::Paused { .. } => Stage::Restoring { checkpoint: "base".into() },
            Stage::Restoring { .. } => saving(Kind::Image),
            Stage::Saving { kind: Kind::Image, .. } => saving(Kind::Snapshot),
            Stage::Saving { kind: Kind::Snapshot, .. } => Stage::Stopped { detail: ": why".into() },
            Stage::Stopped { .. } => Stage::Destroying,
            Stage::Destroying => return None,
        })
    }

    fn saving(kind: Kind) -> Stage {
        Stage::Saving { kind, template: "t".into() }
    }

    fn all() -> impl Iterator<Item = (Stage, Facts)> {
        let stages = std::iter::successors(Some(Stage::Creating), next);
        stages.flat_map(|stage| {
            let facts = (0..36).map(|n| Facts {
                foreign: (n % 2 == 1).then_some("another boot"),
                machines: n / 2 % 3,
                has_state: n / 6 % 2 == 1,
                saved: Saved::Devices,
                given: [Given::Nothing, Given::Draft, Given::Published][n / 12],
            });
            facts.map(move |facts| (stage.clone(), facts)).collect::<Vec<_>>()
        })
    }

    #[test]
    fn only_one_machine_of_a_running_sandbox_goes_on() {
        for (stage, facts) in all() {
            let goes_on = course(&stage, facts) == Course::GoOn;
            let expected = stage == Stage::Running && facts.machines == 1;
            assert_eq!(goes_on, expected && facts.foreign.is_none(), "{stage:?} {facts:?}");
        }
    }

    #[test]
    fn what_nobody_was_answered_about_or_was_to_end_is_removed_and_nothing_else() {
        for (stage, facts) in all() {
            let removed = matches!(course(&stage, facts), Course::Remove { .. });
            let ends = match stage {
                Stage::Creating | Stage::Destroying => true,
                Stage::Saving { .. } => facts.given == Given::Published,
                _ => false,
            };
            assert_eq!(removed, ends || facts.foreign.is_some(), "{stage:?} {facts:?}");
        }
    }

    #[test]
    fn template_is_finished_that_has_the_disk_and_no_other() {
        for (stage, facts) in all() {
            let finished = matches!(course(&stage, facts), Course::Finish { .. });
            let expected = matches!(stage, Stage::Saving { .. }) && facts.given == Given::Draft;
            assert_eq!(finished, expected && facts.foreign.is_none(), "{stage:?} {facts:?}");
        }
    }

    #[test]
    fn only_what_was_saved_with_its_state_sleeps_and_its_machine_has_no_say() {
        for (stage, facts) in all() {
            let sleeps =
                course(&stage, facts) == Course::Sleep { saved: Saved::Devices, untold: false };
            let was_saved = stage == saving(Kind::Snapshot) && facts.given == Given::Nothing;
            let expected = (stage == PAUSED || was_saved) && facts.has_state;
            assert_eq!(sleeps, expected && facts.foreign.is_none(), "{stage:?} {facts:?}");
        }
    }

    #[test]
    fn whatever_stops_says_why() {
        for (stage, facts) in all() {
            if let Course::Stop { detail } = course(&stage, facts) {
                assert!(detail.starts_with(": ") && detail.len() > 4, "{stage:?} {facts:?}");
            }
        }
    }
}
