//! `cargo dev`: the workspace's own tool.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ovenbird_dev::{
    bench,
    command::{demo, test, up},
    dashboard, faults, openapi,
    progress::Ui,
    scale, sdk,
    setup::{self, Again, tools},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(
    name = "cargo dev",
    bin_name = "cargo dev",
    about = "Ovenbird's own tool: set-up, the whole platform on one machine, tests"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the platform, bakes two recipes into templates, starts a sandbox from each, ends everything.
    Demo,
    /// Starts the platform and keeps it running until Ctrl-C; `.ovenbird/up.json` says where everything is.
    Up {
        /// Runners, of two builds at once each.
        #[arg(long, default_value_t = 2)]
        runners: usize,
        /// Host agents.
        #[arg(long, default_value_t = 1)]
        agents: usize,
        /// Also serves the dashboard with hot reload, from its sources.
        #[arg(long)]
        dashboard_dev: bool,
    },
    /// Builds the dashboard that the api embeds.
    Dashboard,
    /// Runs every test, or those whose names match.
    Test {
        /// Also the whole agent in a VM that is a host with a device-mapper, which takes minutes.
        #[arg(long)]
        all: bool,
        /// Parts of test names.
        filters: Vec<String>,
    },
    /// Kills and freezes everything under a load of builds, by a seeded schedule; then looks that nothing is lost.
    Faults(faults::Options),
    /// Has a load rise and fall, and runners follow it by the rule of `.deploy`; prints and draws the curve.
    Scale(scale::Options),
    /// Measures something.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Writes `openapi/openapi.json` from the code; lints it, and looks that no client of a released version breaks.
    Openapi {
        /// Write nothing; fail when it is not what the code says.
        #[arg(long)]
        check: bool,
    },
    /// Writes the generated parts of the SDKs from `openapi/openapi.json`.
    Sdk {
        /// Write nothing; fail when they are not what the document says.
        #[arg(long)]
        check: bool,
    },
    /// Installs and makes what is missing: packages, nats-server, dashboard, guest kernel, initramfs, base image, SDK
    /// generators.
    Setup,
    /// Builds the guest agent and packs its initramfs.
    Guest {
        /// Fetch the newest guest kernel, too.
        #[arg(long)]
        kernel: bool,
    },
    /// Makes the base image `minimal` again.
    Image,
}

#[derive(Subcommand)]
enum Bench {
    /// The host agent, beside the same QEMU started by hand; prints both and their ratio.
    Agent(bench::Options),
    /// The way of builds and of their lines, beside what the same servers do without Ovenbird.
    Pipeline(bench::pipeline::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    match start(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each cause on lines of its own: some are whole logs. A backtrace would bury them.
            eprintln!("{} {error}", console::style("error:").red().bold());
            for cause in error.chain().skip(1) {
                eprintln!("  because {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let ui = Ui::new();
    let ending = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cancel = ending.clone();
    let signals = tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        cancel.cancel();
    });
    let outcome = run(&ui, arguments.command, ending.clone()).await;
    signals.abort();
    if outcome.is_ok() && ending.is_cancelled() {
        ui.notice("ended by a signal; nothing is left running");
    }
    outcome
}

async fn run(ui: &Ui, command: Command, ending: CancellationToken) -> anyhow::Result<()> {
    // What runs for a while ends in order on its own; the rest is dropped, and its children with it.
    let work = async {
        match command {
            Command::Up { runners, agents, dashboard_dev } => {
                let up = up::run(ui, runners, agents, dashboard_dev, ending.clone());
                return Box::pin(up).await;
            }
            Command::Demo => return demo::run(ui, ending.clone()).await,
            Command::Faults(options) => return faults::run(ui, options, ending.clone()).await,
            Command::Scale(options) => return scale::run(ui, options, ending.clone()).await,
            Command::Bench { what: Bench::Agent(options) } => {
                return bench::agent(ui, options, ending.clone()).await;
            }
            Command::Bench { what: Bench::Pipeline(options) } => {
                return bench::pipeline::run(ui, options, ending.clone()).await;
            }
            _ => {}
        }
        let short = async {
            match command {
                Command::Test { all, filters } => test::run(ui, all, &filters).await,
                Command::Dashboard => {
                    let node = setup::node(ui).await?;
                    dashboard::install(ui, &node).await?;
                    dashboard::build(ui, &node).await
                }
                Command::Guest { kernel } => {
                    setup::run(ui, Again { kernel, image: false }).await.map(drop)
                }
                Command::Image => {
                    setup::run(ui, Again { kernel: false, image: true }).await.map(drop)
                }
                Command::Openapi { check } => openapi::run(ui, check).await,
                Command::Sdk { check } => sdk::run(ui, check).await,
                _ => {
                    setup::run(ui, Again::default()).await?;
                    setup::deploy::ensure(ui).await?;
                    tools::ensure(ui).await.map(drop)
                }
            }
        };
        ending
            .run_until_cancelled(short)
            .await
            .unwrap_or_else(|| anyhow::bail!("ended by a signal"))
    };
    Box::pin(work).await
}
