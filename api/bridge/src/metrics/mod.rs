//! What whoever runs the bridges can see of one, and of the installation, in Prometheus. Every name stands in
//! `names.txt`, and a test compares.
//!
//! What stands in Postgres and NATS ([`watch`]) every bridge says alike: of several, take the highest and not the sum.
//! One that gets no answer says NaN, not what it saw last: Prometheus' `max` passes over it.
//! There is no label with the id of a build, a host or a sandbox: there is no end to those. A series is there from the
//! beginning, what is counted at 0, so that a rate of it begins with its first event.

pub mod watch;

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    build::Status,
    desk::{RefusalCode, Reply},
    nats::LANES,
    sandbox,
};
use ovenbird_db::{Store, store::stats::Stats};
use ovenbird_kit::metrics::Process;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::desk::Verb;

/// The names of all metrics, with their types and labels, sorted.
pub const NAMES: &str = include_str!("names.txt");

/// Upper bounds, in seconds, of a request to the desk. A finish may wait for the ledger for some.
const REQUESTS: [f64; 11] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 8.0];
/// Upper bounds, in seconds, of how long builds wait.
const WAITS: [f64; 12] =
    [0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0];
/// Upper bounds, in seconds, of what a log waits for Postgres.
const LAGS: [f64; 10] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0];
/// Every answer of the desk.
const OUTCOMES: [&str; 8] = [
    "ok",
    "not_found",
    "not_claimable",
    "stale_attempt",
    "key_limit",
    "no_capacity",
    "bad_request",
    "unavailable",
];
/// Every rule of the sweep.
const RULES: [&str; 14] = [
    "leases",
    "times",
    "cancels",
    "proofs",
    "ends",
    "relaying",
    "jobs",
    "queue",
    "answers",
    "audit",
    "contexts",
    "sandboxes",
    "templates",
    "context_chunks",
];
/// What the ledger reads.
const FEEDS: [&str; 2] = ["logs", "events"];
/// What hosts are.
const HOSTS: [&str; 4] = ["pending", "online", "draining", "unreachable"];

/// What was seen in Postgres or NATS; NaN before the first answer and while there is none.
type Seen = Gauge<f64, AtomicU64>;

/// What happens, counted. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    builds_ended: Family<InStatus, Counter>,
    builds_running: Seen,
    claim_latency: Histogram,
    desk_duration: Family<Asked, Histogram, fn() -> Histogram>,
    desk_requests: Family<Answered, Counter>,
    hosts: Family<InStatus, Seen>,
    jobs_relayed: Counter,
    ledger_messages: Family<Read, Counter>,
    ledger_pending: Family<Read, Seen>,
    log_lag: Histogram,
    queue_depth: Family<InLane, Seen>,
    queue_oldest: Seen,
    sandboxes: Family<InStatus, Seen>,
    slots_free: Seen,
    slots_wanted: Seen,
    sweep_failures: Family<OfRule, Counter>,
    swept: Family<OfRule, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStatus {
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InLane {
    lane: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Read {
    feed: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRule {
    rule: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            builds_ended: Family::default(),
            builds_running: Seen::default(),
            claim_latency: Histogram::new(WAITS),
            desk_duration: Family::new_with_constructor(|| Histogram::new(REQUESTS)),
            desk_requests: Family::default(),
            hosts: Family::default(),
            jobs_relayed: Counter::default(),
            ledger_messages: Family::default(),
            ledger_pending: Family::default(),
            log_lag: Histogram::new(LAGS),
            queue_depth: Family::default(),
            queue_oldest: Seen::default(),
            sandboxes: Family::default(),
            slots_free: Seen::default(),
            slots_wanted: Seen::default(),
            sweep_failures: Family::default(),
            swept: Family::default(),
        };
        for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
            drop(metrics.builds_ended.get_or_create(&InStatus { status: status.to_string() }));
        }
        for verb in Verb::ALL.map(Verb::name) {
            drop(metrics.desk_duration.get_or_create(&Asked { verb }));
            for outcome in OUTCOMES {
                drop(metrics.desk_requests.get_or_create(&Answered { verb, outcome }));
            }
        }
        for feed in FEEDS {
            drop(metrics.ledger_messages.get_or_create(&Read { feed }));
            metrics.ledger_waits(feed, None);
        }
        for rule in RULES.map(str::to_owned) {
            drop(metrics.swept.get_or_create(&OfRule { rule: rule.clone() }));
            drop(metrics.sweep_failures.get_or_create(&OfRule { rule }));
        }
        metrics.slots_wait(None);
        metrics.stand(None);
        metrics
    }
}

impl Metrics {
    /// A build that is over: the end of its log was stored, which happens once.
    pub fn build_ended(&self, status: Status) {
        self.builds_ended.get_or_create(&InStatus { status: status.to_string() }).inc();
    }

    /// A build was claimed that was put into the queue at `queued_at`.
    pub fn claimed(&self, queued_at: DateTime<Utc>) {
        let waited = (Utc::now() - queued_at).to_std().unwrap_or_default();
        self.claim_latency.observe(waited.as_secs_f64());
    }

    /// A request of a runner that was answered.
    pub fn desk_answered(&self, verb: &'static str, outcome: &'static str, took: Duration) {
        self.desk_duration.get_or_create(&Asked { verb }).observe(took.as_secs_f64());
        self.desk_requests.get_or_create(&Answered { verb, outcome }).inc();
    }

    /// Jobs that are in the stream now.
    pub fn relayed(&self, jobs: usize) {
        self.jobs_relayed.inc_by(jobs as u64);
    }

    /// Messages that are in Postgres now.
    pub fn ledger_wrote(&self, feed: &'static str, messages: usize) {
        self.ledger_messages.get_or_create(&Read { feed }).inc_by(messages as u64);
    }

    /// A log record of this time is in Postgres now.
    pub fn log_stored(&self, written_at: DateTime<Utc>) {
        let lag = (Utc::now() - written_at).to_std().unwrap_or_default();
        self.log_lag.observe(lag.as_secs_f64());
    }

    /// What a rule of the sweep came to.
    pub fn rule_ran(&self, rule: &str, handled: Option<usize>) {
        let of = OfRule { rule: rule.to_owned() };
        match handled {
            Some(handled) => self.swept.get_or_create(&of).inc_by(handled as u64),
            None => self.sweep_failures.get_or_create(&of).inc(),
        };
    }

    /// How things stand in Postgres, if it says so.
    fn stand(&self, stats: Option<&Stats>) {
        let seen = |of: &dyn Fn(&Stats) -> i64| stats.map_or(f64::NAN, |stats| of(stats) as f64);
        self.builds_running.set(seen(&|stats| stats.running));
        // As `slots_wanted` of the queue: what waits for the limit of its key wants none.
        self.slots_wanted
            .set(seen(&|stats| stats.queued.values().sum::<i64>() - stats.held + stats.running));
        self.queue_oldest.set(seen(&|stats| stats.oldest_seconds));
        let count = |of: &BTreeMap<String, i64>, key: &str| of.get(key).copied().unwrap_or(0);
        for lane in LANES {
            let queued = seen(&|stats| count(&stats.queued, lane));
            self.queue_depth.get_or_create(&InLane { lane: lane.to_owned() }).set(queued);
        }
        for status in HOSTS {
            let hosts = seen(&|stats| count(&stats.hosts, status));
            self.hosts.get_or_create(&InStatus { status: status.to_owned() }).set(hosts);
        }
        for status in sandbox::Status::ALL.into_iter().filter(|status| !status.is_terminal()) {
            let sandboxes = seen(&|stats| count(&stats.sandboxes, status.as_str()));
            self.sandboxes.get_or_create(&InStatus { status: status.to_string() }).set(sandboxes);
        }
    }

    /// How many messages wait for the ledger, if NATS says so.
    fn ledger_waits(&self, feed: &'static str, messages: Option<u64>) {
        let messages = messages.map_or(f64::NAN, |messages| messages as f64);
        self.ledger_pending.get_or_create(&Read { feed }).set(messages);
    }

    /// How many slots wait for a build, if NATS says so.
    fn slots_wait(&self, slots: Option<usize>) {
        self.slots_free.set(slots.map_or(f64::NAN, |slots| slots as f64));
    }

    /// Everything there is to see: what was counted, how things stand, and this process.
    pub fn registry(&self, store: Store) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let own = registry.sub_registry_with_prefix("ovenbird_bridge");
        own.register("builds_ended", "Builds that ended, by status", self.builds_ended.clone());
        let help = "Builds that hold a slot of a runner";
        own.register("builds_running", help, self.builds_running.clone());
        let help = "From the moment a build was put into the queue to its claim";
        own.register("claim_latency_seconds", help, self.claim_latency.clone());
        let help = "From a request at the desk to its answer, by verb";
        own.register("desk_duration_seconds", help, self.desk_duration.clone());
        let help = "Requests at the desk, by verb and answer";
        own.register("desk_requests", help, self.desk_requests.clone());
        own.register("hosts", "Hosts, by status", self.hosts.clone());
        let help = "Jobs that were put into the work queue";
        own.register("jobs_relayed", help, self.jobs_relayed.clone());
        let help = "Messages that were written to Postgres, by feed";
        own.register("ledger_messages", help, self.ledger_messages.clone());
        let help = "Messages that are not in Postgres yet, by feed";
        own.register("ledger_pending", help, self.ledger_pending.clone());
        let help = "From a log record's time to its place in Postgres, the first of each message";
        own.register("log_lag_seconds", help, self.log_lag.clone());
        own.register("queue_depth", "Builds that wait, by lane", self.queue_depth.clone());
        let help = "How long the build that waits longest has been waiting; 0: none waits";
        own.register("queue_oldest_seconds", help, self.queue_oldest.clone());
        let help = "Sandboxes of users that are not over, by status";
        own.register("sandboxes", help, self.sandboxes.clone());
        let help = "Slots of runners that wait for a build, as far as NATS knows";
        own.register("slots_free", help, self.slots_free.clone());
        let help = "Slots with which no build would wait for a runner: those that wait, but for their keys' limits, and those that run";
        own.register("slots_wanted", help, self.slots_wanted.clone());
        let help = "Runs of a rule of the sweep that failed, by rule";
        own.register("sweep_failures", help, self.sweep_failures.clone());
        own.register("swept", "What the sweep made true again, by rule", self.swept.clone());
        own.register_collector(Box::new(Connections(store)));
        registry
    }
}

/// A word for an answer of the desk.
pub fn outcome<T>(reply: &Reply<T>) -> &'static str {
    match reply {
        Reply::Ok(_) => "ok",
        Reply::Refused(refusal) => match refusal.code {
            RefusalCode::NotFound => "not_found",
            RefusalCode::NotClaimable => "not_claimable",
            RefusalCode::StaleAttempt => "stale_attempt",
            RefusalCode::KeyLimit => "key_limit",
            RefusalCode::NoCapacity => "no_capacity",
            RefusalCode::BadRequest => "bad_request",
            RefusalCode::Unavailable => "unavailable",
        },
    }
}

/// The pool of connections to Postgres.
#[derive(Debug)]
struct Connections(Store);

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (name, help) = ("database_connections", "Connections to Postgres, by state");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let (used, idle) = self.0.connections();
        for (state, count) in [("used", used), ("idle", idle)] {
            let value = ConstGauge::<i64>::new(i64::from(count));
            value.encode(family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}
