//! `ovenbird-agent [serve] --config FILE`: reads the configuration, starts the agent, ends on SIGTERM. Other commands
//! prepare that.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use ovenbird_agent::{
    Agent, check,
    config::{self as settings, Config, DEFAULTS, ENV_PREFIX},
    data_dir::DataDir,
    exit_code, registration,
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
    /// Says of each thing that a production host needs whether it is there, and what to do where it is not. Ends with 0
    /// when all of it is, else with 1. Needs root; changes nothing.
    Check {
        /// As JSON: {"fit", "checks": [{"name", "ok", "found", "remedy"}]}.
        #[arg(long)]
        json: bool,
    },
    /// Registers this host and ends. `serve` goes on with that, and needs no [registration] then. While an agent runs
    /// it is refused.
    Register(RegisterArguments),
}

/// What stands here goes over the [registration] section.
#[derive(Debug, Args)]
struct RegisterArguments {
    /// The api: `https://…`.
    #[arg(long)]
    api: Option<String>,
    /// The file that holds the token of the host's announcement. Never the token itself, which others could see.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The authority of the api's own certificate (PEM), where the system does not know it.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// `host:port` under which this agent is reached.
    #[arg(long)]
    address: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Command::Defaults) = arguments.command {
        print!("{DEFAULTS}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Check { json }) = arguments.command {
        let config = config::load(DEFAULTS, arguments.config.as_deref(), ENV_PREFIX)?;
        let report = check::run(&config).await;
        match json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => print!("{report}"),
        }
        return Ok(if report.fit { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let config: Config = config::load(DEFAULTS, arguments.config.as_deref(), ENV_PREFIX)?;
    let telemetry = telemetry::init("ovenbird-agent", &config.telemetry, Traces::Joined)?;
    if let Some(Command::Register(given)) = arguments.command {
        return register(config, given).await;
    }
    let shutdown = shutdown::on_signals();
    let ended = match Agent::start(config).await {
        Ok(agent) => agent.run(shutdown).await,
        Err(error) => Err(error),
    };
    let code = exit_code(ended);
    telemetry.close().await;
    Ok(code)
}

async fn register(mut config: Config, given: RegisterArguments) -> anyhow::Result<ExitCode> {
    let set = config.registration.take();
    let api = given.api.or_else(|| set.as_ref().map(|set| set.api.clone()));
    let (ca, token_file, address) =
        set.map_or((None, None, None), |set| (set.ca, set.token_file, set.address));
    config.registration = Some(settings::Registration {
        api: api.context("say where the api is, by --api or registration.api")?,
        ca: given.ca.or(ca),
        token_file: given.token_file.or(token_file),
        address: given.address.or(address),
    });
    config.check()?;
    let data = DataDir::open(&config.data_dir)?;
    let settings = config.registration_settings().context("no [registration]")?;
    let host = registration::register(&settings, &data).await?;
    println!("{host}");
    Ok(ExitCode::SUCCESS)
}
