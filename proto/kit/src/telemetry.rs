//! Log lines on standard error.
//!
//! `OVENBIRD_LOG` is the filter (`info` when unset; syntax of `tracing_subscriber::EnvFilter`),
//! `OVENBIRD_LOG_FORMAT` is `text` (the default) or `json`.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Starts logging for the process. Call it once, first thing.
pub fn init(service: &'static str) {
    let filter = EnvFilter::try_from_env("OVENBIRD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let json = std::env::var("OVENBIRD_LOG_FORMAT").is_ok_and(|format| format == "json");
    let started = if json {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(false).with_writer(std::io::stderr)).try_init()
    };
    if started.is_ok() {
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
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
