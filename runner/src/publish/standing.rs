//! Where the build stands, as it goes out with each message of its log. Pure.
//!
//! Notes pass through the same queue as the lines, so a message never says of a step that it is done before the
//! step's last line is in the log.

use ovenbird_contract::{id::HostId, log::Resume, standing::Standing};

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
    /// Nothing is left to go on with.
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
            (Note::Gone, standing) => *standing = None,
            (Note::Sandbox(host_id, sandbox_id), standing) => {
                *standing = Some(Standing {
                    host_id,
                    sandbox_id,
                    ready: false,
                    steps_done: 0,
                    step_try: 1,
                    healthy: false,
                    outputs: Vec::new(),
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
        }
    }

    /// Output of a command was logged up to `marks`. Of those in the foreground there is one at a time.
    pub(super) fn logged(&mut self, step: u32, progress: &Progress, marks: Marks) {
        let Some(standing) = &mut self.standing else { return };
        let exec_id = progress.exec_id();
        let output = Resume {
            exec_id: exec_id.to_owned(),
            stdout: marks.stdout,
            stderr: marks.stderr,
            stdout_open: marks.stdout_open,
            stderr_open: marks.stderr_open,
            step,
            background: progress.is_background(),
        };
        match standing.outputs.iter_mut().find(|output| output.exec_id == exec_id) {
            Some(known) => *known = output,
            None => {
                standing.outputs.retain(|known| known.background || output.background);
                standing.outputs.push(output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(keeper: &Keeper) -> Vec<(String, u64)> {
        let outputs = keeper.standing().into_iter().flat_map(|standing| &standing.outputs);
        outputs.map(|output| (output.exec_id.clone(), output.stdout)).collect()
    }

    fn at(offset: u64) -> Marks {
        Marks { stdout: offset, stderr: offset, ..Marks::default() }
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
        keeper.note(Note::Gone);
        assert_eq!(keeper.standing(), None);
    }
}
