//! The whole agent: checks its host, clears away what an earlier one left, serves, and leaves nothing behind.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use ovenbird_host::{
    Identity,
    net::{self, NetlinkNetworks, Networks},
    storage::{self, FileVolumes},
    vm::{self, Directory, Qemu, probe},
};
use ovenbird_kit::{metrics, telemetry, tls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config},
    data_dir::{self, DataDir},
    kernel::{self, Kernel},
    resolver,
    sandbox::{self, Limits, Manager, Means, Settings, Shape},
    server::{self, Parts},
    template::{self, Templates},
};

/// For calls that are open when everything else has ended.
const DRAIN: Duration = Duration::from_secs(5);
/// Sandboxes made at the same time, at most.
const CREATES_MAX: usize = 1000;
/// Processors promised per processor of the host, unless configured.
const VCPUS_PER_CPU: u32 = 4;

/// The agent cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Template(#[from] template::Error),
    #[error(transparent)]
    Machine(#[from] vm::Error),
    #[error(transparent)]
    Volume(#[from] storage::Error),
    #[error(transparent)]
    Network(#[from] net::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error("the leftovers of an earlier agent cannot be removed from {}", path.display())]
    Sweep {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("a task of the agent panicked")]
    Panicked,
}

/// An agent that is ready to serve. [`Agent::run`] it, or networks' rules stay on the host.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    pem: tls::Pem,
    listener: TcpListener,
    /// Where metrics are served, if anywhere.
    metrics_listener: Option<TcpListener>,
    manager: Manager,
    networks: Arc<dyn Networks>,
    qemu: Qemu,
    choice: probe::Choice,
}

impl Agent {
    /// Checks the host and clears it.
    ///
    /// # Errors
    /// Says what is missing; nothing is left on the host then.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let pem = config.tls.read()?;
        let data = Arc::new(DataDir::open(&config.data_dir)?);
        let network = net::Plan::new(config.name.clone(), config.subnet);
        let resolvers = resolver::addresses(&config.egress_dns);
        let networks: Arc<dyn Networks> = Arc::new(NetlinkNetworks::new(net::Options {
            plan: network.clone(),
            pool: config.network_pool,
            slots: config.capacity.sandboxes,
            uid_base: config.uid_base,
            resolvers: resolvers.clone(),
        }));
        // Before anything that could fail: leftovers must not outlive a broken configuration either.
        sweep(&data, &*networks).await?;

        let qemu = Qemu::open(&config.qemu, vm::Accelerator::Tcg).await?;
        let templates = Arc::new(Templates::open(data.clone())?);
        let kernel = import_kernel(&config, &data).await?;
        let owner = Identity { uid: config.uid_base, gid: config.uid_base };
        let (image, initrd) = (kernel.kernel(), kernel.initrd());
        let choice = probe::choose(&qemu, &image, &initrd, &data.sandboxes(), owner).await;
        let qemu = qemu.with_accelerator(choice.accelerator);
        let volumes = FileVolumes::open(data.root(), config.storage.driver())?;
        // Whoever can connect may rely on what an earlier agent left being gone.
        let listener = listen(config.listen).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        networks.open().await?;
        tracing::info!(
            qemu = %qemu.version(),
            accelerator = choice.accelerator.name(),
            reason = choice.reason,
            storage = storage::Volumes::driver(&volumes).name(),
            kernel = kernel.digest(),
            "host is fit"
        );
        let means = Means {
            hypervisor: Arc::new(qemu.clone()),
            volumes: Arc::new(volumes),
            networks: networks.clone(),
        };
        let settings = settings(&config, network, resolvers);
        let manager = Manager::new(settings, data, means, templates, kernel);
        Ok(Self { config, pem, listener, metrics_listener, manager, networks, qemu, choice })
    }

    /// Serves until `shutdown` is cancelled; then destroys every sandbox and removes what is on the host.
    ///
    /// # Errors
    /// When the server fails; everything is removed all the same.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop = CancellationToken::new();
        let parts = Parts {
            manager: self.manager.clone(),
            qemu_version: self.qemu.version().to_string(),
            accelerator: (self.choice.accelerator.name().to_owned(), self.choice.reason),
            fences: self.config.fences,
            message_max: self.config.message_max_bytes,
            file_idle_timeout: self.config.file_idle_timeout,
            file_streams: self.config.file_streams,
            shutdown: shutdown.clone(),
        };
        let reaper = tokio::spawn(sandbox::idle::run(self.manager.clone(), shutdown.clone()));
        let meter = tokio::spawn(sandbox::meter::run(self.manager.clone(), shutdown.clone()));
        let metrics = self.metrics_listener.map(|listener| {
            let registry = self.manager.counted().registry(self.manager.clone());
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "metrics are served");
            }
            tokio::spawn(metrics::serve(listener, registry, stop.clone()))
        });
        let address = self.listener.local_addr().unwrap_or(self.config.listen);
        let (pem, stopped) = (self.pem, stop.clone());
        let listener = self.listener;
        let mut server =
            tokio::spawn(async move { server::serve(listener, &pem, parts, stopped).await });
        tracing::info!(%address, "serving");
        let served = tokio::select! {
            () = shutdown.cancelled() => None,
            served = &mut server => Some(served),
        };
        shutdown.cancel();
        let (reaped, measured) = tokio::join!(reaper, meter);
        self.manager.close().await;
        stop.cancel();
        let served = match served {
            Some(served) => served,
            None => match tokio::time::timeout(DRAIN, &mut server).await {
                Ok(served) => served,
                Err(_) => {
                    tracing::warn!("calls are still open: closing their connections");
                    server.abort();
                    Ok(Ok(()))
                }
            },
        };
        if let Some(metrics) = metrics {
            metrics.await.map_err(|_| Error::Panicked)?;
        }
        self.networks.close().await?;
        reaped.and(measured).map_err(|_| Error::Panicked)?;
        tracing::info!("stopped, nothing is left on this host");
        Ok(served.map_err(|_| Error::Panicked)??)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn settings(config: &Config, network: net::Plan, resolvers: Vec<Ipv4Addr>) -> Settings {
    let capacity = config.capacity;
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let cpus = std::thread::available_parallelism()
        .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    Settings {
        instance: config.name.clone(),
        network,
        resolvers,
        egress_private: config.egress_private,
        bandwidth_kbit: config.bandwidth_kbit,
        uid_base: config.uid_base,
        ready_timeout: config.ready_timeout,
        creates_at_once: match config.creates_at_once {
            0 => usize::try_from(cpus).unwrap_or(usize::MAX).clamp(2, CREATES_MAX),
            creates => creates.min(CREATES_MAX),
        },
        limits: Limits {
            sandboxes: capacity.sandboxes,
            total: Shape {
                vcpus: or(capacity.vcpus, cpus.saturating_mul(VCPUS_PER_CPU)),
                memory_mb: or(capacity.memory_mb, memory_total_mb() / 4 * 3),
            },
        },
        largest: Shape { vcpus: capacity.sandbox_vcpus, memory_mb: capacity.sandbox_memory_mb },
        disk_mb_max: capacity.sandbox_disk_mb,
    }
}

fn memory_total_mb() -> u32 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    u32::try_from(kib.unwrap_or(0) / 1024).unwrap_or(u32::MAX)
}

async fn import_kernel(config: &Config, data: &Arc<DataDir>) -> Result<Kernel, Error> {
    let (image, initrd) = (config.kernel.clone(), config.initrd.clone());
    let data = data.clone();
    let imported = tokio::task::spawn_blocking(move || {
        let kernel = Kernel::import(&data, &image, &initrd)?;
        kernel.sweep_others(&data)?;
        Ok(kernel)
    });
    imported.await.map_err(|_| Error::Panicked)?
}

/// Removes machines, networks and directories of an agent that was killed.
async fn sweep(data: &DataDir, networks: &dyn Networks) -> Result<(), Error> {
    let dir = data.sandboxes();
    let failed = |source| Error::Sweep { path: dir.clone(), source };
    let root = dir.clone();
    let killed = tokio::task::spawn_blocking(move || vm::kill_all_below(&root, None))
        .await
        .map_err(|_| Error::Panicked)?
        .map_err(failed)?;
    let slots = networks.list().await?;
    for slot in &slots {
        networks.remove(*slot).await?;
    }
    networks.close().await?;
    let directories = remove_entries(&dir).map_err(failed)?;
    if killed.len() + slots.len() + directories > 0 {
        tracing::warn!(
            machines = killed.len(),
            networks = slots.len(),
            directories,
            "removed what an earlier agent left behind"
        );
    }
    Ok(())
}

fn remove_entries(dir: &Path) -> std::io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(dir)? {
        Directory::remove(&entry?.path())?;
        removed += 1;
    }
    Ok(removed)
}

/// Logs an error of the agent with its chain, and returns the process's exit code.
pub fn exit_code(result: Result<(), Error>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = telemetry::chain(&error), "agent ended");
            std::process::ExitCode::FAILURE
        }
    }
}
