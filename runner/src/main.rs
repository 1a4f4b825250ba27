//! The runner's process: reads its configuration and runs the service until it is told to stop.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use ovenbird_kit::{
    shutdown,
    telemetry::{self, Traces},
};
use ovenbird_runner::{Config, Service};

/// Takes build jobs and drives host agents step by step.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML); keys and defaults stand in `default.toml`.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Builds at once, instead of the configured number.
    #[arg(long)]
    slots: Option<usize>,
    /// What to do; there is only `serve`.
    #[arg(default_value = "serve", value_parser = ["serve"])]
    command: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut config = Config::load(arguments.config.as_deref()).context("configuration")?;
    if let Some(slots) = arguments.slots {
        config.slots = slots;
    }
    let telemetry = telemetry::init("ovenbird-runner", &config.telemetry, Traces::Joined)?;
    let stop = shutdown::on_signals();
    let service = Service::connect(config).await?;
    Box::pin(service.run(stop)).await;
    telemetry.close().await;
    tracing::info!("stopped");
    Ok(())
}
