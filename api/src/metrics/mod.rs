//! What whoever runs the api can see of one in Prometheus. Every name stands in `names.txt`, and a test compares.
//!
//! Requests are told apart by operation, as the published document names it, and never by path or caller: there is no
//! end to those. How builds, hosts and the queue stand is told by the bridges.

use std::{fmt, sync::Arc, time::Duration};

use ovenbird_kit::metrics::Process;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram,
    },
    registry::Registry,
};

use crate::app::App;

/// The names of all metrics, with their types and labels, sorted.
pub const NAMES: &str = include_str!("names.txt");

/// Upper bounds, in seconds. A command that is waited for may take a minute and more.
const REQUESTS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 20.0, 100.0];

/// What happens, counted. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    request_duration: Family<Asked, Histogram, fn() -> Histogram>,
    requests: Family<Answered, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    operation: String,
    status: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            request_duration: Family::new_with_constructor(|| Histogram::new(REQUESTS)),
            requests: Family::default(),
        }
    }
}

impl Metrics {
    /// A request to an operation of the document, or to `other`, whose answer begins after `took`.
    pub fn request_answered(&self, operation: &str, status: u16, took: Duration) {
        let operation = operation.to_owned();
        let asked = Asked { operation: operation.clone() };
        self.request_duration.get_or_create(&asked).observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { operation, status }).inc();
    }

    /// Everything there is to see: what was counted, what is open now, and this process.
    pub fn registry(&self, app: Arc<App>) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let own = registry.sub_registry_with_prefix("ovenbird_api");
        let help = "From a request to the beginning of its answer, by operation";
        own.register("request_duration_seconds", help, self.request_duration.clone());
        own.register("requests", "Requests, by operation and HTTP status", self.requests.clone());
        own.register_collector(Box::new(Now(app)));
        registry
    }
}

/// What is open at the moment.
#[derive(Debug)]
struct Now(Arc<App>);

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (used, idle) = self.0.database_connections();
        let help = "Connections to Postgres, by state";
        let connections = [("used", u64::from(used)), ("idle", u64::from(idle))];
        gauges(&mut encoder, ("database_connections", help), "state", connections)?;
        let help = "Streams to clients that are open: logs and lists of builds, output of commands";
        let streams = [
            ("logs", self.0.logs().streams_open() as u64),
            ("exec", self.0.sandboxes().streams_open() as u64),
        ];
        gauges(&mut encoder, ("streams", help), "kind", streams)
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (text, count) in values {
        let value = ConstGauge::<i64>::new(i64::try_from(count).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&[(label, text)])?)?;
    }
    Ok(())
}
