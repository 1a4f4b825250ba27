//! Does what [`State`] says comes next, and cleans up.

use std::{sync::Arc, time::Duration};

use ovenbird_agent_client::{Agent, Error as AgentError};
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{Claim, Published, TemplateKind},
    event::What,
    id::SandboxId,
    step::{Phase, StepLog},
};
use ovenbird_recipe::Plan;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::Instrument as _;

use super::{
    resume::{Before, reached},
    span,
    start::Started,
    state::{Event, Next, State},
};
use crate::{
    context::{Context, Contexts},
    metrics::Metrics,
    publish::{Budget, Closed, Events, GaveUp, Log, Note, Tail},
    stop::{Interrupt, Stop},
};

/// The way out does not wait longer than this for the sandbox's end; the sweep does the rest.
const DESTROY_MAX: Duration = Duration::from_secs(10);
/// The way out does not wait longer than this for the guest to be told what it may forget.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// What an attempt needs.
#[derive(Debug)]
pub struct Setup {
    /// The build, as claimed.
    pub claim: Claim<Plan>,
    /// Its host, fenced.
    pub agent: Agent,
    /// Where its lines go.
    pub log: Log,
    /// Where its events go.
    pub events: Events,
    /// What interrupts it.
    pub stop: Stop,
    /// Where its context comes from.
    pub contexts: Contexts,
    /// What counts it.
    pub metrics: Metrics,
    /// Most microVMs that are tried.
    pub boots_max: u32,
    /// A host that cannot be reached for this long is lost.
    pub away_max: Duration,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The template is on the host.
    Succeeded(Published),
    /// It failed, and nothing is left.
    Failed(Reason),
    /// Its host failed, not the recipe, and nothing is left: another host may do.
    HostFailed(Reason),
    /// It was interrupted. A cancelled one leaves nothing; any other leaves everything as it was, for the
    /// runner that goes on.
    Interrupted(Interrupt),
    /// The build's log or events cannot be written by this attempt any more, or its fence is stale. Another
    /// runner goes on with what is there.
    Superseded,
}

/// Why there is no event to go on with.
#[derive(Debug)]
pub(super) enum Halt {
    Interrupted(Interrupt),
    Superseded,
}

impl From<Interrupt> for Halt {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<Closed> for Halt {
    fn from(_: Closed) -> Self {
        Self::Superseded
    }
}

impl From<GaveUp> for Halt {
    fn from(error: GaveUp) -> Self {
        tracing::error!(error = ovenbird_kit::telemetry::chain(&error), "events cannot be written");
        Self::Superseded
    }
}

/// What is left when an attempt is over.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub ending: Ending,
    /// The events, for the position of the last one.
    pub events: Events,
    /// The host has said of every sandbox of this attempt that it is gone.
    pub sandbox_gone: bool,
}

/// Runs the attempt to its end.
pub async fn run(setup: Setup) -> Done {
    let (plan, base, boots_max) = (setup.claim.plan.clone(), &setup.claim.base, setup.boots_max);
    let state = match &setup.claim.resume {
        Some(from) => State::resumed(plan, base, boots_max, reached(&from.standing)),
        None => State::new(plan, base, boots_max),
    };
    let spent = setup.claim.resume.as_ref().map_or(0, |from| from.standing.log_bytes);
    let budget = Budget::new(setup.claim.log_caps, spent);
    // The runner before may have begun it.
    let template_begun = matches!(state.next(), Next::Publish(_));
    let mut driver = Driver {
        claim: setup.claim,
        agent: setup.agent,
        log: setup.log,
        events: setup.events,
        stop: setup.stop,
        contexts: setup.contexts,
        context: None,
        metrics: setup.metrics,
        away_max: setup.away_max,
        budget,
        state,
        goes_on: false,
        before: Before::default(),
        sandbox: None,
        sandbox_left: false,
        template_begun,
        started: Vec::new(),
        background: JoinSet::new(),
    };
    let ended = Box::pin(driver.until_over()).await;
    driver.clean_up(&ended).await;
    let ending = match ended {
        Ok(Ok(published)) => Ending::Succeeded(published),
        Ok(Err(reason)) if reason.code.is_host() => Ending::HostFailed(reason),
        Ok(Err(reason)) => Ending::Failed(reason),
        Err(Halt::Interrupted(interrupt)) => Ending::Interrupted(interrupt),
        Err(Halt::Superseded) => Ending::Superseded,
    };
    Done { ending, events: driver.events, sandbox_gone: !driver.sandbox_left }
}

pub(super) struct Driver {
    pub(super) claim: Claim<Plan>,
    pub(super) agent: Agent,
    pub(super) log: Log,
    pub(super) events: Events,
    pub(super) stop: Stop,
    pub(super) contexts: Contexts,
    /// The context, once a step has asked for it.
    pub(super) context: Option<Arc<Context>>,
    metrics: Metrics,
    pub(super) away_max: Duration,
    pub(super) budget: Budget,
    pub(super) state: State,
    /// What comes next was begun by the runner before.
    pub(super) goes_on: bool,
    /// What that one logged.
    pub(super) before: Before,
    /// The one that may exist on the host.
    pub(super) sandbox: Option<String>,
    /// One may be on the host of which it has not said that it is gone.
    pub(super) sandbox_left: bool,
    /// Something may bear the template's name on the host.
    template_begun: bool,
    pub(super) started: Vec<Started>,
    /// What tells the guest which output it may forget; each ends by itself.
    pub(super) background: JoinSet<()>,
}

impl Driver {
    async fn until_over(&mut self) -> Result<Result<Published, Reason>, Halt> {
        if let Some(from) = self.claim.resume.take() {
            self.take_over(from).await?;
        } else if let Some(previous) = self.claim.previous_sandbox_id.clone() {
            self.destroy_previous(&previous).await?;
        }
        loop {
            let next = match self.state.next() {
                Next::Over(end) => return Ok(*end),
                next => next,
            };
            let event = self.do_next(next).await?;
            let failure = match &event {
                Event::Failed { code, message, .. } => {
                    Some((self.current_step(), *code, message.clone()))
                }
                _ => None,
            };
            if let Err(error) = self.state.apply(event) {
                tracing::error!(build.id = %self.claim.build_id, %error, "fault in the build's driver");
                return Ok(Err(Reason {
                    code: ReasonCode::Internal,
                    message: "the runner lost track of the build".into(),
                    step: None,
                    tail: None,
                }));
            }
            if let Some((step, code, message)) = failure {
                tracing::info!(build.id = %self.claim.build_id, step, ?code, why = message, "build step failed");
                self.tell_failure(step, &message).await?;
            }
        }
    }

    /// A failure that ends the build is in the log before anything is removed, so that whoever comes after this runner
    /// has only to tell the desk. What the host failed at is tried again instead.
    async fn tell_failure(&mut self, step: u32, message: &str) -> Result<(), Halt> {
        let decided = match self.state.next() {
            Next::Over(end) => end.err().filter(|reason| !reason.code.is_host()),
            _ => None,
        };
        let is_decided = decided.is_some();
        if let Some(reason) = decided {
            self.log.note(Note::Failed(reason)).await?;
        }
        self.log.system(step, &format!("failed: {message}")).await?;
        if is_decided {
            // Without it the next attempt begins again, and fails again.
            timeout(SETTLE_MAX, self.log.flush()).await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Does what comes next, in its span.
    async fn do_next(&mut self, next: Next) -> Result<Event, Halt> {
        let Some((phase, span)) = span::of(&next) else { return Err(Halt::Superseded) };
        let begun = Instant::now();
        let doing = async {
            match next {
                Next::Boot { nth, pause } => self.boot(nth, pause).await,
                Next::Step(work) => self.step(*work).await,
                Next::Health(check, context) => self.health(check, context).await,
                Next::Publish(kind) => self.publish(kind).await,
                Next::Over(_) => Err(Halt::Superseded),
            }
        };
        let event = match Box::pin(doing.instrument(span.clone())).await {
            Err(Halt::Interrupted(Interrupt::TimeOver)) => self.out_of_time(None),
            happened => happened?,
        };
        self.metrics.step_ended(phase, span::ended(&span, &event), begun.elapsed());
        Ok(event)
    }

    /// The build's time is over: `tail` is the end of what its command wrote.
    pub(super) fn out_of_time(&self, tail: Option<String>) -> Event {
        let max = self.claim.time_limit.map_or(0, |limit| limit.max_ms);
        let limit = humantime::format_duration(Duration::from_millis(max));
        let doing = match self.state.next() {
            Next::Boot { .. } => "its microVM was starting".to_owned(),
            Next::Step(work) => format!("step {} ({}) was running", work.number, work.cmd),
            Next::Health(..) => "it waited for its healthcheck".to_owned(),
            Next::Publish(_) | Next::Over(_) => "its template was being written".to_owned(),
        };
        let message = format!(
            "the build took longer than {limit}, which is the limit of this installation; {doing} and was ended"
        );
        Event::Failed { code: ReasonCode::BuildTimeout, message, tail }
    }

    fn current_step(&self) -> u32 {
        match self.state.next() {
            Next::Step(work) => work.number,
            _ => 0,
        }
    }

    /// The attempt before may have left it. On another host than then it is not found, which is fine too.
    async fn destroy_previous(&mut self, previous: &str) -> Result<(), Halt> {
        self.log.system(0, "removing the sandbox of the attempt before").await?;
        // A cancel that comes meanwhile has to end it, too.
        self.sandbox = Some(previous.to_owned());
        let destroyed = match self.stop.guard(self.agent.destroy_sandbox(previous)).await {
            // There is no time for anything else, but for this.
            Err(Interrupt::TimeOver) => self.agent.destroy_sandbox(previous).await,
            destroyed => destroyed?,
        };
        self.sandbox = None;
        match destroyed {
            Ok(()) => Ok(()),
            Err(AgentError::StaleFence { .. }) => Err(Halt::Superseded),
            Err(error) => {
                self.sandbox_left = true;
                tracing::warn!(sandbox.id = previous, %error, "sandbox of the attempt before not destroyed");
                Ok(())
            }
        }
    }

    async fn boot(&mut self, nth: u32, pause: Duration) -> Result<Event, Halt> {
        if nth > 1 {
            self.log.system(0, &format!("trying again in {} s", pause.as_secs())).await?;
            self.stop.guard(tokio::time::sleep(pause)).await?;
        }
        let begun = Instant::now();
        let cmd = format!("boot {}", self.claim.base.name);
        self.announce(0, Phase::Boot, &cmd).await?;
        self.destroy().await;
        let sandbox_id = SandboxId::new().to_string();
        self.sandbox = Some(sandbox_id.clone());
        // The id is known to the world before the sandbox can exist, so that whoever comes after this runner
        // can destroy it.
        self.events.publish(What::Sandbox { sandbox_id: sandbox_id.clone() }).await?;
        self.log.note(Note::Sandbox(self.claim.host.id, sandbox_id.clone())).await?;
        let (vcpus, memory_mb) = (self.claim.vcpus, self.claim.memory_mb);
        let line = format!(
            "attempt {}: starting a microVM from {} ({vcpus} vCPU, {memory_mb} MiB)",
            self.claim.attempt, self.claim.base.name
        );
        self.log.system(0, &line).await?;
        self.log.flush().await?;
        let created = self.create(&sandbox_id).await?;
        let elapsed = begun.elapsed();
        let event = match created {
            Ok(()) => {
                self.log.note(Note::Ready).await?;
                self.log.system(0, &format!("microVM ready after {}", seconds(elapsed))).await?;
                Event::Ready
            }
            Err(error) if error.is_closing() => failed_call(&error, ReasonCode::HostLost)?,
            Err(AgentError::Unavailable { message }) => {
                self.log
                    .system(0, &format!("microVM {nth} did not become ready: {message}"))
                    .await?;
                let mut console = Tail::default();
                console.push(message.as_bytes());
                Event::NotReady(console.text())
            }
            Err(AgentError::NotFound { message }) => Event::Failed {
                code: ReasonCode::HostLost,
                message: format!("the host does not hold the base template: {message}"),
                tail: None,
            },
            Err(error @ AgentError::InvalidArgument { .. }) => {
                failed_call(&error, ReasonCode::Internal)?
            }
            Err(error) => failed_call(&error, ReasonCode::HostLost)?,
        };
        let mut entry = entry(0, Phase::Boot, cmd, event == Event::Ready, elapsed);
        if let Event::NotReady(console) = &event {
            entry.stderr.clone_from(console);
        }
        self.events.publish(What::StepFinished(entry)).await?;
        Ok(event)
    }

    async fn publish(&mut self, kind: TemplateKind) -> Result<Event, Halt> {
        let begun = Instant::now();
        let cmd = format!("write {}:{} as {}", self.claim.name, self.claim.tag, kind.as_str());
        self.announce(0, Phase::Publish, &cmd).await?;
        self.log.system(0, &format!("writing the {} template", kind.as_str())).await?;
        self.stop_started(true).await?;
        self.settle().await;
        // A sandbox that is being saved takes no command. Whoever comes next must read that none is missing.
        self.stop.guard(self.log.flush()).await??;
        let sandbox_id = self.sandbox.clone().unwrap_or_default();
        let name = self.claim.template_id.to_string();
        self.template_begun = true;
        let written = self.ensure_template(kind, &sandbox_id, &name);
        let written = self.stop.guard(written).await?;
        let elapsed = begun.elapsed();
        let event = match written {
            Ok(size_bytes) => {
                let mib = size_bytes.div_ceil(1024 * 1024);
                let line = format!("template written after {}, {mib} MiB", seconds(elapsed));
                self.log.system(0, &line).await?;
                Event::Written(size_bytes)
            }
            Err(error) => failed_call(&error, ReasonCode::PublishFailed)?,
        };
        let ok = matches!(event, Event::Written(_));
        let entry = entry(0, Phase::Publish, cmd, ok, elapsed);
        self.events.publish(What::StepFinished(entry)).await?;
        Ok(event)
    }

    pub(super) async fn announce(
        &mut self,
        step: u32,
        phase: Phase,
        cmd: &str,
    ) -> Result<(), Halt> {
        Ok(self.events.publish(What::StepStarted { step, phase, cmd: cmd.to_owned() }).await?)
    }

    /// Nothing more is told to the guest after this.
    async fn settle(&mut self) {
        let all = async { while self.background.join_next().await.is_some() {} };
        if timeout(SETTLE_MAX, all).await.is_err() {
            self.background.shutdown().await;
        }
    }

    /// Destroys the sandbox that may exist. What cannot be destroyed now, the sweep destroys.
    async fn destroy(&mut self) {
        let Some(sandbox_id) = self.sandbox.take() else { return };
        let destroyed = timeout(DESTROY_MAX, self.agent.destroy_sandbox(&sandbox_id)).await;
        self.sandbox_left |= !matches!(destroyed, Ok(Ok(())));
        match destroyed {
            Ok(Ok(())) => {}
            Ok(Err(AgentError::StaleFence { .. })) => {
                tracing::info!(
                    sandbox.id = sandbox_id,
                    "sandbox left to the attempt that took over"
                );
            }
            Ok(Err(error)) => {
                tracing::warn!(sandbox.id = sandbox_id, %error, "sandbox not destroyed");
            }
            Err(_) => tracing::warn!(sandbox.id = sandbox_id, "sandbox not destroyed in time"),
        }
    }

    async fn clean_up(&mut self, ended: &Result<Result<Published, Reason>, Halt>) {
        let left_to_another = match ended {
            Ok(_) | Err(Halt::Interrupted(Interrupt::Cancelled | Interrupt::TimeOver)) => false,
            Err(Halt::Interrupted(Interrupt::Drain | Interrupt::LeaseLost) | Halt::Superseded) => {
                true
            }
        };
        if left_to_another {
            self.leave_started().await;
            return self.background.shutdown().await;
        }
        let is_last = match ended {
            Ok(Err(reason)) => reason.code == ReasonCode::BuildTimeout,
            ended => matches!(ended, Err(Halt::Interrupted(Interrupt::Cancelled))),
        };
        if is_last {
            // First of all: what runs must end now, and nobody waits for what it still says.
            self.destroy_for_good().await;
        }
        if let Err(halt) = self.stop_started(ended.is_ok()).await {
            tracing::debug!(?halt, "output of background processes cut short");
        }
        self.background.shutdown().await;
        self.destroy().await;
        if !matches!(ended, Ok(Ok(_))) {
            self.remove_template().await;
            if self.log.note(Note::Gone).await.is_err() {
                tracing::debug!("the log takes nothing any more");
            }
        }
    }

    /// A template of an attempt that did not succeed: the write was cut off, or its answer was.
    async fn remove_template(&mut self) {
        if !self.template_begun {
            return;
        }
        let name = self.claim.template_id.to_string();
        if let Ok(Err(error)) = timeout(DESTROY_MAX, self.agent.delete_snapshot(&name)).await {
            tracing::warn!(template.id = name, %error, "unfinished template not removed");
        }
    }
}

/// A call that failed, as an event; `otherwise` is for errors that say nothing about the host.
pub(super) fn failed_call(error: &AgentError, otherwise: ReasonCode) -> Result<Event, Halt> {
    let code = match error {
        AgentError::StaleFence { .. } => return Err(Halt::Superseded),
        AgentError::Unreachable { .. }
        | AgentError::DeadlineExceeded { .. }
        | AgentError::Unavailable { .. }
        | AgentError::NoRoom { .. }
        | AgentError::SandboxLost { .. }
        | AgentError::NotFound { .. }
        | AgentError::Forbidden { .. }
        | AgentError::BadTarget { .. } => ReasonCode::HostLost,
        AgentError::AlreadyExists { .. }
        | AgentError::FailedPrecondition { .. }
        | AgentError::InvalidArgument { .. }
        | AgentError::Unimplemented { .. }
        | AgentError::Source(_)
        | AgentError::Internal { .. } => otherwise,
    };
    let message = match error.message() {
        detail if detail.is_empty() => error.to_string(),
        detail if error.to_string().ends_with(&detail) => error.to_string(),
        detail => format!("{error}: {detail}"),
    };
    Ok(Event::Failed { code, message, tail: None })
}

pub(super) fn entry(step: u32, phase: Phase, cmd: String, ok: bool, elapsed: Duration) -> StepLog {
    StepLog {
        step,
        phase,
        cmd,
        stdout: String::new(),
        stderr: String::new(),
        exit: None,
        ok,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        cached: false,
        truncated: None,
        log_truncated: None,
    }
}

/// A duration for people.
pub(super) fn seconds(elapsed: Duration) -> String {
    format!("{:.2} s", elapsed.as_secs_f64())
}
