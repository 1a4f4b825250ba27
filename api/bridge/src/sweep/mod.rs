//! What must become true whatever died: idempotent rules without an input of their own, woken by timers and, for
//! cancels, by a message. Every rule reads what is, and is safe with several bridges at once.
//!
//! | rule | finds | does |
//! |---|---|---|
//! | leases | running builds whose lease is over | queued again, or failed as lost; counted if somebody could be heard |
//! | times | builds that no runner has, of which too long ago the first one began | failed as too late |
//! | cancels | builds that are being cancelled whose lease is over | destroys their sandboxes, removes what they wrote, ends them |
//! | proofs | cancelled builds of whose sandbox the host has not said that it is gone | destroys it, notes when |
//! | ends | builds that are over without a stored terminal record | writes it, and who cancelled them, unless the stream has it |
//! | relaying | lists of bridges that do not live | back to the queue |
//! | jobs | queued builds whose job is gone from the stream | forgets the job |
//! | queue | queued builds without a job, not in Redis either | pushes their ids |
//! | answers | answers to requests with an `Idempotency-Key` whose 24 hours are over | forgets them |
//! | audit | audit entries that are too old | removes them |
//! | contexts | contexts that were not used for long and that no build needs which is not over | removes them |
//! | context chunks | chunks in the object store that no object claims | removes them |
//! | sandboxes | sandboxes on hosts whose build is over, unknown, elsewhere, or has a newer one | destroys them |
//! | sandboxes | users' sandboxes whose rows and hosts disagree: paused or ended by themselves, half made, to be destroyed | the host's word into the row; or the row's onto the host |
//! | templates | built templates on hosts that were never published, or were deleted | removes them |
//!
//! A rule that fails does not keep the next one from running. Streams and consumers that vanished are made again
//! by [`crate::streams`].

mod cancels;
mod contexts;
mod control;
mod expired;
mod orphans;
mod users;

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{Context, stream::RawMessageErrorKind},
};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ovenbird_agent_client::{Agents, Error as AgentError};
use ovenbird_contract::{
    build::Status,
    desk::HEAR,
    id::BuildId,
    nats::{LANES, Names},
};
use ovenbird_db::{
    Store,
    store::{
        self,
        job::{Published, QueueState},
    },
};
use ovenbird_kit::telemetry::chain;
use redis::RedisError;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    log::{self, Log},
    metrics::Metrics,
    pace::sleep,
    queue::Queue,
    state::States,
};

/// Builds that one rule handles in one run; the rest comes in the next.
const LIMIT: u32 = 500;
/// Old jobs that one run looks for, each by a request.
const LOOKED_FOR: u32 = 200;
/// A rule that asks Postgres, Redis and NATS is given up after this: a connection that died without a word would hold
/// it for ever.
const RULE_MAX: Duration = Duration::from_secs(60);
/// A rule that calls hosts, too.
const HOSTS_RULE_MAX: Duration = Duration::from_secs(300);
/// Hosts that one rule calls at the same time.
const HOSTS_AT_ONCE: usize = 16;

/// A rule failed; the next run tries it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres.
    #[error("Postgres")]
    Store(#[from] store::Error),
    /// Redis.
    #[error("Redis")]
    Redis(#[from] RedisError),
    /// The log.
    #[error("log")]
    Log(#[from] log::Error),
    /// A host.
    #[error("host")]
    Agent(#[from] AgentError),
    /// The object store of contexts.
    #[error("the object store of contexts")]
    Contexts(#[source] async_nats::Error),
    /// The work queue did not say how it stands.
    #[error("the work queue cannot be looked at")]
    Look(#[source] async_nats::Error),
}

/// How patient the rules are.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Between two runs of the rules.
    pub interval: Duration,
    /// A runner that is not heard of for so long has lost its build.
    pub lease: Duration,
    /// Between two runs of the first four rules: a build whose runner died waits for them.
    pub leases_interval: Duration,
    /// Between two runs of the rules that look for orphans.
    pub orphans_interval: Duration,
    /// What is younger than this is no orphan.
    pub orphan_grace: Duration,
    /// A cancelled build waits for its host's word at most this long.
    pub cancel_patience: Duration,
    /// A build waits for its relay at least this long.
    pub push_after: Duration,
    /// A job is looked for when it is this old.
    pub job_settled: Duration,
    /// A job is looked for by itself when it is this old, and again each time it is this much older.
    pub job_fallback: Duration,
    /// An audit entry is kept for so long.
    pub audit_kept: Duration,
    /// A context that nobody uses is kept for so long.
    pub contexts_kept: Duration,
}

/// The service; every rule can also be run by itself.
#[derive(Debug, Clone)]
pub struct Service {
    /// The builds.
    pub store: Store,
    /// The ids.
    pub queue: Queue,
    /// The logs.
    pub log: Log,
    /// Told of each change.
    pub states: States,
    /// The hosts; absent when there are none.
    pub agents: Option<Agents>,
    /// Where control messages are heard.
    pub client: Client,
    /// The work queue.
    pub js: Context,
    /// Under which names.
    pub names: Names,
    /// How often a build may be lost.
    pub attempts_max: u32,
    /// How long a build may take.
    pub build_time_max: Duration,
    /// How patient the rules are.
    pub times: Times,
    /// What counts what they do.
    pub metrics: Metrics,
}

/// Rules that a message wakes before their time.
#[derive(Debug, Default)]
struct Woken {
    cancels: Notify,
    ends: Notify,
}

impl Service {
    /// Runs until `shutdown`. A rule is dropped in its middle then: each is one statement or repeatable.
    pub async fn run(self, shutdown: CancellationToken) {
        let woken = Woken::default();
        tokio::join!(
            self.listen(&woken, &shutdown),
            async {
                while sleep(self.times.leases_interval, &shutdown).await {
                    shutdown.run_until_cancelled(self.ask_desk()).await;
                }
            },
            async {
                while sleep(self.times.leases_interval, &shutdown).await {
                    shutdown.run_until_cancelled(self.unheld()).await;
                }
            },
            async {
                while pause(self.times.leases_interval, &woken.cancels, &shutdown).await {
                    shutdown.run_until_cancelled(self.cancelled()).await;
                }
            },
            async {
                while pause(self.times.interval, &woken.ends, &shutdown).await {
                    shutdown.run_until_cancelled(Box::pin(self.rest())).await;
                }
            },
            async {
                while sleep(self.times.orphans_interval, &shutdown).await {
                    shutdown.run_until_cancelled(Box::pin(self.orphans())).await;
                }
            },
        );
    }

    async fn unheld(&self) {
        self.rule("leases", RULE_MAX, self.leases()).await;
        self.rule("times", RULE_MAX, self.times_over()).await;
    }

    /// Asks a desk, this bridge's or another's, which notes that it can be heard: else no lost attempt is counted.
    async fn ask_desk(&self) {
        let asked = self.client.request(self.names.desk(HEAR), "".into());
        match tokio::time::timeout(self.times.lease / 4, asked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "no desk hears, and no loss is counted");
            }
            Err(_) => tracing::warn!("no desk answers; may the bridge publish what it asks?"),
        }
    }

    async fn cancelled(&self) {
        self.rule("cancels", HOSTS_RULE_MAX, self.cancels()).await;
        self.rule("proofs", HOSTS_RULE_MAX, self.proofs()).await;
    }

    async fn orphans(&self) {
        self.rule("sandboxes", HOSTS_RULE_MAX, self.sandboxes()).await;
        self.rule("templates", HOSTS_RULE_MAX, self.templates()).await;
        self.rule("context_chunks", HOSTS_RULE_MAX, self.context_leftovers()).await;
    }

    async fn rule(
        &self,
        rule: &str,
        max: Duration,
        work: impl Future<Output = Result<usize, Error>>,
    ) {
        let ran = tokio::time::timeout(max, work).await;
        let handled = ran.as_ref().ok().and_then(|result| result.as_ref().ok().copied());
        self.metrics.rule_ran(rule, handled);
        match ran {
            Ok(Ok(0)) => {}
            Ok(Ok(handled)) => tracing::info!(rule, handled, "swept"),
            Ok(Err(error)) => {
                tracing::warn!(rule, error = chain(&error), "a rule failed; it runs again");
            }
            Err(_) => tracing::warn!(rule, ?max, "a rule took too long; it runs again"),
        }
    }

    async fn rest(&self) {
        self.rule("ends", RULE_MAX, self.ends()).await;
        self.rule("relaying", RULE_MAX, self.relaying()).await;
        self.rule("jobs", RULE_MAX, self.jobs()).await;
        self.rule("queue", RULE_MAX, self.queued()).await;
        self.rule("answers", RULE_MAX, self.answers()).await;
        self.rule("audit", RULE_MAX, self.audit()).await;
        self.rule("contexts", RULE_MAX, self.contexts()).await;
    }

    /// Ends expired leases. Their ids go to the queue at once; the log's end is the next rule's.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn leases(&self) -> Result<usize, Error> {
        let expired = self.store.build_expire(self.attempts_max, self.times.lease, LIMIT).await?;
        for one in &expired {
            tracing::warn!(
                build.id = %one.build, attempt = one.attempt, status = %one.status, counted = one.counted,
                "the runner was not heard of in time"
            );
            self.states.tell(one.build, one.attempt, one.status).await;
        }
        let again: Vec<BuildId> = expired
            .iter()
            .filter(|one| one.status == Status::Queued)
            .map(|one| one.build)
            .collect();
        self.queue.push(&again).await?;
        Ok(expired.len())
    }

    /// Ends builds whose time is over and that no runner has. A running one is its runner's to end, until its lease
    /// is over. What it left on a host is the business of the rules for orphans, its log's end that of the next rule.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn times_over(&self) -> Result<usize, Error> {
        let over = self.store.build_time_out(self.build_time_max, LIMIT).await?;
        for one in &over {
            tracing::warn!(build.id = %one.build, attempt = one.attempt, "the build took too long");
            self.states.tell(one.build, one.attempt, one.status).await;
        }
        Ok(over.len())
    }

    /// Writes missing terminal records: of builds that have none in Postgres, those that the stream has none of either.
    ///
    /// # Errors
    /// [`Error`] of the first build that failed; the others were handled.
    pub async fn ends(&self) -> Result<usize, Error> {
        let over = self.store.build_list_without_log_end(LIMIT).await?;
        let mut written = Vec::with_capacity(over.len());
        for ended in &over {
            written.push(self.over(ended).await.map(usize::from));
        }
        sum(written)
    }

    /// Gives back the lists of dead bridges.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn relaying(&self) -> Result<usize, Error> {
        Ok(self.queue.reclaim().await?)
    }

    /// Forgets jobs that are gone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn jobs(&self) -> Result<usize, Error> {
        let mut gone = 0;
        for lane in LANES {
            let queue = self.work_queue(lane).await?;
            let jobs = self.store.build_jobs_forget(&queue, self.times.job_settled, LIMIT).await?;
            gone += jobs.len();
        }
        Ok(gone + self.jobs_looked_for().await?)
    }

    /// Looks for each job that is old: what is known of the queue as a whole may miss a case, and a job that is
    /// there must not get a second one, or a build that waits for hours would fill the queue.
    async fn jobs_looked_for(&self) -> Result<usize, Error> {
        let old = self.store.build_jobs_old(self.times.job_fallback, LOOKED_FOR).await?;
        if old.is_empty() {
            return Ok(0);
        }
        let builds = self.js.get_stream_no_info(self.names.builds_stream().name).await;
        let builds = builds.map_err(|error| Error::Look(error.into()))?;
        let looks = old.into_iter().map(|job| {
            let builds = builds.clone();
            async move {
                match builds.get_raw_message(job.stream_seq).await {
                    Ok(_) => Ok((job, true)),
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                        Ok((job, false))
                    }
                    Err(error) => Err(Error::Look(error.into())),
                }
            }
        });
        let looked: Vec<(Published, bool)> =
            stream::iter(looks).buffered(HOSTS_AT_ONCE).try_collect().await?;
        let (there, gone): (Vec<_>, Vec<_>) = looked.into_iter().partition(|(_, there)| *there);
        let jobs = |found: Vec<(Published, bool)>| found.into_iter().map(|(job, _)| job).collect();
        let (there, gone): (Vec<Published>, Vec<Published>) = (jobs(there), jobs(gone));
        self.store.build_jobs_published(&there).await?;
        self.store.build_jobs_gone(&gone).await?;
        Ok(gone.len())
    }

    /// Pushes ids that are nowhere.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn queued(&self) -> Result<usize, Error> {
        let waiting = self.store.build_list_without_job(self.times.push_after, LIMIT).await?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let known = self.queue.ids().await?;
        let lost: Vec<BuildId> =
            waiting.into_iter().filter(|id| !known.contains(&id.to_string())).collect();
        if !lost.is_empty() {
            tracing::info!(builds = lost.len(), "queued builds without a job are pushed again");
            self.queue.push(&lost).await?;
        }
        Ok(lost.len())
    }

    async fn work_queue(&self, lane: &'static str) -> Result<QueueState, Error> {
        let spec = self.names.runners_consumer_of(lane);
        let look = |error: async_nats::Error| Error::Look(error);
        let stream = self.js.get_stream(&spec.stream).await.map_err(|error| look(error.into()))?;
        let consumer =
            stream.consumer_info(&spec.durable).await.map_err(|error| look(error.into()))?;
        let info = stream.cached_info();
        let created = DateTime::<Utc>::from_timestamp(
            info.created.unix_timestamp(),
            info.created.nanosecond(),
        );
        Ok(QueueState {
            lane,
            created: created.unwrap_or(DateTime::UNIX_EPOCH),
            last_seq: info.state.last_sequence,
            acked_seq: consumer.ack_floor.stream_sequence,
            idle: consumer.num_pending == 0 && consumer.num_ack_pending == 0,
        })
    }
}

/// As [`sleep`], unless the rule is woken.
async fn pause(time: Duration, woken: &Notify, shutdown: &CancellationToken) -> bool {
    let wait = tokio::time::timeout(time, woken.notified());
    shutdown.run_until_cancelled(wait).await.is_some()
}

/// All that was handled, or the first failure.
fn sum(done: impl IntoIterator<Item = Result<usize, Error>>) -> Result<usize, Error> {
    let mut failure = None;
    let mut handled = 0;
    for one in done {
        match one {
            Ok(count) => handled += count,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(handled), Err)
}
