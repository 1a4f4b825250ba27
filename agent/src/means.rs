//! What sandboxes are made with, opened as configured; for guests without machines there is little to open.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use ovenbird_host::{
    Identity, Slot,
    cgroup::{self, Cgroups},
    net::{self, NetlinkNetworks, Networks},
    storage::{self, Volumes},
    vm::{self, Hypervisor, Qemu, probe},
};

use crate::{
    agent::Error,
    config::{Config, Machines},
    data_dir::DataDir,
    kernel::Kernel,
    memory::{MemoryHypervisor, MemoryNetworks},
    sandbox::{self, Means},
};

/// After which disks are looked after again; `default.toml` names it.
const DISK_PAUSE: Duration = Duration::from_millis(100);

/// What sandboxes are made with, and what `GetHost` says of it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) means: Means,
    /// Of the hypervisor.
    pub(crate) version: String,
    /// And why it is this one.
    pub(crate) accelerator: (String, String),
}

/// Opens everything. Nothing of a sandbox is touched.
///
/// # Errors
/// Says what the host lacks.
pub(crate) async fn open(
    config: &Config,
    data: &DataDir,
    network: &net::Plan,
    resolvers: &[Ipv4Addr],
    kernel: &Kernel,
) -> Result<Opened, Error> {
    let volumes = open_volumes(config, data).await?;
    match config.hypervisor {
        Machines::Qemu => {
            let networks = NetlinkNetworks::new(net::Options {
                plan: network.clone(),
                pool: config.network_pool,
                slots: config.capacity.sandboxes,
                uid_base: config.uid_base,
                resolvers: resolvers.to_vec(),
            });
            let (qemu, choice) = open_qemu(config, data, kernel).await?;
            let version = qemu.version().to_string();
            let accelerator = (choice.accelerator.name().to_owned(), choice.reason);
            let cgroups = open_cgroups(config)?;
            let means = means(Arc::new(qemu), volumes, Arc::new(networks), cgroups);
            Ok(Opened { means, version, accelerator })
        }
        Machines::Memory => {
            tracing::warn!("sandboxes have no machines: this agent is for benches only");
            let networks = Arc::new(MemoryNetworks::new(network.clone()));
            let cgroups = Cgroups::open(&config.name, cgroup::Mode::Off)?;
            let means = means(Arc::new(MemoryHypervisor), volumes, networks, cgroups);
            let accelerator = ("none".to_owned(), "sandboxes have no machines".to_owned());
            Ok(Opened { means, version: "none".to_owned(), accelerator })
        }
    }
}

fn means(
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Arc<dyn Volumes>,
    networks: Arc<dyn Networks>,
    cgroups: Cgroups,
) -> Means {
    Means { hypervisor, volumes, networks, cgroups }
}

async fn open_qemu(
    config: &Config,
    data: &DataDir,
    kernel: &Kernel,
) -> Result<(Qemu, probe::Choice), Error> {
    let qemu = Qemu::open(&config.qemu, vm::Accelerator::Tcg).await?;
    let owner = Identity { uid: config.uid_base, gid: config.uid_base };
    let (image, initrd) = (kernel.kernel(), kernel.initrd());
    let choice = probe::choose(&qemu, &image, &initrd, &data.sandboxes(), owner).await;
    Ok((qemu.with_accelerator(choice.accelerator), choice))
}

async fn open_volumes(config: &Config, data: &DataDir) -> Result<Arc<dyn Volumes>, Error> {
    let path = data.sandboxes();
    let found =
        sandbox::storage_of(&path).map_err(|source| sandbox::Error::Leftovers { path, source })?;
    if let (Some(wanted), Some(found)) = (config.storage.driver(), found)
        && wanted != found
    {
        return Err(Error::Storage { wanted: wanted.name(), found: found.name() });
    }
    Ok(storage::open(storage::Options {
        data_dir: data.root().to_owned(),
        // Whatever would be the best by now: the disks that there are stay what they are.
        driver: config.storage.driver().or(found),
        dm: storage::DmOptions {
            instance: config.name.clone(),
            reserve_bytes: u64::from(config.storage_reserve_mb) << 20,
            pause: DISK_PAUSE,
        },
    })
    .await?)
}

/// Removes control groups of machines that are gone, also where groups are no longer wanted.
pub(crate) fn sweep_cgroups(config: &Config, kept: &[Slot]) -> Result<(), Error> {
    let cgroups = Cgroups::open(&config.name, cgroup::Mode::Auto)?;
    let mut slots = cgroups.list()?;
    slots.retain(|slot| !kept.contains(slot));
    for slot in &slots {
        cgroups.remove(*slot)?;
    }
    if !slots.is_empty() {
        tracing::warn!(cgroups = slots.len(), "removed what an earlier agent left behind");
    }
    Ok(cgroups.close()?)
}

fn open_cgroups(config: &Config) -> Result<Cgroups, Error> {
    let cgroups = Cgroups::open(&config.name, config.cgroups)?;
    if config.cgroups == cgroup::Mode::Auto && cgroups.version() == "none" {
        tracing::warn!(
            reason = cgroups.reason(),
            "machines run without control groups: nothing but the host's own memory and processors limits them"
        );
    }
    Ok(cgroups)
}

/// As GetHost shows it.
pub(crate) fn cgroups_text(cgroups: &Cgroups) -> String {
    match cgroups.reason() {
        "" => cgroups.version().to_owned(),
        reason => format!("none: {reason}"),
    }
}
