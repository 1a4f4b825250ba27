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
    pub(crate) folder: Folder,
    _port: Port,
    _number: Reserved,
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_by(Authority::new().unwrap(), |folder, authority| {
            let files = authority.server(&[NAME]).unwrap();
            let agent = authority.write(&files, &folder.join("tls"), "agent").unwrap();
            let (ca, cert, key) = (agent.ca.display(), agent.cert.display(), agent.key.display());
            format!("[tls]\nca = '{ca}'\ncert = '{cert}'\nkey = '{key}'\n")
        })
        .await
    }

    /// With the section by which its agent comes to a certificate, and clients of this authority.
    pub(crate) async fn start_by(
        authority: Authority,
        identity: impl FnOnce(&Folder, &Authority) -> String,
    ) -> Self {
        let mut host = Self::prepare_by(authority, identity);
        host.comes().await;
        host
    }

    /// Everything but the agent.
    pub(crate) fn prepare(identity: impl FnOnce(&Folder, &Authority) -> String) -> Self {
        Self::prepare_by(Authority::new().unwrap(), identity)
    }

    fn prepare_by(
        authority: Authority,
        identity: impl FnOnce(&Folder, &Authority) -> String,
    ) -> Self {
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
        let tls = folder.join("tls");
        let client = authority.write(&authority.client("api").unwrap(), &tls, "api").unwrap();
        let identity = identity(&folder, &authority);
        let text = format!(
            "listen = '127.0.0.1:{port}'\nmetrics_listen = ''\ndata_dir = '{data}'\nkernel = '{kernel}'\n\
             initrd = '{initrd}'\nname = 't{number}'\nuid_base = {uid}\nhypervisor = 'memory'\nstorage = 'copy'\n\
             cgroups = 'off'\negress_dns = []\nsandboxes_on_exit = 'destroy'\n\
             [capacity]\nvcpus = 4\nmemory_mb = 4096\nsandbox_vcpus = 4\nsandbox_memory_mb = 2048\n\
             {identity}",
            data = folder.join("data").display(),
            kernel = folder.join("vmlinux").display(),
            initrd = folder.join("initrd").display(),
            number = number.number(),
            uid = 6_000_000 + u32::from(number.number() - 800) * 4096,
        );
        std::fs::write(folder.join("agent.toml"), text).unwrap();
        let tls = Files { ca: client.ca, cert: client.cert, key: client.key };
        let agents = Agents::new(&tls, ovenbird_agent_client::Config::default()).unwrap();
        let target = Target { address: format!("127.0.0.1:{port}"), server_name: NAME.into() };
        let shutdown = CancellationToken::new();
        Self { target, tls, agents, shutdown, agent: None, folder, _port: port, _number: number }
    }

    /// Its agent, or why it does not start.
    pub(crate) async fn try_start(&self) -> Result<Agent, ovenbird_agent::Error> {
        let config = ovenbird_kit::config::load(
            ovenbird_agent::config::DEFAULTS,
            Some(&self.folder.join("agent.toml")),
            "OVENBIRD_NO_SUCH",
        );
        Agent::start(config.unwrap()).await
    }

    /// Its agent starts.
    pub(crate) async fn comes(&mut self) {
        let agent = self.try_start().await.unwrap();
        self.shutdown = CancellationToken::new();
        self.agent = Some(tokio::spawn(agent.run(self.shutdown.clone())));
    }

    /// Calls it under another name than the usual.
    pub(crate) fn agent_named(&self, name: &str) -> ovenbird_agent_client::Agent {
        // Not one that is connected already.
        let agents = Agents::new(&self.tls, ovenbird_agent_client::Config::default()).unwrap();
        agents
            .at(&Target { address: self.target.address.clone(), server_name: name.into() })
            .unwrap()
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
