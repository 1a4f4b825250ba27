//! A real host agent in the test's own process, whose sandboxes have no machines: everything around them is real.

use std::time::Duration;

use ovenbird_agent::Agent;
use ovenbird_agent_client::{Agents, SandboxInfo, Target};
use ovenbird_api::config::Config;
use ovenbird_contract::desk::TemplateKind;
use ovenbird_db::{
    Store,
    store::host::{Allocated, Capacity, Held, Report, Versions},
};
use ovenbird_kit::tls::Files;
use ovenbird_testkit::{Authority, Folder, Port, Reserved};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{SOON, World};

const NAME: &str = "agent.test";

/// A host with room for four sandboxes of the smallest size.
pub(crate) struct Host {
    target: Target,
    tls: Files,
    agents: Agents,
    shutdown: CancellationToken,
    agent: Option<JoinHandle<Result<(), ovenbird_agent::Error>>>,
    _port: Port,
    _number: Reserved,
    _folder: Folder,
}

impl Host {
    pub(crate) async fn start() -> Self {
        let folder = Folder::new("api-host").unwrap();
        let number = Reserved::one_of("agent", 880..960, |_| true).unwrap();
        let port = Port::reserve().unwrap();
        let image = folder.join("data/images/minimal");
        std::fs::create_dir_all(&image).unwrap();
        // Nobody looks into these.
        std::fs::File::create(image.join("rootfs.ext4")).unwrap().set_len(1 << 20).unwrap();
        for name in ["vmlinux", "initrd"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        let authority = Authority::new().unwrap();
        let tls = folder.join("tls");
        let agent = authority.write(&authority.server(&[NAME]).unwrap(), &tls, "agent").unwrap();
        let client = authority.write(&authority.client("api").unwrap(), &tls, "api").unwrap();
        let text = format!(
            "listen = '127.0.0.1:{port}'\nmetrics_listen = ''\ndata_dir = '{data}'\nkernel = '{kernel}'\n\
             initrd = '{initrd}'\nname = 't{number}'\nuid_base = {uid}\nhypervisor = 'memory'\nstorage = 'copy'\n\
             cgroups = 'off'\negress_dns = []\nsandboxes_on_exit = 'destroy'\n\
             [capacity]\nvcpus = 4\nmemory_mb = 4096\nsandbox_vcpus = 4\nsandbox_memory_mb = 2048\n\
             [tls]\nca = '{ca}'\ncert = '{cert}'\nkey = '{key}'\n",
            data = folder.join("data").display(),
            kernel = folder.join("vmlinux").display(),
            initrd = folder.join("initrd").display(),
            number = number.number(),
            uid = 6_000_000 + u32::from(number.number() - 800) * 4096,
            ca = agent.ca.display(),
            cert = agent.cert.display(),
            key = agent.key.display(),
        );
        let file = folder.join("agent.toml");
        std::fs::write(&file, text).unwrap();
        let config = ovenbird_kit::config::load(
            ovenbird_agent::config::DEFAULTS,
            Some(&file),
            "OVENBIRD_NO_SUCH",
        );
        let agent = Agent::start(config.unwrap()).await.unwrap();
        let shutdown = CancellationToken::new();
        let agent = Some(tokio::spawn(agent.run(shutdown.clone())));
        let tls = Files { ca: client.ca, cert: client.cert, key: client.key };
        let agents = Agents::new(&tls, ovenbird_agent_client::Config::default()).unwrap();
        let target = Target { address: format!("127.0.0.1:{port}"), server_name: NAME.into() };
        Self { target, tls, agents, shutdown, agent, _port: port, _number: number, _folder: folder }
    }

    pub(crate) fn address(&self) -> &str {
        &self.target.address
    }

    /// Says to the store what a bridge would say.
    pub(crate) async fn report(&self, store: &Store) {
        let info = self.agents.at(&self.target).unwrap().get_host().await.unwrap();
        let kind = |kind: &str| match kind {
            "image" => TemplateKind::Image,
            _ => TemplateKind::Snapshot,
        };
        let report = Report {
            address: self.target.address.clone(),
            server_name: self.target.server_name.clone(),
            capacity: Capacity {
                vcpus: info.vcpus,
                memory_mb: info.memory_mb,
                max_sandbox_vcpus: info.max_sandbox_vcpus,
                max_sandbox_memory_mb: info.max_sandbox_memory_mb,
                disk_free_bytes: info.disk_free_bytes,
            },
            allocated: Allocated::default(),
            versions: Versions::default(),
            templates: info
                .templates
                .into_iter()
                .map(|held| Held {
                    host_name: held.name,
                    kind: kind(&held.kind),
                    size_bytes: held.size_bytes,
                })
                .collect(),
        };
        store.host_report(&report, Duration::ZERO).await.unwrap();
    }

    pub(crate) async fn sandboxes(&self) -> Vec<SandboxInfo> {
        self.agents.at(&self.target).unwrap().list_sandboxes().await.unwrap()
    }

    /// Its agent ends, with everything on it.
    pub(crate) async fn goes(&mut self) {
        self.shutdown.cancel();
        let agent = self.agent.take().unwrap();
        tokio::time::timeout(SOON, agent).await.unwrap().unwrap().unwrap();
    }
}

impl World {
    /// A world whose api may call a host that offers `minimal`; `change` changes its configuration besides.
    pub(crate) async fn with_agent(change: impl FnOnce(&mut Config)) -> (Self, Host) {
        let host = Host::start().await;
        let tls = host.tls.clone();
        let world = Self::with(|config| {
            config.agents.tls = Some(tls);
            change(config);
        })
        .await;
        host.report(&world.store).await;
        (world, host)
    }
}
