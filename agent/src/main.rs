//! `ovenbird-agent [serve] --config FILE`: reads the configuration, starts the agent, ends on SIGTERM.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ovenbird_agent::{
    Agent,
    config::{Config, DEFAULTS, ENV_PREFIX},
    exit_code,
};
use ovenbird_kit::{
    config, shutdown,
    telemetry::{self, Traces},
};

/// The host agent of Ovenbird: runs microVMs on this machine. Needs root.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file (TOML).
    #[arg(long, global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves gRPC until SIGTERM (also without a command).
    Serve,
    /// Prints the default configuration, with comments.
    Defaults,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Command::Defaults) = arguments.command {
        print!("{DEFAULTS}");
        return Ok(ExitCode::SUCCESS);
    }
    let config: Config = config::load(DEFAULTS, arguments.config.as_deref(), ENV_PREFIX)?;
    let telemetry = telemetry::init("ovenbird-agent", &config.telemetry, Traces::Joined)?;
    let shutdown = shutdown::on_signals();
    let ended = match Agent::start(config).await {
        Ok(agent) => agent.run(shutdown).await,
        Err(error) => Err(error),
    };
    let code = exit_code(ended);
    telemetry.close().await;
    Ok(code)
}
