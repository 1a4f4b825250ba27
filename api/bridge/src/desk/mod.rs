//! Answers the runners: claim, renew, finish, release; and bridges: hear. A NATS service in a queue group, so that each
//! request reaches one bridge.
//!
//! Who may do what is decided in the statement that writes (`ovenbird-db`). Each request is a task; their
//! number is bounded, and further requests wait in the subscription. Renewals have a bound of their own: a finish
//! may wait for the ledger, and a renewal that waited behind many would cost its build the lease.

mod claim;
mod finish;
mod lease;
mod resume;

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client,
    service::{self, ServiceExt as _},
};
use futures::{StreamExt as _, stream::SelectAll};
use ovenbird_contract::{
    desk::{HEAR, Refusal, RefusalCode, Reply},
    id::BuildId,
    log::LogCaps,
    nats::{DESK_QUEUE, Names},
};
use ovenbird_db::{Store, store};
use ovenbird_kit::telemetry::{chain, trace};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    log::Log,
    metrics::{Metrics, outcome},
    pace::Pace,
    queue::Queue,
    state::States,
};

/// After the shutdown, requests that were begun have this long.
const DRAIN: Duration = Duration::from_secs(4);
/// A request is given up after this; its runner asked again, or another bridge, long before.
const REQUEST_MAX: Duration = Duration::from_secs(25);
/// A runner whose request could not be decided asks again after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A runner whose build has no room asks again after this.
const NO_CAPACITY_AFTER: Duration = Duration::from_secs(2);

/// Builds whose turn comes with one end.
const TURNS_MAX: u32 = 16;

/// What the desk works with.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The builds.
    pub store: Store,
    /// Their logs.
    pub log: Log,
    /// Where released builds go.
    pub queue: Queue,
    /// Told of each change.
    pub states: States,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long a finish waits for the ledger.
    pub finish_wait: Duration,
    /// How often a build may be lost without progress.
    pub attempts_max: u32,
    /// How long a build may take.
    pub build_time_max: Duration,
    /// How much of its output goes into its log.
    pub log_caps: LogCaps,
    /// What counts the requests.
    pub metrics: Metrics,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    desk: Arc<Desk>,
    client: Client,
    names: Names,
    requests_max: usize,
}

/// What runners ask, and bridges.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verb {
    Claim,
    Renew,
    Finish,
    Release,
    Hear,
}

impl Verb {
    pub(crate) const ALL: [Self; 5] =
        [Self::Claim, Self::Renew, Self::Finish, Self::Release, Self::Hear];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Finish => "finish",
            Self::Release => "release",
            Self::Hear => HEAR,
        }
    }

    /// The span of a request, in its runner's trace. Leases are renewed too often for that, and bridges ask as often.
    fn span(self, request: &service::Request) -> Span {
        if matches!(self, Self::Renew | Self::Hear) {
            return Span::none();
        }
        let span = tracing::info_span!(
            "desk",
            otel.name = format!("desk {}", self.name()),
            otel.kind = "server",
            verb = self.name(),
            outcome = Empty,
            build.id = Empty,
            attempt = Empty,
            trace.id = Empty,
        );
        let headers = request.message.headers.as_ref();
        if let Some(given) = headers.and_then(|headers| headers.get(trace::TRACEPARENT)) {
            trace::join(&span, given.as_str());
        }
        span
    }
}

type Requests = SelectAll<futures::stream::BoxStream<'static, (Verb, service::Request)>>;

impl Service {
    /// Answers up to `requests_max` requests at the same time.
    pub fn new(desk: Desk, client: Client, names: Names, requests_max: usize) -> Self {
        Self { desk: Arc::new(desk), client, names, requests_max: requests_max.max(1) }
    }

    /// Runs until `shutdown`, then ends the requests that were begun.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pace = Pace::services();
        let permits = [(); 2].map(|()| Arc::new(Semaphore::new(self.requests_max)));
        let [mut tasks, mut renewing] = [(); 2].map(|()| JoinSet::new());
        while !shutdown.is_cancelled() {
            match self.open().await {
                Ok((service, [requests, renewals])) => {
                    pace.succeeded();
                    tokio::join!(
                        self.answer(requests, &permits[0], &mut tasks, &shutdown),
                        self.answer(renewals, &permits[1], &mut renewing, &shutdown),
                    );
                    if let Err(error) = service.stop().await {
                        tracing::info!(%error, "the desk's subscriptions did not close in order");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the desk cannot open; trying again");
                    pace.failed(&shutdown).await;
                }
            }
        }
        let drained = async {
            while renewing.join_next().await.is_some() || tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("requests of runners were cut off; they ask again");
        }
    }

    /// All requests but renewals, and those.
    async fn open(&self) -> Result<(service::Service, [Requests; 2]), async_nats::Error> {
        let service = self
            .client
            .service_builder()
            .description("Answers runners: claim, renew, finish, release; and bridges that ask whether it hears.")
            .queue_group(DESK_QUEUE)
            .start("ovenbird-desk", env!("CARGO_PKG_VERSION"))
            .await?;
        let [mut requests, mut renewals] = [(); 2].map(|()| SelectAll::new());
        for verb in Verb::ALL {
            let name = verb.name();
            let endpoint = service.endpoint_builder().name(name).add(self.names.desk(name)).await?;
            let of_its_kind = match verb {
                Verb::Renew | Verb::Hear => &mut renewals,
                Verb::Claim | Verb::Finish | Verb::Release => &mut requests,
            };
            of_its_kind.push(endpoint.map(move |request| (verb, request)).boxed());
        }
        Ok((service, [requests, renewals]))
    }

    /// Answers until `shutdown`, or until the subscriptions end.
    async fn answer(
        &self,
        mut requests: Requests,
        permits: &Arc<Semaphore>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        loop {
            while tasks.try_join_next().is_some() {}
            let next = async {
                let permit = Arc::clone(permits).acquire_owned().await.ok()?;
                Some((permit, requests.next().await?))
            };
            let Some(Some((permit, (verb, request)))) = shutdown.run_until_cancelled(next).await
            else {
                return;
            };
            let desk = Arc::clone(&self.desk);
            tasks.spawn(async move {
                if tokio::time::timeout(REQUEST_MAX, desk.answer(verb, &request)).await.is_err() {
                    tracing::warn!(?verb, "a runner's request took too long and was given up");
                }
                drop(permit);
            });
        }
    }
}

impl Desk {
    async fn answer(&self, verb: Verb, request: &service::Request) {
        let (begun, span) = (Instant::now(), verb.span(request));
        let answer = async {
            match verb {
                Verb::Claim => self.answer_claim(request).await,
                Verb::Renew => self.answer_renew(request).await,
                Verb::Finish => self.answer_finish(request).await,
                Verb::Release => self.answer_release(request).await,
                Verb::Hear => self.answer_hear(request).await,
            }
        };
        let outcome = answer.instrument(span.clone()).await;
        span.record("outcome", outcome);
        self.metrics.desk_answered(verb.name(), outcome, begun.elapsed());
    }

    /// Pushes the builds that waited for `over`, because their key had as many as it may. What is missed here is the
    /// sweep's.
    async fn next_turns(&self, over: BuildId) {
        let turns = match self.store.build_list_after(over, TURNS_MAX).await {
            Ok(turns) if turns.is_empty() => return,
            Ok(turns) => turns,
            Err(error) => {
                return tracing::info!(
                    error = chain(&error),
                    "whose turn it is, is left to the sweep"
                );
            }
        };
        if let Err(error) = self.queue.push(&turns).await {
            tracing::info!(
                error = chain(&error),
                "builds whose turn has come are left to the sweep"
            );
        }
    }
}

fn read<Q: DeserializeOwned>(request: &service::Request) -> Result<Q, Refusal> {
    serde_json::from_slice(&request.message.payload).map_err(|error| Refusal {
        code: RefusalCode::BadRequest,
        message: format!("not understood: {error}"),
        retry_after_ms: None,
    })
}

/// Notes in the present span which attempt is asked about.
fn note(build: BuildId, attempt: u32) {
    Span::current().record("build.id", tracing::field::display(build)).record("attempt", attempt);
}

/// Sends an answer; a word for it comes back.
async fn send<T: Serialize>(request: &service::Request, reply: &Reply<T>) -> &'static str {
    if let Reply::Refused(refusal) = reply {
        tracing::debug!(code = ?refusal.code, message = refusal.message, "refused");
    }
    match serde_json::to_vec(reply) {
        Ok(payload) => {
            if let Err(error) = request.respond(Ok(payload.into())).await {
                tracing::info!(%error, "an answer was not sent; the runner asks again");
            }
        }
        Err(error) => tracing::error!(%error, "an answer has no JSON form"),
    }
    outcome(reply)
}

fn refused<T>(code: RefusalCode, message: impl Into<String>) -> Reply<T> {
    Reply::Refused(Refusal { code, message: message.into(), retry_after_ms: None })
}

fn refused_for<T>(code: RefusalCode, message: impl Into<String>, after: Duration) -> Reply<T> {
    let retry_after_ms = u64::try_from(after.as_millis()).ok();
    Reply::Refused(Refusal { code, message: message.into(), retry_after_ms })
}

/// Postgres or the log could not be asked: nothing is known, so the runner asks again.
fn unavailable<T>(error: &(dyn std::error::Error + 'static)) -> Reply<T> {
    tracing::warn!(error = chain(error), "a runner's request is not decided; it asks again");
    refused_for(RefusalCode::Unavailable, "the desk cannot decide now", RETRY_AFTER)
}

fn lease_refused<T>(refused_by: store::lease::Refused) -> Reply<T> {
    use store::lease::Refused;
    match refused_by {
        Refused::NotFound => refused(RefusalCode::NotFound, "no such build"),
        Refused::WrongStatus(status) => {
            refused(RefusalCode::NotClaimable, format!("the build is {status}"))
        }
        Refused::Stale { attempt } => refused(
            RefusalCode::StaleAttempt,
            format!("the lease is not yours any more; the build is at attempt {attempt}"),
        ),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
