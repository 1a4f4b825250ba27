//! Does one try of one step.

use std::time::Duration;

use ovenbird_agent_client::{Command, Error as AgentError, ExecEnd};
use ovenbird_contract::{build::ReasonCode, event::What, step::Phase};
use tokio::time::Instant;

use super::{
    driver::{Driver, Halt, entry, failed_call, seconds},
    follow::{Error, Exec, Follow, Kept},
    scripts, span,
    start::{Started, put_output},
    state::{Context, Event, Task, Work},
};
use crate::{publish::Note, stop::Interrupt};

/// `WORKDIR` and `USER` do little; more than this is a broken guest.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The way out does not wait longer than this for the log to take how much of the output was cut.
const LEAVE_MAX: Duration = Duration::from_millis(500);

/// What a command in the guest came to.
pub(super) enum Ran {
    /// It ended.
    Ended(ExecEnd, Kept),
    /// Its end is not known; with what it wrote, as far as there is any.
    Failed(Event, Kept),
}

impl Driver {
    pub(super) async fn step(&mut self, work: Work) -> Result<Event, Halt> {
        // What another runner began was announced by it, and what that cost is in the guest.
        let goes_on = std::mem::take(&mut self.goes_on);
        if work.nth > 1 && !goes_on {
            self.log.note(Note::Try(work.nth)).await?;
            let line = format!("trying again in {} s (try {})", work.pause.as_secs(), work.nth);
            self.log.system(work.number, &line).await?;
            self.stop.guard(tokio::time::sleep(work.pause)).await?;
        }
        self.announce(work.number, Phase::Step, &work.cmd).await?;
        if !goes_on {
            let line = format!("step {}/{}: {}", work.number, self.state.steps(), work.cmd);
            self.log.system(work.number, &line).await?;
        }
        let begun = Instant::now();
        let mut exit = None;
        let mut kept = None;
        let mut took = Duration::ZERO;
        let event = match self.task(&work).await? {
            Done::Nothing => Event::StepPassed,
            Done::Failed(event) => event,
            Done::CutOff(event, output) => {
                kept = Some(output);
                event
            }
            Done::Ended(end, output) => {
                exit = Some(end.exit_code);
                span::exited(end.exit_code);
                took = end.elapsed;
                let event = judge(&work, &end, &output);
                kept = Some(output);
                event
            }
        };
        let elapsed = begun.elapsed().max(took);
        let mut entry =
            entry(work.number, Phase::Step, work.cmd, event == Event::StepPassed, elapsed);
        entry.exit = exit;
        if let Some(kept) = &kept {
            put_output(&mut entry, kept);
        }
        self.events.publish(What::StepFinished(entry)).await?;
        if event == Event::StepPassed {
            self.log.note(Note::StepDone(work.number)).await?;
        }
        Ok(event)
    }

    async fn task(&mut self, work: &Work) -> Result<Done, Halt> {
        let (command, timeout) = match &work.task {
            Task::Environment(_) => return Ok(Done::Nothing),
            Task::Impossible { code, message } => {
                return Ok(Done::Failed(Event::Failed {
                    code: *code,
                    message: message.clone(),
                    tail: None,
                }));
            }
            Task::Start { script } => return self.start(work, script).await,
            Task::Copy(copying) => {
                let event = Box::pin(self.copy(work.number, copying)).await?;
                return Ok(match event {
                    Event::StepPassed => Done::Nothing,
                    event => Done::Failed(event),
                });
            }
            Task::Run { script, timeout } => (in_context(script, &work.context), *timeout),
            Task::Directory { path } => {
                (scripts::directory(path, work.context.user.as_deref()), HOUSEKEEPING)
            }
            Task::User { name, sudo } => (scripts::user(name, *sudo), HOUSEKEEPING),
        };
        let exec_id = self.exec_id(work);
        Ok(match self.run_command(work.number, exec_id, command, timeout).await? {
            Ran::Ended(end, kept) => Done::Ended(end, kept),
            Ran::Failed(event, kept) => Done::CutOff(event, kept),
        })
    }

    /// The same command has the same id whoever runs it, so that another runner finds it; another try is
    /// another command.
    pub(super) fn exec_id(&self, work: &Work) -> String {
        let digest: String = self.claim.plan_digest.chars().take(12).collect();
        let id = format!("{}.{}.{digest}", self.claim.build_id, work.number);
        if work.nth > 1 { format!("{id}.{}", work.nth) } else { id }
    }

    /// Runs a command to its end, its output logged under `step`.
    pub(super) async fn run_command(
        &mut self,
        step: u32,
        exec_id: String,
        command: Command,
        timeout: Duration,
    ) -> Result<Ran, Halt> {
        let mut follow = match self.follow(step, exec_id, command, Some(timeout)).await? {
            Ok(follow) => follow,
            Err(event) => return Ok(Ran::Failed(event, Kept::default())),
        };
        let event = match self.stop.guard(follow.until_end()).await {
            Ok(Ok(end)) => return Ok(Ran::Ended(end, std::mem::take(&mut follow.kept))),
            Ok(Err(error)) => lost(&error, ReasonCode::Internal)?,
            Err(Interrupt::TimeOver) => {
                // The sandbox is destroyed in a moment, and the command with it. What it said is not lost.
                follow.finish(None).await?;
                self.out_of_time(follow.tail())
            }
            Err(interrupt) => {
                if interrupt == Interrupt::Drain
                    && !matches!(tokio::time::timeout(LEAVE_MAX, follow.leave()).await, Ok(Ok(())))
                {
                    tracing::debug!("not all that was cut is told to the next runner");
                }
                return Err(interrupt.into());
            }
        };
        Ok(Ran::Failed(event, std::mem::take(&mut follow.kept)))
    }

    async fn start(&mut self, work: &Work, script: &str) -> Result<Done, Halt> {
        let exec_id = self.exec_id(work);
        let command = in_context(script, &work.context);
        match self.follow(work.number, exec_id, command, None).await? {
            Ok(follow) => {
                self.started.push(Started::follow(work.number, work.cmd.clone(), follow));
                Ok(Done::Nothing)
            }
            Err(event) => Ok(Done::Failed(event)),
        }
    }

    async fn follow(
        &mut self,
        step: u32,
        exec_id: String,
        command: Command,
        timeout: Option<Duration>,
    ) -> Result<Result<Follow, Event>, Halt> {
        let logged = self.before.take(&exec_id);
        let exec = Exec {
            agent: self.agent.clone(),
            sandbox_id: self.sandbox.clone().unwrap_or_default(),
            exec_id,
            step,
            command,
            timeout,
            away_max: self.away_max,
            budget: self.budget.clone(),
        };
        match self.stop.guard(Follow::start(exec, self.log.clone(), logged)).await? {
            Ok((follow, acknowledger)) => {
                while self.background.try_join_next().is_some() {}
                self.background.spawn(acknowledger.run());
                Ok(Ok(follow))
            }
            Err(error) => lost(&error, ReasonCode::Internal).map(Err),
        }
    }
}

enum Done {
    Nothing,
    Ended(ExecEnd, Kept),
    CutOff(Event, Kept),
    Failed(Event),
}

/// Why a command has no end, as an event; `otherwise` is for errors that say nothing about the host.
pub(super) fn lost(error: &Error, otherwise: ReasonCode) -> Result<Event, Halt> {
    match error {
        Error::Closed(_) => Err(Halt::Superseded),
        // A sandbox whose guest has turned itself off is there, and takes no commands.
        Error::Agent(AgentError::FailedPrecondition { message }) => Ok(Event::Failed {
            code: ReasonCode::SandboxEnded,
            message: format!("the microVM ended under the build's commands: {message}"),
            tail: None,
        }),
        Error::Agent(error) => failed_call(error, otherwise),
    }
}

/// `script` for the guest's `sh`, where and as whom the recipe says.
pub(super) fn in_context(script: &str, context: &Context) -> Command {
    let mut command = Command::shell(script);
    command.env.clone_from(&context.env);
    command.workdir.clone_from(&context.workdir);
    command.user.clone_from(&context.user);
    command
}

fn judge(work: &Work, end: &ExecEnd, kept: &Kept) -> Event {
    let tail = Some(kept.tail.text()).filter(|tail| !tail.is_empty());
    let Work { number, cmd, .. } = work;
    let (code, message) = if end.timed_out {
        let limit = match &work.task {
            Task::Run { timeout, .. } => *timeout,
            _ => HOUSEKEEPING,
        };
        let limit = seconds(limit);
        let how = format!("ran longer than {limit} and was killed with its children");
        (ReasonCode::StepTimeout, format!("step {number} ({cmd}) {how}"))
    } else if let (Some(error), 0 | 126 | 127) = (&end.error, end.exit_code) {
        (ReasonCode::StepFailed, format!("step {number} ({cmd}) could not be started: {error}"))
    } else if end.exit_code != 0 {
        let how = match end.exit_code {
            signal @ 129..=192 => format!("was ended by signal {}", signal - 128),
            code => format!("ended with exit code {code}"),
        };
        // Which limit of the guest it ran into.
        let why = end.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        (ReasonCode::StepFailed, format!("step {number} ({cmd}) {how}{why}"))
    } else {
        return Event::StepPassed;
    };
    Event::Failed { code, message, tail }
}
