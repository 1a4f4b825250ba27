//! The whole agent: checks its host, takes over from an earlier one, serves, and leaves its sandboxes to the next one,
//! or nothing.
//!
//! ```text
//!  start: certificate ─► host is fit ─► take over ─► listen ─► serve
//!  SIGTERM, keep:        no new sandboxes ─► work in progress ends ─► calls end ─► sandboxes stay
//!  SIGTERM, destroy;
//!  Terminate:            no new sandboxes ─► all are destroyed ─► calls end ─► nothing is left
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ovenbird_host::{cgroup, net, storage, vm};
use ovenbird_kit::{metrics, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, OnExit},
    data_dir::{self, DataDir},
    kernel::{self, Kernel},
    means::{self, Opened},
    registration::{self, Renewal},
    resolver,
    sandbox::{self, Limits, Manager, Settings, Shape},
    server::{self, Acceptor, Fences, Parts},
    template::{self, Templates},
};

/// For calls that are open when everything else has ended.
const DRAIN: Duration = Duration::from_secs(5);
/// For sandboxes that are being made, saved, paused or removed when the agent ends and leaves them.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);
/// Sandboxes made at the same time, at most.
const CREATES_MAX: usize = 1000;

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
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Registration(#[from] registration::Error),
    #[error("the agent's certificate cannot be used")]
    Tls(#[from] server::TlsError),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error("the fences in {} cannot be read", path.display())]
    Fences {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "storage is {wanted:?}, but there are sandboxes with disks of {found:?}: set it to that or to \"auto\", or destroy them"
    )]
    Storage { wanted: &'static str, found: &'static str },
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("a task of the agent panicked")]
    Panicked,
}

/// An agent that is ready to serve. [`Agent::run`] it, or what it prepared stays on the host.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    acceptor: Acceptor,
    renewal: Option<Renewal>,
    listener: TcpListener,
    /// Where metrics are served, if anywhere.
    metrics_listener: Option<TcpListener>,
    manager: Manager,
    fences: Fences,
    opened: Opened,
}

impl Agent {
    /// Checks the host, takes over an earlier agent's sandboxes and clears the rest away.
    ///
    /// # Errors
    /// Says what is missing. The sandboxes of an earlier agent are what they were.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let data = Arc::new(DataDir::open(&config.data_dir)?);
        let shown = registration::open(&config, &data).await?;
        let acceptor = Acceptor::new(&shown.pem)?;
        let network = net::Plan::new(config.name.clone(), config.subnet);
        let resolvers = resolver::addresses(&config.egress_dns);
        let templates = Arc::new(Templates::new(data.clone()));
        let kernel = import_kernel(&config, &data).await?;
        let opened = means::open(&config, &data, &network, &resolvers, &kernel).await?;
        let path = data.fences();
        let fences = Fences::open(config.fences, &path);
        let fences = fences.map_err(|source| Error::Fences { path, source })?;
        let settings = settings(&config, network, resolvers);
        let manager = Manager::new(settings, data, opened.means.clone(), templates, kernel);
        manager.take_over().await?;
        means::sweep_cgroups(&config, &manager.slots())?;
        // Whoever can connect sees no sandbox on its way, and may rely on the rest being gone.
        let listener = listen(config.listen).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        opened.means.networks.open().await?;
        tracing::info!(
            hypervisor = opened.version,
            accelerator = opened.accelerator.0,
            reason = opened.accelerator.1,
            storage = manager.storage_driver(),
            cgroups = opened.means.cgroups.version(),
            kernel = manager.kernel().digest(),
            "host is fit"
        );
        let renewal = shown.renewal;
        Ok(Self { config, acceptor, renewal, listener, metrics_listener, manager, fences, opened })
    }

    /// Serves until `shutdown` is cancelled, or `Terminate` is called; then leaves the sandboxes to the next agent, or
    /// destroys them and removes what is on the host.
    ///
    /// # Errors
    /// When the server fails; all of that is done all the same.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let (stop, terminate) = (CancellationToken::new(), CancellationToken::new());
        if self.config.sandboxes_on_exit == OnExit::Destroy {
            terminate.cancel();
        }
        let parts = Parts {
            manager: self.manager.clone(),
            qemu_version: self.opened.version,
            accelerator: self.opened.accelerator,
            cgroups: means::cgroups_text(&self.opened.means.cgroups),
            fences: self.fences,
            message_max: self.config.message_max_bytes,
            file_idle_timeout: self.config.file_idle_timeout,
            file_streams: self.config.file_streams,
            shutdown: shutdown.clone(),
            terminate: terminate.clone(),
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
        let renewal = self
            .renewal
            .map(|renewal| tokio::spawn(renewal.run(self.acceptor.clone(), shutdown.clone())));
        let mut server =
            tokio::spawn(server::serve(self.listener, self.acceptor, parts, stop.clone()));
        tracing::info!(%address, "serving");
        let served = tokio::select! {
            () = shutdown.cancelled() => None,
            served = &mut server => Some(served),
        };
        shutdown.cancel();
        let (reaped, measured) = tokio::join!(reaper, meter);
        let mut left = 0;
        if !terminate.is_cancelled() {
            left = self.manager.leave(LEAVE_PATIENCE).await;
        }
        if terminate.is_cancelled() {
            self.manager.close().await;
        }
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
        self.opened.means.volumes.close().await;
        for task in [metrics, renewal].into_iter().flatten() {
            task.await.map_err(|_| Error::Panicked)?;
        }
        reaped.and(measured).map_err(|_| Error::Panicked)?;
        if terminate.is_cancelled() {
            // The call may have come last.
            self.manager.close().await;
        }
        if terminate.is_cancelled() || left == 0 {
            self.opened.means.networks.close().await?;
            self.opened.means.cgroups.close()?;
            tracing::info!("stopped, nothing is left on this host");
        } else {
            self.opened.means.networks.leave().await?;
            tracing::info!(sandboxes = left, "stopped, the sandboxes are left to the next agent");
        }
        Ok(served.map_err(|_| Error::Panicked)??)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn settings(config: &Config, network: net::Plan, resolvers: Vec<Ipv4Addr>) -> Settings {
    let capacity = config.capacity;
    let host = host_shape();
    let cpus = host.vcpus;
    Settings {
        host,
        overcommit: (capacity.cpu_overcommit, capacity.memory_overcommit),
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
        limits: Limits { sandboxes: capacity.sandboxes, total: capacity.total(host) },
        largest: Shape { vcpus: capacity.sandbox_vcpus, memory_mb: capacity.sandbox_memory_mb },
        disk_mb_max: capacity.sandbox_disk_mb,
    }
}

/// What this machine has.
pub(crate) fn host_shape() -> Shape {
    let cpus = std::thread::available_parallelism()
        .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    Shape { vcpus: cpus, memory_mb: memory_total_mb() }
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
