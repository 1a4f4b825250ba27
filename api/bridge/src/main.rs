//! The bridge's process: reads its configuration and runs the services until it is told to stop.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ovenbird_bridge::{Bridge, Config};
use ovenbird_kit::telemetry::{self, Traces};

/// Where Postgres and Redis meet NATS: relay, desk, ledger and sweep.
#[derive(Debug, Parser)]
#[command(name = "ovenbird-bridge", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration, in TOML.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT (the default).
    Serve,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Command::Serve = arguments.command.unwrap_or(Command::Serve);
    let config = Config::load(arguments.config.as_deref())?;
    let telemetry = telemetry::init("ovenbird-bridge", &config.telemetry, Traces::Joined)?;
    let shutdown = ovenbird_kit::shutdown::on_signals();
    let bridge = Bridge::new(config).await.context("the bridge cannot start")?;
    let ended = bridge.run(shutdown).await;
    telemetry.close().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}
