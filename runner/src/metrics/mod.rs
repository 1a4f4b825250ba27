//! What whoever runs the runners can see of one in Prometheus. Every name stands in `names.txt`, and a test compares.
//!
//! There is no label with a build's id or a template's name: there is no end to those. A series is there from the
//! beginning, at 0, so that a rate of it begins with its first event.

use std::time::Duration;

use ovenbird_contract::{desk::RefusalCode, step::Phase};
use ovenbird_kit::metrics::Process;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    build::Ending,
    desk::{self, Error},
    stop::Interrupt,
};

/// The names of all metrics, with their types and labels, sorted.
pub const NAMES: &str = include_str!("names.txt");

/// Upper bounds, in seconds, of what should take some milliseconds.
const SHORT: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0];
/// Upper bounds, in seconds, of a step: at most an hour.
const STEPS: [f64; 12] =
    [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
/// Every phase, by its word.
const PHASES: [(Phase, &str); 4] = [
    (Phase::Boot, "boot"),
    (Phase::Step, "step"),
    (Phase::Health, "health"),
    (Phase::Publish, "publish"),
];
/// Every way in which an attempt ends.
const ENDINGS: [&str; 8] = [
    "succeeded",
    "failed",
    "host_failed",
    "cancelled",
    "timed_out",
    "handed_over",
    "lease_lost",
    "superseded",
];
/// Every answer to a claim.
const CLAIMS: [&str; 10] = [
    "claimed",
    "not_found",
    "not_claimable",
    "stale_attempt",
    "key_limit",
    "no_capacity",
    "bad_request",
    "unavailable",
    "away",
    "bad_answer",
];

/// What happens, counted. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    slots: Gauge,
    slots_busy: Gauge,
    claims: Family<Claim, Counter>,
    claim_duration: Histogram,
    attempts: Family<Attempt, Counter>,
    step_duration: Family<Step, Histogram, fn() -> Histogram>,
    log_records: Counter,
    log_bytes: Counter,
    log_lag: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Claim {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    ending: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    phase: &'static str,
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            slots: Gauge::default(),
            slots_busy: Gauge::default(),
            claims: Family::default(),
            claim_duration: Histogram::new(SHORT),
            attempts: Family::default(),
            step_duration: Family::new_with_constructor(|| Histogram::new(STEPS)),
            log_records: Counter::default(),
            log_bytes: Counter::default(),
            log_lag: Histogram::new(SHORT),
        };
        for outcome in CLAIMS {
            drop(metrics.claims.get_or_create(&Claim { outcome }));
        }
        for ending in ENDINGS {
            drop(metrics.attempts.get_or_create(&Attempt { ending }));
        }
        for (_, phase) in PHASES {
            for outcome in ["passed", "failed"] {
                drop(metrics.step_duration.get_or_create(&Step { phase, outcome }));
            }
        }
        metrics
    }
}

impl Metrics {
    /// How many builds may run at once.
    pub fn slots_are(&self, slots: usize) {
        self.slots.set(i64::try_from(slots).unwrap_or(i64::MAX));
    }

    /// A slot is busy for as long as this lives.
    pub fn slot_busy(&self) -> Busy {
        self.slots_busy.inc();
        Busy(self.slots_busy.clone())
    }

    /// The desk's answer to a claim, and how long it took; a word for it comes back.
    pub fn claim_answered<T>(
        &self,
        answer: &Result<T, desk::Error>,
        took: Duration,
    ) -> &'static str {
        let outcome = match answer {
            Ok(_) => "claimed",
            Err(Error::Refused(refusal)) => match refusal.code {
                RefusalCode::NotFound => "not_found",
                RefusalCode::NotClaimable => "not_claimable",
                RefusalCode::StaleAttempt => "stale_attempt",
                RefusalCode::KeyLimit => "key_limit",
                RefusalCode::NoCapacity => "no_capacity",
                RefusalCode::BadRequest => "bad_request",
                RefusalCode::Unavailable => "unavailable",
            },
            Err(Error::Away(_)) => "away",
            Err(Error::BadAnswer(_)) => "bad_answer",
        };
        self.claims.get_or_create(&Claim { outcome }).inc();
        self.claim_duration.observe(took.as_secs_f64());
        outcome
    }

    /// An attempt that ended; a word for how comes back.
    pub fn attempt_ended(&self, ending: &Ending) -> &'static str {
        let ending = match ending {
            Ending::Succeeded(_) => "succeeded",
            Ending::Failed(_) => "failed",
            Ending::HostFailed(_) => "host_failed",
            Ending::Interrupted(Interrupt::Cancelled) => "cancelled",
            Ending::Interrupted(Interrupt::TimeOver) => "timed_out",
            Ending::Interrupted(Interrupt::Drain) => "handed_over",
            Ending::Interrupted(Interrupt::LeaseLost) => "lease_lost",
            Ending::Superseded => "superseded",
        };
        self.attempts.get_or_create(&Attempt { ending }).inc();
        ending
    }

    /// One thing that a build has done, to its end.
    pub fn step_ended(&self, phase: Phase, is_passed: bool, took: Duration) {
        let Some((_, phase)) = PHASES.iter().find(|(known, _)| *known == phase) else { return };
        let outcome = if is_passed { "passed" } else { "failed" };
        self.step_duration.get_or_create(&Step { phase, outcome }).observe(took.as_secs_f64());
    }

    /// Records that are in the log now, `lag` after the oldest of them was written.
    pub fn log_written(&self, records: usize, bytes: usize, lag: Duration) {
        self.log_records.inc_by(records as u64);
        self.log_bytes.inc_by(bytes as u64);
        self.log_lag.observe(lag.as_secs_f64());
    }

    /// Everything there is to see: what was counted, and this process.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let own = registry.sub_registry_with_prefix("ovenbird_runner");
        own.register("slots", "Builds that may run at once", self.slots.clone());
        own.register("slots_busy", "Slots with a build, or with a claim", self.slots_busy.clone());
        own.register("claims", "Claims, by the desk's answer", self.claims.clone());
        let duration = "From the claim of a build to the desk's answer, repeated requests included";
        own.register("claim_duration_seconds", duration, self.claim_duration.clone());
        own.register("attempts", "Attempts that ended, by how", self.attempts.clone());
        let duration =
            "What builds did: booting, each try of a step, healthchecks, writing templates";
        own.register("step_duration_seconds", duration, self.step_duration.clone());
        own.register("log_records", "Records that went into logs", self.log_records.clone());
        own.register("log_bytes", "Bytes of text of these records", self.log_bytes.clone());
        let lag = "From a record's time to its place in the stream, the oldest of each message";
        own.register("log_lag_seconds", lag, self.log_lag.clone());
        registry
    }
}

/// A busy slot.
#[derive(Debug)]
pub struct Busy(Gauge);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.dec();
    }
}
