//! What whoever runs the agent can see of it in Prometheus. Every name stands in `names.txt`, and a test compares.
//!
//! There is no label with a sandbox's id or a template's name: there is no end to those. What one sandbox uses is told
//! by GetSandboxMetrics.

use std::{fmt, time::Duration};

use ovenbird_kit::metrics::Process;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram,
    },
    registry::Registry,
};
use tonic::Code;

use crate::{
    sandbox::{Manager, State},
    template::Kind,
};

/// Upper bounds, in seconds: a fork takes a tenth of one, a boot some of them.
const CREATE_BUCKETS: [f64; 11] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0];

/// What happens, counted. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<Call, Counter>,
    creates: Family<Create, Histogram, fn() -> Histogram>,
    execs: Family<Exec, Counter>,
    file_bytes: Family<FileBytes, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Create {
    origin: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exec {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileBytes {
    direction: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            creates: Family::new_with_constructor(|| Histogram::new(CREATE_BUCKETS)),
            execs: Family::default(),
            file_bytes: Family::default(),
        }
    }
}

impl Metrics {
    /// A call that ended. The method is one that is served, or `unknown`.
    pub fn call_ended(&self, method: String, code: Code) {
        self.calls.get_or_create(&Call { method, code: code_name(code) }).inc();
    }

    /// A sandbox that was made, or was not.
    pub fn create_ended(&self, kind: Kind, is_made: bool, took: Duration) {
        let origin = match kind {
            Kind::Image => "boot",
            Kind::Snapshot => "fork",
        };
        let outcome = if is_made { "made" } else { "failed" };
        self.creates.get_or_create(&Create { origin, outcome }).observe(took.as_secs_f64());
    }

    /// A command that belongs to its call.
    pub fn exec_started(&self) {
        self.execs.get_or_create(&Exec { kind: "attached" }).inc();
    }

    /// A command that outlives its call.
    pub fn detached_exec_started(&self) {
        self.execs.get_or_create(&Exec { kind: "detached" }).inc();
    }

    /// Bytes of files that went into guests.
    pub fn file_bytes_in(&self) -> Counter {
        self.file_bytes.get_or_create_owned(&FileBytes { direction: "in" })
    }

    /// Bytes of files that came out of guests.
    pub fn file_bytes_out(&self) -> Counter {
        self.file_bytes.get_or_create_owned(&FileBytes { direction: "out" })
    }

    /// Everything there is to see: what was counted, what is there now, and this process.
    pub fn registry(&self, manager: Manager) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let own = registry.sub_registry_with_prefix("ovenbird_agent");
        own.register("calls", "gRPC calls that ended, by method and code", self.calls.clone());
        let creates =
            "From the request of a sandbox to its guest's first answer, or to the failure";
        own.register("create_duration_seconds", creates, self.creates.clone());
        own.register("execs", "Commands that were started", self.execs.clone());
        let bytes = "Bytes of files that went into guests and came out of them";
        own.register("file_bytes", bytes, self.file_bytes.clone());
        own.register_collector(Box::new(Host(manager)));
        registry
    }
}

/// What is on the host at the moment.
#[derive(Debug)]
struct Host(Manager);

impl Collector for Host {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let manager = &self.0;
        let (used, total) = (manager.used(), manager.settings().limits.total);
        let bytes = |mib: u32| i64::from(mib) << 20;
        let values = [
            ("vcpus_promised", "Processors promised to sandboxes that run", used.vcpus.into()),
            ("vcpus_total", "Processors that may be promised", total.vcpus.into()),
            (
                "memory_promised_bytes",
                "Memory promised to sandboxes that run",
                bytes(used.memory_mb),
            ),
            ("memory_total_bytes", "Memory that may be promised", bytes(total.memory_mb)),
        ];
        for (name, help, value) in values {
            let value = ConstGauge::<i64>::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
        }
        let sandboxes = manager.list();
        let states = State::ALL.into_iter().filter(|state| *state != State::Gone).map(|state| {
            (state.name(), sandboxes.iter().filter(|sandbox| sandbox.state == state).count())
        });
        gauges(&mut encoder, ("sandboxes", "Sandboxes, by state"), "state", states)?;
        // A folder that cannot be read is in the log of whoever lists templates.
        let templates = manager.templates().list().unwrap_or_default();
        let kinds = [Kind::Image, Kind::Snapshot].into_iter().map(|kind| {
            (kind.name(), templates.iter().filter(|template| template.kind == kind).count())
        });
        gauges(&mut encoder, ("templates", "Templates, by type"), "type", kinds)
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    label: &'static str,
    values: impl Iterator<Item = (&'static str, usize)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (text, count) in values {
        let value = ConstGauge::<i64>::new(i64::try_from(count).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&[(label, text)])?)?;
    }
    Ok(())
}

/// As the gRPC specification writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
