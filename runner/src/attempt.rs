//! One claimed attempt, from the claim to the desk's last word.
//!
//! ```text
//! claim ─► lease, log, events ─► build ─► log closed ─┬─ succeeded, failed, cancelled ─► desk.finish
//!                                                     ├─ the runner ends              ─► desk.release
//!                                                     ├─ host or log failed           ─► desk.release as lost
//!                                                     └─ lease lost                   ─► silence
//! ```
//!
//! The sandbox is gone before the desk hears of an end. A build that is given back because the runner ends, or whose
//! lease is lost, keeps its sandbox and what runs there: another runner goes on with it. What the desk refuses is
//! removed from the host, unless another attempt has the build, or will: it can never be published. An end that the desk did
//! not hear is the sweep's, and so is a cancelled build of whose sandbox the host does not say that it is gone. Events
//! of the build's state are the desk's, which makes the changes.

use ovenbird_agent_client::{Agent, Agents, Target};
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{Claim, LogPosition, Outcome, RefusalCode},
    nats::Names,
};
use ovenbird_recipe::Plan;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    build::{self, Done, Ending, Setup},
    context::Contexts,
    desk::{Desk, Held},
    lease::Lease,
    metrics::Metrics,
    publish::{Events, Log, WriteError, Writer, WriterConfig},
    stop::{Interrupt, Stop},
};

/// The desk hears of an end for this long; then it learns it by the lease.
const FINISH_FOR: Duration = Duration::from_secs(60);
/// A runner that ends has no more time. Nothing is lost with it: the lease ends, and the build goes on.
const HAND_OVER_FOR: Duration = Duration::from_secs(2);
const RENEW_FOR: Duration = Duration::from_secs(5);

/// What attempts of one process share. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// The connection.
    pub client: async_nats::Client,
    /// JetStream over it.
    pub jetstream: async_nats::jetstream::Context,
    /// The installation's names.
    pub names: Names,
    /// The desk, in this runner's name.
    pub desk: Desk,
    /// The hosts.
    pub agents: Agents,
    /// Where contexts come from.
    pub contexts: Contexts,
    /// What counts them.
    pub metrics: Metrics,
    /// Most microVMs that are tried for one attempt.
    pub boots_max: u32,
    /// A host that cannot be reached for this long is lost.
    pub away_max: Duration,
    /// Cancelled when the time that builds have after SIGTERM is over.
    pub drain: CancellationToken,
}

/// Runs an attempt whose claim was asked for at `since`.
pub async fn run(shared: &Shared, claim: Claim<serde_json::Value>, since: Instant, trace: &str) {
    let held = Held { build_id: claim.build_id, attempt: claim.attempt };
    let length = Duration::from_millis(claim.lease_ms);
    let desk = shared.desk.clone().traced(trace);
    let lease =
        Lease::keep(shared.client.clone(), &shared.names, desk.clone(), held, length, since);
    Span::current().record("host.id", tracing::field::display(claim.host.id));
    tracing::info!(build.id = %held.build_id, attempt = held.attempt, host.id = %claim.host.id, "build claimed");
    let template = claim.template_id.to_string();
    let target =
        Target { address: claim.host.address.clone(), server_name: claim.host.server_name.clone() };
    let agent = match shared.agents.at(&target) {
        Ok(agent) => Some(agent.fenced(held.build_id.to_string(), held.attempt).traced(trace)),
        Err(error) => {
            tracing::error!(host.id = %claim.host.id, error = ovenbird_kit::telemetry::chain(&error), "host cannot be called");
            None
        }
    };
    let worked = work(shared, &lease, claim, agent.clone(), since).await;
    let ending = shared.metrics.attempt_ended(&worked.ending);
    Span::current().record("ending", ending);
    if !matches!(worked.ending, Ending::Succeeded(_) | Ending::Interrupted(_)) {
        Span::current().record("otel.status_code", "ERROR");
    }
    let end = End { desk, lease: &lease, held, agent, template };
    end.tell(worked).await;
    lease.stop().await;
}

/// An attempt's end, ready to be told.
struct Worked {
    ending: Ending,
    log: LogPosition,
    /// Why the log was cut off, if it was.
    cut_off: Option<WriteError>,
    event_stream_seq: u64,
    sandbox_gone: bool,
}

async fn work(
    shared: &Shared,
    lease: &Lease,
    claim: Claim<serde_json::Value>,
    agent: Option<Agent>,
    since: Instant,
) -> Worked {
    let (build_id, attempt) = (claim.build_id, claim.attempt);
    let config = WriterConfig {
        names: shared.names.clone(),
        build_id,
        attempt,
        position: claim.log,
        standing: claim.resume.as_ref().map(|from| from.standing.clone()),
        metrics: shared.metrics.clone(),
    };
    let begun = claim.log;
    let (writer, log) = Writer::start(shared.jetstream.clone(), config, lease.lost());
    let events =
        Events::new(shared.jetstream.clone(), &shared.names, build_id, attempt, lease.lost());
    let Done { ending, events, sandbox_gone } =
        Box::pin(drive(shared, lease, claim, agent, since, &log, events)).await;
    let event_stream_seq = events.last_stream_seq();
    // Whoever reads along must not be left with a line that says nothing of why it goes no further.
    let last_word = match &ending {
        Ending::Interrupted(Interrupt::Drain) => "handed over to another runner: this one ends",
        Ending::HostFailed(_) => "given back to the queue: the host failed",
        Ending::Interrupted(Interrupt::Cancelled) if sandbox_gone => "the sandbox is destroyed",
        Ending::Interrupted(Interrupt::Cancelled) => "the sandbox cannot be destroyed yet",
        _ => "",
    };
    if log.system(0, last_word).await.is_err() {
        tracing::debug!(build.id = %build_id, "no last word in the log");
    }
    drop(log);
    match writer.close().await {
        Ok(log) => Worked { ending, log, cut_off: None, event_stream_seq, sandbox_gone },
        Err(error) => {
            tracing::error!(build.id = %build_id, error = ovenbird_kit::telemetry::chain(&error), "build's log cut off");
            let (ending, cut_off) = (Ending::Superseded, Some(error));
            Worked { ending, log: begun, cut_off, event_stream_seq, sandbox_gone }
        }
    }
}

async fn drive(
    shared: &Shared,
    lease: &Lease,
    claim: Claim<serde_json::Value>,
    agent: Option<Agent>,
    since: Instant,
    log: &Log,
    events: Events,
) -> Done {
    let reason = |code, message: String| Reason { code, message, step: None, tail: None };
    let Some(agent) = agent else {
        let message = "the host's address cannot be called".to_owned();
        let ending = Ending::HostFailed(reason(ReasonCode::HostLost, message));
        return Done { ending, events, sandbox_gone: false };
    };
    let plan = match serde_json::from_value::<Plan>(claim.plan.clone()) {
        Ok(plan) => plan,
        Err(error) => {
            let message = format!("the build's plan cannot be read by this runner: {error}");
            let ending = Ending::Failed(reason(ReasonCode::Internal, message));
            return Done { ending, events, sandbox_gone: false };
        }
    };
    let stop = Stop {
        lost: lease.lost(),
        cancelled: lease.cancelled(),
        time_over: claim.time_limit.map(|limit| since + Duration::from_millis(limit.left_ms)),
        drain: shared.drain.clone(),
    };
    let setup = Setup {
        claim: with_plan(claim, plan),
        agent,
        log: log.clone(),
        events,
        stop,
        contexts: shared.contexts.clone(),
        metrics: shared.metrics.clone(),
        boots_max: shared.boots_max,
        away_max: shared.away_max,
    };
    Box::pin(build::run(setup)).await
}

fn with_plan(claim: Claim<serde_json::Value>, plan: Plan) -> Claim<Plan> {
    Claim {
        plan,
        build_id: claim.build_id,
        attempt: claim.attempt,
        lease_ms: claim.lease_ms,
        plan_digest: claim.plan_digest,
        name: claim.name,
        tag: claim.tag,
        vcpus: claim.vcpus,
        memory_mb: claim.memory_mb,
        disk_mb: claim.disk_mb,
        context: claim.context,
        base: claim.base,
        host: claim.host,
        template_id: claim.template_id,
        previous_sandbox_id: claim.previous_sandbox_id,
        resume: claim.resume,
        log: claim.log,
        log_caps: claim.log_caps,
        time_limit: claim.time_limit,
    }
}

/// Whether the desk has heard of an end.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Yes,
    /// No answer came.
    Unknown,
}

struct End<'a> {
    desk: Desk,
    lease: &'a Lease,
    held: Held,
    agent: Option<Agent>,
    template: String,
}

impl End<'_> {
    async fn tell(&self, worked: Worked) {
        let build = self.held.build_id;
        let outcome = match &worked.ending {
            Ending::Succeeded(published) => Outcome::Succeeded(published.clone()),
            Ending::Failed(reason) => Outcome::Failed { reason: reason.clone() },
            Ending::Interrupted(Interrupt::Cancelled) if worked.sandbox_gone => Outcome::Cancelled,
            Ending::Interrupted(Interrupt::Cancelled) => {
                tracing::warn!(build.id = %build, "the cancel is left to the sweep");
                return;
            }
            Ending::Interrupted(Interrupt::Drain) => {
                return self.release("the runner ends", None).await;
            }
            Ending::HostFailed(reason) => {
                return self.release("the host failed", Some(reason)).await;
            }
            // Made a failure where it is noticed.
            Ending::Interrupted(Interrupt::TimeOver) => {
                tracing::error!(build.id = %build, "the build's time is over, and nothing was said of it");
                return;
            }
            // Not without end: a log that no runner can write ends the build.
            Ending::Superseded if !self.lease.lost().is_cancelled() => {
                let why = worked.cut_off.as_ref().map(|error| format!(": {error}"));
                let message =
                    format!("the runner cannot write the build's log{}", why.unwrap_or_default());
                let code = ReasonCode::Internal;
                let reason = Reason { code, message, step: None, tail: None };
                return self.release("the log cannot be written", Some(&reason)).await;
            }
            Ending::Superseded | Ending::Interrupted(Interrupt::LeaseLost) => {
                tracing::warn!(build.id = %build, attempt = self.held.attempt, "attempt given up");
                return;
            }
        };
        let refused = match self.finish(outcome.clone(), &worked).await {
            Ok(Heard::Yes) => {
                tracing::info!(build.id = %build, attempt = self.held.attempt, ?outcome, "build finished");
                return;
            }
            Ok(Heard::Unknown) => {
                tracing::warn!(build.id = %build, attempt = self.held.attempt, ?outcome, "build's end left to the sweep");
                return;
            }
            Err(refused) => refused,
        };
        // The desk knows of a cancel that this runner has not heard of yet.
        let cancelled = refused != RefusalCode::BadRequest
            && outcome != Outcome::Cancelled
            && self.is_cancelled().await;
        // Another attempt may keep the template's name, and have found it written already.
        if matches!(outcome, Outcome::Succeeded(_)) && refused != RefusalCode::StaleAttempt {
            self.remove_template().await;
        }
        if cancelled
            && worked.sandbox_gone
            && self.finish(Outcome::Cancelled, &worked).await == Ok(Heard::Yes)
        {
            tracing::info!(build.id = %build, attempt = self.held.attempt, "build cancelled at its end");
        }
    }

    /// # Errors
    /// The desk's refusal. An end that was not heard is no error here: nothing can be done about it.
    async fn finish(&self, outcome: Outcome, worked: &Worked) -> Result<Heard, RefusalCode> {
        let until = Instant::now() + FINISH_FOR;
        let finished =
            self.desk.finish(self.held, outcome, worked.log, worked.event_stream_seq, until).await;
        let Err(error) = finished else { return Ok(Heard::Yes) };
        let chain = ovenbird_kit::telemetry::chain(&error);
        tracing::warn!(build.id = %self.held.build_id, error = chain, "desk did not take the build's end");
        error.refusal().map_or(Ok(Heard::Unknown), Err)
    }

    async fn is_cancelled(&self) -> bool {
        let renewed = self.desk.renew(self.held, RENEW_FOR).await;
        self.lease.cancelled().is_cancelled() || renewed.is_ok_and(|renewed| renewed.cancel)
    }

    /// Refused or not heard, it goes on all the same once the lease ends.
    async fn release(&self, why: &str, lost: Option<&Reason>) {
        // A loss that the desk only learns by the lease has no reason, and its host is not avoided.
        let until = Instant::now() + if lost.is_some() { FINISH_FOR } else { HAND_OVER_FOR };
        match self.desk.release(self.held, why, lost, until).await {
            Ok(()) => tracing::info!(build.id = %self.held.build_id, why, "build given back"),
            Err(error) => {
                let error = ovenbird_kit::telemetry::chain(&error);
                tracing::warn!(build.id = %self.held.build_id, error, "build not given back, its lease will end");
            }
        }
    }

    async fn remove_template(&self) {
        let Some(agent) = &self.agent else { return };
        if let Err(error) = agent.delete_snapshot(&self.template).await {
            tracing::warn!(template.id = self.template, %error, "template that was refused not removed");
        }
    }
}
