//! Everything a machine needs before the platform runs on it, each thing only when it is missing.
//!
//! A second run finds all of it in well under a second and without network. Services that the packages
//! bring along are not started: ours are private.

pub mod deploy;
pub mod guest;
mod image;
mod kernel;
mod nats_server;
pub mod node;
mod packages;
mod schemathesis;
pub mod tools;
mod wheel;

use std::time::Instant;

use node::Node;

use crate::{
    cache::{Artifacts, Cache},
    dashboard,
    progress::Ui,
};

/// What to make again although it is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Again {
    /// The guest kernel, in the newest version of its package.
    pub kernel: bool,
    /// The base image.
    pub image: bool,
}

/// Brings along what builds the dashboard.
///
/// # Errors
/// As [`run`].
pub async fn node(ui: &Ui) -> anyhow::Result<Node> {
    packages::ensure(ui).await?;
    let cache = Cache::open()?;
    let _lock = cache.lock(ui).await?;
    node::ensure(ui, &cache).await
}

/// Brings the machine and the cache up to date.
///
/// # Errors
/// With the failing program's last lines, or what to do by hand.
pub async fn run(ui: &Ui, again: Again) -> anyhow::Result<Artifacts> {
    let started = Instant::now();
    let installed = packages::ensure(ui).await?;
    let cache = Cache::open()?;
    let _lock = cache.lock(ui).await?;
    let nats_server = nats_server::ensure(ui, &cache).await?;
    schemathesis::ensure(ui, &cache).await?;
    dashboard::ensure(ui, &node::ensure(ui, &cache).await?).await?;
    let kernel = kernel::ensure(ui, &cache, again.kernel).await?;
    let initrd = guest::ensure(ui, &cache, &kernel).await?;
    let image = image::ensure(ui, &cache, again.image).await?;
    let host_modules = kernel.host_modules();
    let artifacts =
        Artifacts { kernel: kernel.vmlinux(), initrd, host_modules, image, nats_server };
    artifacts.store(&cache)?;
    let packages = if installed == 0 {
        "nothing to install".into()
    } else {
        format!("{installed} packages installed")
    };
    ui.notice(format!("set-up is complete: {packages}, {:.1} s", started.elapsed().as_secs_f64()));
    Ok(artifacts)
}
