//! The whole platform on one machine, as processes with mTLS, with services and folders of its own.
//!
//! `cargo dev up`, the demo and the end-to-end tests all start it here, so what is tested is what runs. It
//! configures and starts the processes; what they do is theirs.
//!
//! ```text
//!  start: services ─ migrate, admin key ─ bridge ─ api ─ agents' disk, base image ─ agents, which register ─ runners
//!  stop:  runners ─ api, bridge ─ agents (they destroy their microVMs) ─ services ─ disk ─ folder
//! ```

pub mod apart;
pub(crate) mod config;
pub(crate) mod disk;
pub mod leftovers;
pub mod member;
mod options;
pub mod part;
pub mod place;
pub mod record;
mod runners;
mod settings;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use fs_err as fs;
use nix::unistd::Uid;
use ovenbird_contract::nats_access::Role;
use ovenbird_testkit::{
    Authority, Cluster, Port, Postgres, Redis, Reserved,
    certificates::Files,
    nats, postgres,
    process::{Program, tail},
    redis, wait_for,
};
use tokio::process::Command;

pub use self::options::{Hypervisor, Options};
use self::{
    apart::Apart,
    disk::Disk,
    member::{Kind, Member},
    place::Place,
    record::{Agent, Record},
};
use crate::{
    api::Api,
    cache::Artifacts,
    program,
    progress::{Step, Ui},
    tree,
};

const READY: Duration = Duration::from_secs(60);
/// Between two starts of a service that does not stay up.
const SERVICE_PAUSE: Duration = Duration::from_secs(2);
/// Spans reach a collector after this many milliseconds.
const SPANS_WITHIN_MS: &str = "200";
/// The base template that every platform has.
pub const BASE_TEMPLATE: &str = "minimal";

/// A running platform. Dropped, it ends as well, only with less patience.
#[derive(Debug)]
pub struct Platform {
    // The order of the fields is the order in which they are dropped.
    members: Vec<Member>,
    nats: Cluster,
    redis: Redis,
    postgres: Postgres,
    disk: Disk,
    place: Place,
    agents: Vec<AgentPlace>,
    api_port: Port,
    admin_key: String,
    client: Files,
    options: Options,
    /// A service that ended is not started again before this.
    services_again_at: Instant,
}

/// Where one agent is, before and after it starts.
#[derive(Debug)]
struct AgentPlace {
    port: Port,
    /// For Prometheus.
    metrics_port: Port,
    /// Told by the api, once the host is announced.
    server_name: String,
    /// Its network, where it has one of its own.
    apart: Option<Apart>,
    /// Makes its name, addresses and user ids differ from those of every other agent on this machine.
    number: Reserved,
}

/// Asked before anything is installed or compiled, which takes minutes.
///
/// # Errors
/// When this process is not root's.
pub fn require_root() -> anyhow::Result<()> {
    anyhow::ensure!(
        Uid::effective().is_root(),
        "microVMs need root (network namespaces, taps, mounts): run this as root"
    );
    Ok(())
}

impl Platform {
    /// Starts everything and waits until a build could run. The programs must have been built.
    ///
    /// # Errors
    /// With the log of what did not start. Nothing stays behind.
    pub async fn start(ui: &Ui, artifacts: &Artifacts, options: Options) -> anyhow::Result<Self> {
        require_root()?;
        leftovers::clear(ui, &tree::scratch()).await?;
        let step = ui.step("start the platform");
        let place = Place::create(&tree::scratch(), options.kind)?;
        let dir = place.path();
        let logs = dir.join("logs");
        fs::create_dir(&logs)?;

        step.message("Postgres, Redis, NATS");
        let seeds = dir.join("nats-access");
        let mut access = Command::new(binary(&options, "ovenbird-api"));
        access.arg("nats-access").arg("--tools").arg(&seeds);
        program::output(access).await?;
        let (durable, nats_servers) = (options.durable, options.nats_servers.max(1));
        let (postgres, redis, mut nats) = tokio::try_join!(
            async {
                let options = postgres::Options { durable, ..Default::default() };
                Postgres::start(&dir.join("postgres"), options).await
            },
            async {
                let options = redis::Options { append_only: durable };
                Redis::start(&dir.join("redis"), options).await
            },
            async {
                let options = nats::Options {
                    server: Some(artifacts.nats_server.clone()),
                    include: Some(seeds.join("access.conf")),
                    websocket: true,
                    ..nats::Options::default()
                };
                Cluster::start(dir, nats_servers, options).await
            },
        )?;
        for service in ["postgres", "redis"] {
            let log = format!("{service}.log");
            fs::os::unix::fs::symlink(dir.join(service).join(&log), logs.join(log))?;
        }
        for server in nats.servers() {
            let name = server.name().unwrap_or("nats").to_owned();
            let log = server.process().program().log.clone();
            fs::os::unix::fs::symlink(log, logs.join(format!("{name}.log")))?;
        }

        step.message("certificates, disk");
        let authority = Authority::new()?;
        let client =
            authority.write(&authority.client("dev.ovenbird")?, &dir.join("tls"), "dev")?;
        let disk = Disk::prepare(ui, &dir.join("hosts")).await?;
        let reserve = |_| AgentPlace::reserve(options.apart);
        let agents = (0..options.agents).map(reserve).collect::<anyhow::Result<_>>()?;

        let mut platform = Self {
            members: Vec::new(),
            nats,
            redis,
            postgres,
            disk,
            agents,
            api_port: Port::reserve()?,
            admin_key: String::new(),
            services_again_at: Instant::now(),
            client,
            options,
            place,
        };
        match platform.start_members(&step, artifacts, &authority, options).await {
            Ok(()) => {
                step.done(&platform.url());
                Ok(platform)
            }
            Err(error) => {
                let tails = platform.log_tails(12);
                platform.stop(ui).await?;
                Err(error.context(tails))
            }
        }
    }

    async fn start_members(
        &mut self,
        step: &Step,
        artifacts: &Artifacts,
        authority: &Authority,
        options: Options,
    ) -> anyhow::Result<()> {
        let dir = self.place.path().to_owned();
        let api = config::write(&dir, "api", &self.api_config(authority).await?)?;
        step.message("migrations");
        let ovenbird_api = self.binary("ovenbird-api");
        let mut migrate = Command::new(&ovenbird_api);
        migrate.arg("migrate").arg("--config").arg(&api);
        program::run(step, migrate).await?;
        let mut create = Command::new(&ovenbird_api);
        create.args(["key", "create", "--scope", "admin", "--name", "dev", "--config"]).arg(&api);
        program::output(create).await?.trim().clone_into(&mut self.admin_key);

        let bridge = config::write(&dir, "bridge", &self.bridge_config(authority, options)?)?;
        self.launch(Kind::Bridge, None, &bridge)?;
        self.launch(Kind::Api, None, &api)?;
        let client = self.api()?;
        for at in 0..self.agents.len() {
            step.message(&format!("agent {} of {}", at + 1, self.agents.len()));
            let name = format!("agent-{}", at + 1);
            self.until("the api to announce a host", || async {
                client.hosts().await.is_ok().then_some(())
            })
            .await?;
            let announced = client.host_create(&name).await?;
            let config = self.agent_config(at, artifacts, &announced).await?;
            self.launch(Kind::Agent, Some(at + 1), &config)?;
        }
        let runner = config::write(&dir, "runner", &self.runner_config(authority, options)?)?;
        for at in 0..options.runners {
            self.launch(Kind::Runner, Some(at + 1), &runner)?;
        }
        step.message("api");
        self.until(&format!("{}/readyz to find every service", self.url()), || async {
            client.ready().await.then_some(())
        })
        .await?;
        step.message("hosts");
        // The bridge has spoken with an agent, and the agent has booted its probe, when the template is there.
        self.until("the base template to be listed", || async {
            let templates = client.templates().await.ok()?;
            templates.iter().any(|template| template["name"] == BASE_TEMPLATE).then_some(())
        })
        .await
    }

    /// Waits for `probe`, and gives up as soon as a process has ended.
    async fn until<F, Fut>(&mut self, what: &str, probe: F) -> anyhow::Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Option<()>>,
    {
        let members = std::sync::Mutex::new(&mut self.members);
        let outcome = wait_for(what, READY, || async {
            let ended = {
                let mut members = members.lock().ok()?;
                members.iter_mut().find_map(|member| {
                    let status = member.process().ended()?;
                    Some(format!("{} ended ({status})", member.name()))
                })
            };
            match ended {
                Some(ended) => Some(Err(anyhow::anyhow!(ended))),
                None => probe().await.map(Ok),
            }
        });
        outcome.await?
    }

    fn launch(&mut self, kind: Kind, number: Option<usize>, config: &Path) -> anyhow::Result<()> {
        self.launch_with(kind, number, config, &[])
    }

    fn launch_with(
        &mut self,
        kind: Kind,
        number: Option<usize>,
        config: &Path,
        variables: &[(String, String)],
    ) -> anyhow::Result<()> {
        let name = match number {
            Some(number) => format!("{}-{number}", kind.as_str()),
            None => kind.as_str().to_owned(),
        };
        let log = self.logs().join(format!("{name}.log"));
        let binary = self.binary(&format!("ovenbird-{}", kind.as_str()));
        let agent = number.filter(|_| kind == Kind::Agent).and_then(|it| self.agents.get(it - 1));
        let namespace = agent.and_then(|agent| apart::namespace(agent.number.number()));
        let program = match namespace {
            Some(namespace) => within(&namespace, name, &binary, log),
            None => Program::new(name, binary, log),
        };
        let mut program = program.args(["serve", "--config"]).arg(config);
        if !self.options.json_logs {
            // Tests read them.
            program = program.env("OVENBIRD_LOG_FORMAT", "text");
        }
        if self.options.otlp_port.is_some() {
            program = program.env("OTEL_BSP_SCHEDULE_DELAY", SPANS_WITHIN_MS);
        }
        for (key, value) in variables {
            program = program.env(key, value);
        }
        self.members.push(Member::start(kind, program)?);
        Ok(())
    }

    fn binary(&self, name: &str) -> PathBuf {
        binary(&self.options, name)
    }

    /// One of its processes of ours, by its name: `runner-2`.
    pub fn member(&mut self, name: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.name() == name)
    }

    /// NATS.
    pub fn nats(&mut self) -> &mut Cluster {
        &mut self.nats
    }

    /// Base URL of the REST API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// A client of the REST API with the admin key.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn api(&self) -> anyhow::Result<Api> {
        Api::new(self.url(), &self.admin_key)
    }

    /// The folder of the log files.
    pub fn logs(&self) -> PathBuf {
        self.place.path().join("logs")
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Copies the logs of all processes into `.ovenbird/<name>`, which is emptied before. Answers where that is.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn keep_logs(&self, name: &str) -> anyhow::Result<PathBuf> {
        let kept = tree::scratch().join(name);
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::create_dir_all(&kept)?;
        for log in fs::read_dir(self.logs())? {
            let log = log?;
            fs::copy(log.path(), kept.join(log.file_name()))?;
        }
        Ok(kept)
    }

    /// The last lines of every log of our own processes.
    pub fn log_tails(&mut self, lines: usize) -> String {
        let tail_of = |member: &mut Member| {
            let log = tail(&member.process().program().log, lines);
            format!("--- {}\n{log}\n", member.name())
        };
        self.members.iter_mut().map(tail_of).collect()
    }

    /// Where everything is.
    pub fn record(&mut self) -> Record {
        let mut pids: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for member in &mut self.members {
            pids.entry(member.kind.as_str().into()).or_default().push(member.process().pid());
        }
        let nats = self.nats.servers().iter_mut().map(|server| server.process().pid()).collect();
        pids.insert("nats".into(), nats);
        pids.insert("redis".into(), vec![self.redis.process().pid()]);
        pids.insert("postgres".into(), vec![self.postgres.process().pid()]);
        let agents = self.agents.iter().map(|agent| Agent {
            address: agent.address(),
            server_name: agent.server_name.clone(),
            ca: self.client.ca.clone(),
            cert: self.client.cert.clone(),
            key: self.client.key.clone(),
        });
        Record {
            api: self.url(),
            admin_key: self.admin_key.clone(),
            nats: self.nats.first().url(),
            nats_websocket: self.nats.first().websocket_url().unwrap_or_default(),
            nats_seed: self.nats_seed(Role::Tools),
            redis: self.redis.url(),
            database: self.postgres.url_of("ovenbird"),
            agents: agents.collect(),
            pids,
            logs: self.logs(),
        }
    }

    /// Starts again what has died, each process after a pause that doubles up to ten seconds. Says what it saw
    /// and did; an empty answer means that nothing changed.
    pub async fn look_after(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for member in &mut self.members {
            match member.look_after() {
                Ok(line) => said.extend(line),
                Err(error) => said.push(format!("{}: {error:#}", member.name())),
            }
        }
        if Instant::now() < self.services_again_at {
            return said;
        }
        let before = said.len();
        if let Some(status) = self.postgres.process().ended() {
            said.push(again("postgres", &status.to_string(), self.postgres.restart().await));
        }
        if let Some(status) = self.redis.process().ended() {
            said.push(again("redis", &status.to_string(), self.redis.restart().await));
        }
        let mut servers = self.nats.servers().iter_mut();
        if let Some(status) = servers.find_map(|server| server.process().ended()) {
            said.push(again("nats", &status.to_string(), self.nats.restart().await));
        }
        if said.len() > before {
            self.services_again_at = Instant::now() + SERVICE_PAUSE;
        }
        said
    }

    /// Ends everything in order and removes its folder.
    ///
    /// # Errors
    /// When a process had to be killed, or something could not be removed; the rest was ended all the same.
    pub async fn stop(mut self, ui: &Ui) -> anyhow::Result<()> {
        let step = ui.step("stop the platform");
        let mut troubles = Vec::new();
        troubles.extend(self.revive_agents().await.err());
        for group in [&[Kind::Runner][..], &[Kind::Api, Kind::Bridge], &[Kind::Agent]] {
            let names: Vec<&str> = group.iter().map(|kind| kind.as_str()).collect();
            step.message(&names.join(", "));
            let patience = group[0].patience();
            let stops = self
                .members
                .iter_mut()
                .filter(|member| group.contains(&member.kind))
                .map(|member| member.process().stop(patience));
            let outcomes = futures::future::join_all(stops).await;
            troubles.extend(outcomes.into_iter().filter_map(Result::err));
        }
        step.message("Postgres, Redis, NATS");
        let outcomes = tokio::join!(self.postgres.stop(), self.redis.stop(), self.nats.stop());
        troubles.extend([outcomes.0, outcomes.1, outcomes.2].into_iter().filter_map(Result::err));
        step.message("disk and folder");
        let Self { members, nats, redis, postgres, disk, place, agents, .. } = self;
        drop((members, nats, redis, postgres, disk, agents));
        troubles.extend(place.remove().err());
        let texts: Vec<String> = troubles.iter().map(|trouble| format!("{trouble:#}")).collect();
        anyhow::ensure!(texts.is_empty(), "not everything ended in order: {}", texts.join("; "));
        step.done("");
        Ok(())
    }
}

fn binary(options: &Options, name: &str) -> PathBuf {
    if options.release { tree::release_binary(name) } else { tree::binary(name) }
}

/// A program that runs in the network of `namespace`; the rest of its world is everybody's.
pub(super) fn within(namespace: &Path, name: String, binary: &Path, log: PathBuf) -> Program {
    let namespace = format!("--net={}", namespace.display());
    Program::new(name, "nsenter", log).arg(namespace).arg("--").arg(binary)
}

fn again(name: &str, status: &str, outcome: anyhow::Result<()>) -> String {
    match outcome {
        Ok(()) => format!("{name} ended ({status}) and was started again"),
        Err(error) => format!("{name} ended ({status}) and does not start: {error:#}"),
    }
}

impl AgentPlace {
    fn reserve(apart: bool) -> anyhow::Result<Self> {
        let number = Reserved::one_of("agent", 0..800, |_| true).context("number an agent")?;
        let apart = if apart { Some(Apart::create(number.number())?) } else { None };
        let (port, metrics_port) = (Port::reserve()?, Port::reserve()?);
        Ok(Self { port, metrics_port, server_name: String::new(), apart, number })
    }

    fn address(&self) -> String {
        let ip = self.apart.as_ref().map_or(Ipv4Addr::LOCALHOST, Apart::address);
        format!("{ip}:{}", self.port)
    }
}
