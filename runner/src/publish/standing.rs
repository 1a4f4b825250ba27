//! Where the build stands, as it goes out with each message of its log. Pure.
//!
//! Notes pass through the same queue as the lines, so a message never says of a step that it is done before the
//! step's last line is in the log.

use ovenbird_contract::{build::Reason, id::HostId, standing::Standing};

use super::{output::Marks, progress::Progress};

/// What changed for a runner that would take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A sandbox of this id may exist on the host.
    Sandbox(HostId, String),
    /// Its guest has answered.
    Ready,
    /// This try of the next step begins.
    Try(u32),
    /// Steps up to this one are done.
    StepDone(u32),
    /// The healthcheck has passed.
    Healthy,
    /// The build has failed, whoever tells the desk.
    Failed(Reason),
    /// Nothing is left to go on with, unless the build has failed.
    Gone,
}

/// Keeps it.
#[derive(Debug, Clone, Default)]
pub(super) struct Keeper {
    standing: Option<Standing>,
}

impl Keeper {
    pub(super) fn new(standing: Option<Standing>) -> Self {
        Self { standing }
    }

    pub(super) fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }

    pub(super) fn note(&mut self, note: Note) {
        match (note, &mut self.standing) {
            (Note::Gone, standing) => {
                *standing = standing.take().filter(|standing| standing.failed.is_some());
            }
            (Note::Sandbox(host_id, sandbox_id), standing) => {
                let log_bytes = standing.as_ref().map_or(0, |standing| standing.log_bytes);
                *standing = Some(Standing {
                    host_id,
                    sandbox_id,
                    ready: false,
                    steps_done: 0,
                    step_try: 1,
                    healthy: false,
                    failed: None,
                    outputs: Vec::new(),
                    log_bytes,
                });
            }
            (_, None) => {}
            (Note::Ready, Some(standing)) => standing.ready = true,
            (Note::Try(nth), Some(standing)) => standing.step_try = nth,
            (Note::StepDone(number), Some(standing)) => {
                standing.steps_done = number;
                standing.step_try = 1;
                standing.outputs.retain(|output| output.background);
            }
            (Note::Healthy, Some(standing)) => standing.healthy = true,
            (Note::Failed(reason), Some(standing)) => standing.failed = Some(reason),
        }
    }

    /// Output of a command was logged up to `marks`. Of those in the foreground there is one at a time.
    pub(super) fn logged(&mut self, step: u32, progress: &Progress, marks: Marks) {
        let Some(standing) = &mut self.standing else { return };
        let exec_id = progress.exec_id();
        let output = progress.resume(step, marks);
        match standing.outputs.iter_mut().find(|output| output.exec_id == exec_id) {
            Some(known) => {
                standing.log_bytes += marks.logged.without(known.logged).bytes;
                *known = output;
            }
            None => {
                standing.log_bytes += marks.logged.bytes;
                standing.outputs.retain(|known| known.background || output.background);
                standing.outputs.push(output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ovenbird_contract::step::Amount;

    use super::*;

    fn ids(keeper: &Keeper) -> Vec<(String, u64)> {
        let outputs = keeper.standing().into_iter().flat_map(|standing| &standing.outputs);
        outputs.map(|output| (output.exec_id.clone(), output.stdout)).collect()
    }

    fn at(offset: u64) -> Marks {
        let logged = Amount { bytes: offset, lines: 1 };
        Marks { stdout: offset, stderr: offset, logged, ..Marks::default() }
    }

    #[test]
    fn only_started_processes_and_the_last_command_are_remembered() {
        let mut keeper = Keeper::default();
        keeper.note(Note::StepDone(9));
        assert_eq!(keeper.standing(), None);
        keeper.note(Note::Sandbox(HostId::new(), "sbx".into()));
        let (run, next) = (Progress::new("run", 0), Progress::new("next", 0));
        let started = Progress::new("start", 0).in_background();
        keeper.logged(1, &started, at(5));
        keeper.logged(2, &run, at(1));
        keeper.logged(2, &run, at(7));
        assert_eq!(ids(&keeper), [("start".into(), 5), ("run".into(), 7)]);
        keeper.logged(3, &next, at(2));
        keeper.logged(1, &started, at(6));
        assert_eq!(ids(&keeper), [("start".into(), 6), ("next".into(), 2)]);
        keeper.note(Note::StepDone(3));
        assert_eq!(ids(&keeper), [("start".into(), 6)]);
        assert_eq!(keeper.standing().map(|standing| standing.log_bytes), Some(6 + 7 + 2));
        keeper.note(Note::Gone);
        assert_eq!(keeper.standing(), None);
    }
}
