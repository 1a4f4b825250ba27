//! Spans to a collector, as OTLP over gRPC.
//!
//! They wait in a bounded queue and go out in batches, from a thread of their own; what a collector that is away does
//! not take is dropped and counted in the log. The `OTEL_…` variables of the OpenTelemetry specification set the rest:
//! headers, time limits, batches, the sampler, attributes of the process.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    SpanExporter, WithExportConfig as _, WithTonicConfig as _,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider, Tracer},
};
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{Config, Traces};
use crate::tls;

/// For the spans that are left at the end.
pub(super) const LAST: Duration = Duration::from_secs(2);
/// Variables that name a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// What the targets of our own spans begin with; libraries have spans, too.
const OURS: &str = "ovenbird";

/// Spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is none.
    #[error("telemetry.otlp_endpoint cannot be used")]
    Endpoint(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The authority's file.
    #[error("telemetry.otlp_ca cannot be used")]
    Authority(#[from] tls::Error),
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where spans go; nothing when they go nowhere.
fn endpoint(config: &Config) -> Option<String> {
    let is_off =
        variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let set = Some(config.otlp_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    set.or_else(|| ENDPOINTS.into_iter().find_map(variable)).filter(|_| !is_off)
}

/// What makes spans and sends them, if they go anywhere.
pub(super) fn provider(
    service: &'static str,
    config: &Config,
    traces: Traces,
) -> Result<Option<SdkTracerProvider>, Error> {
    let Some(endpoint) = endpoint(config) else { return Ok(None) };
    let mut exporter = SpanExporter::builder().with_tonic();
    if endpoint.starts_with("https://") {
        let tls = match &config.otlp_ca {
            Some(path) => {
                let pem = tls::authority("telemetry.otlp_ca", path)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.with_endpoint(endpoint);
    let exporter = exporter.build().map_err(|error| Error::Endpoint(error.into()))?;
    let mut resource = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let mut provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
    if traces == Traces::Joined {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        provider = provider.with_sampler(sampler);
    }
    Ok(Some(provider.build()))
}

/// Takes our own spans, and no log lines: what they say stays in the log.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let tracer: Tracer = provider.tracer("ovenbird");
    let ours = |metadata: &Metadata<'_>| {
        metadata.is_span()
            && metadata.level() <= &Level::INFO
            && metadata.target().starts_with(OURS)
    };
    OpenTelemetryLayer::new(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_exported_unless_somebody_says_where_to() {
        let config = Config::default();
        assert!(provider("kit-test", &config, Traces::Begun).unwrap().is_none());
        let otlp_endpoint = "not an address".into();
        let config = Config { otlp_endpoint, ..config };
        let error = provider("kit-test", &config, Traces::Begun).unwrap_err();
        assert!(error.to_string().contains("telemetry.otlp_endpoint"), "{error}");
        let otlp_ca = Some("/no/such.pem".into());
        let config = Config { otlp_endpoint: "https://h:4317".into(), otlp_ca, ..config };
        let error = provider("kit-test", &config, Traces::Begun).unwrap_err();
        assert!(error.to_string().contains("telemetry.otlp_ca"), "{error}");
    }
}
