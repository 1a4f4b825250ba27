//! Takes a build over from the runner before.
//!
//! ```text
//! standing ─► state (which step, which try) ─► START processes attached again ─► the step's command, by its exec id
//! ```
//!
//! Nothing is run here that ran before. The command of the present step has the same exec id whoever asks for it,
//! so starting it finds it, running or ended; what its output's marks say is in the log already is skipped. A START
//! process is only attached to: one that the guest does not know any more is lost with its sandbox, not started
//! again. The healthcheck begins anew, with commands of its own, because an old answer proves nothing.

use ovenbird_agent_client::OutputStream;
use ovenbird_contract::{
    log::{LineRecord, Resume, Stream},
    standing::{ResumeFrom, Standing},
    step::Amount,
};

use super::{
    driver::{Driver, Halt},
    follow::{Exec, Follow, Kept},
    start::Started,
    state::{Next, Reached, Task},
    step::in_context,
};
use crate::publish::Marks;

/// What the runner before logged of the commands that it followed.
#[derive(Debug, Default)]
pub(super) struct Before {
    outputs: Vec<Resume>,
    lines: Vec<LineRecord>,
}

/// What it logged of one of them.
#[derive(Debug, Default)]
pub(super) struct Logged {
    pub(super) marks: Marks,
    pub(super) kept: Kept,
}

impl Before {
    /// What is known of this command; taken once.
    pub(super) fn take(&mut self, exec_id: &str) -> Logged {
        let Some(at) = self.outputs.iter().position(|output| output.exec_id == exec_id) else {
            return Logged::default();
        };
        let output = self.outputs.swap_remove(at);
        let mut kept = Kept::default();
        let mut known = Amount::default();
        for line in self.lines.iter().filter(|line| line.step == output.step) {
            let stream = match line.stream {
                Stream::Stdout => OutputStream::Stdout,
                Stream::Stderr => OutputStream::Stderr,
                Stream::System => continue,
            };
            let mut bytes = line.text.clone().into_bytes();
            if !line.cont {
                bytes.push(b'\n');
            }
            known += Amount { bytes: bytes.len() as u64, lines: u64::from(!line.cont) };
            kept.push(stream, &bytes);
        }
        let marks = Marks::from(&output);
        let had = marks.logged + marks.cut;
        kept.missing = had.without(known);
        Logged { marks, kept }
    }
}

/// How far the build came, in the words of the state.
pub(super) fn reached(standing: &Standing) -> Reached {
    Reached {
        steps_done: standing.steps_done,
        step_try: standing.step_try,
        healthy: standing.healthy,
        failed: standing.failed.clone(),
    }
}

impl Driver {
    /// Makes the sandbox and what runs in it this runner's. While only the template is missing nothing is
    /// followed: it may be half written, and its guest silent. Nor is it of a build that has failed.
    pub(super) async fn take_over(&mut self, from: ResumeFrom) -> Result<(), Halt> {
        let ResumeFrom { standing, lines } = from;
        self.sandbox = Some(standing.sandbox_id);
        self.before = Before { outputs: standing.outputs, lines };
        self.goes_on = true;
        if matches!(self.state.next(), Next::Publish(_) | Next::Over(_)) {
            return Ok(());
        }
        for work in self.state.started() {
            let Task::Start { script } = &work.task else { continue };
            let exec_id = self.exec_id(&work);
            let logged = self.before.take(&exec_id);
            let exec = Exec {
                agent: self.agent.clone(),
                sandbox_id: self.sandbox.clone().unwrap_or_default(),
                exec_id,
                step: work.number,
                command: in_context(script, &work.context),
                timeout: None,
                away_max: self.away_max,
                budget: self.budget.clone(),
            };
            let (follow, acknowledger) = Follow::again(exec, self.log.clone(), logged);
            self.background.spawn(acknowledger.run());
            self.started.push(Started::follow(work.number, work.cmd.clone(), follow));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_output_begins_with_the_lines_before_and_counts_what_is_missing() {
        let line = |step, stream, text: &str, cont| LineRecord {
            seq: 1,
            ts: chrono::DateTime::UNIX_EPOCH,
            attempt: 1,
            step,
            stream,
            text: text.into(),
            cont,
            data: None,
        };
        let output = Resume {
            exec_id: "run".into(),
            stdout: 30,
            stderr: 28,
            stdout_open: true,
            stderr_open: false,
            step: 2,
            background: false,
            logged: Amount { bytes: 30, lines: 4 },
            cut: Amount { bytes: 1_000, lines: 90 },
        };
        let marks = Marks::from(&output);
        let mut before = Before {
            outputs: vec![output],
            lines: vec![
                line(1, Stream::Stdout, "of another step", false),
                line(2, Stream::Stdout, "half", true),
                line(2, Stream::System, "not of the command", false),
                line(2, Stream::Stdout, " and half", false),
                line(2, Stream::Stderr, "oh", false),
            ],
        };
        let logged = before.take("run");
        assert_eq!(logged.marks, marks);
        assert_eq!(logged.kept.stdout.text(), "half and half\n");
        assert_eq!(logged.kept.stderr.text(), "oh\n");
        assert_eq!(logged.kept.tail.text(), "half and half\noh");
        assert_eq!(logged.kept.missing, Amount { bytes: 1_030 - 17, lines: 94 - 2 });
        assert_eq!(before.take("run").marks, Marks::default());
    }
}
