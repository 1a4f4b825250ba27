//! `cargo dev`: the workspace's own tool.

use clap::{Parser, Subcommand};
use ovenbird_dev::{progress::Ui, setup};

#[derive(Parser)]
#[command(
    name = "cargo dev",
    about = "Ovenbird's own tool: set-up, the whole platform on one machine, tests"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs and makes what is missing: packages, nats-server, guest kernel, initramfs, base image.
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let ui = Ui::new();
    match arguments.command {
        Command::Setup => setup::run(&ui, setup::Again::default()).await.map(drop),
        Command::Guest { kernel } => {
            setup::run(&ui, setup::Again { kernel, image: false }).await.map(drop)
        }
        Command::Image => {
            setup::run(&ui, setup::Again { kernel: false, image: true }).await.map(drop)
        }
    }
}
