//! The bridge's process: reads its configuration and runs the services until it is told to stop.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ovenbird_bridge::{Bridge, Config};

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
    ovenbird_kit::telemetry::init("ovenbird-bridge");
    let config = Config::load(arguments.config.as_deref())?;
    let shutdown = ovenbird_kit::shutdown::on_signals();
    let metrics = match config.metrics_listen {
        Some(address) => {
            let serving = ovenbird_kit::metrics::serve_process(address, shutdown.clone()).await;
            Some(serving.with_context(|| format!("metrics_listen: cannot listen on {address}"))?)
        }
        None => None,
    };
    let bridge = Bridge::new(config).await.context("the bridge cannot start")?;
    bridge.run(shutdown).await?;
    if let Some(metrics) = metrics {
        metrics.await.context("metrics")?;
    }
    tracing::info!("stopped");
    Ok(())
}
