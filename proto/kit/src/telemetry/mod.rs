//! What a process says of itself while it runs: log lines on standard error, and spans to an OpenTelemetry collector.
//!
//! `OVENBIRD_LOG` is the filter of the lines (`info` when unset; syntax of `tracing_subscriber::EnvFilter`). Whether
//! they are text or JSON, and where spans go, stands in the section `[telemetry]` of every process's configuration;
//! `OVENBIRD_LOG_FORMAT` goes over it. Without a collector there is no layer for spans, and they cost nothing. What
//! belongs to which trace is the business of [`trace`].

mod export;
mod json;
mod text;
pub mod trace;

use std::path::PathBuf;

use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    fmt::{self, format::JsonFields},
    prelude::*,
};

pub use export::Error;

/// What fields for the collector alone begin with; `tracing-opentelemetry` reads them.
const FOR_COLLECTOR: &str = "otel.";

/// The section `[telemetry]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How log lines are written.
    pub format: Format,
    /// Where spans go, as OTLP over gRPC: `http://host:4317`. Empty: where the variables `OTEL_EXPORTER_OTLP_…` say, and
    /// nowhere without them.
    pub otlp_endpoint: String,
    /// PEM file of the authority of an `https` endpoint; absent, the system's authorities.
    pub otlp_ca: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether a process begins traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traces {
    /// What comes to it is where a trace begins, unless its caller has one. `OTEL_TRACES_SAMPLER` says how many of them.
    Begun,
    /// It goes on with the traces of others, and what it does by itself is in none.
    Joined,
}

/// The process's telemetry. [`Telemetry::close`] it, or the last spans are lost.
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts telemetry for the process. Call it once, as soon as there is a configuration, in a tokio runtime.
///
/// # Errors
/// When spans are to go somewhere that cannot be.
pub fn init(service: &'static str, config: &Config, traces: Traces) -> Result<Telemetry, Error> {
    let filter = EnvFilter::try_from_env("OVENBIRD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let format = match std::env::var("OVENBIRD_LOG_FORMAT").as_deref() {
        Ok("json") => Format::Json,
        Ok("text") => Format::Text,
        _ => config.format,
    };
    let provider = export::provider(service, config, traces)?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Json => {
            lines.fmt_fields(JsonFields::new()).event_format(json::Line::new(service)).boxed()
        }
        Format::Text => lines.fmt_fields(text::Fields).with_ansi(false).boxed(),
    };
    let spans = provider.as_ref().map(export::layer);
    let registry = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter));
    if registry.try_init().is_ok() {
        let exported = provider.is_some();
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), exported, "starting");
    }
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends the spans that are left; a collector that does not answer is not waited for long.
    pub async fn close(self) {
        let Some(provider) = self.provider else { return };
        let closed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(export::LAST));
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "the last spans did not reach the collector"),
            Err(error) => tracing::error!(%error, "the spans' exporter broke"),
        }
    }
}

/// An error and its sources on one line, for whoever logs it last.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
