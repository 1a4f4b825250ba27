//! One real agent per test, in a folder of its own, with mutual TLS; and what is left of it on the host.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ovenbird_hostagent::v1::{self as host, host_agent_service_client::HostAgentServiceClient};
use ovenbird_testkit::{Authority, Folder, Port, Process, Reserved, process::Program, wait_for};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) type Client = HostAgentServiceClient<Channel>;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const NAME: &str = "agent.test";

/// A file that `cargo dev test` provides.
pub(crate) fn provided(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: run this by `cargo dev test`"));
    PathBuf::from(path)
}

/// How an agent is to differ from the usual.
#[derive(Default)]
pub(crate) struct Options {
    /// Another initramfs.
    pub(crate) initrd: Option<PathBuf>,
    /// Instead of one that also a busy machine keeps.
    pub(crate) ready_timeout: Option<&'static str>,
    /// Lines before its first section.
    pub(crate) settings: String,
    /// Where it listens, if not on the loopback alone.
    pub(crate) listen: Option<&'static str>,
    /// Lines of its `[capacity]`.
    pub(crate) capacity: String,
    /// Whether its sandboxes outlive it.
    pub(crate) keep: bool,
}

pub(crate) struct Host {
    // Ends before its folder goes.
    agent: Option<Process>,
    pub(crate) client: Client,
    authority: Authority,
    port: Port,
    pub(crate) instance: String,
    number: Reserved,
    pub(crate) folder: Folder,
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let folder = Folder::new("agent").unwrap();
        let number = Reserved::one_of("agent", 800..880, |_| true).unwrap();
        let port = Port::reserve().unwrap();
        let authority = Authority::new().unwrap();
        let instance = format!("t{}", number.number());
        let image = folder.join("data/images/minimal");
        std::fs::create_dir_all(&image).unwrap();
        let copied = Command::new("cp")
            .args(["--reflink=auto", "--sparse=always"])
            .arg(provided("OVENBIRD_IMAGE"))
            .arg(image.join("rootfs.ext4"))
            .status();
        assert!(copied.unwrap().success());
        let channel = connected(&authority, port.number());
        let client = HostAgentServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let mut host = Self { agent: None, client, authority, port, instance, number, folder };
        host.configure(&options);
        host.start_agent().await;
        host
    }

    fn configure(&self, options: &Options) {
        let leaf = self.authority.server(&[NAME]).unwrap();
        let tls = self.authority.write(&leaf, &self.folder.join("tls"), "agent").unwrap();
        let config = format!(
            "listen = '{listen}:{port}'\nmetrics_listen = '127.0.0.1:0'\ndata_dir = '{data}'\nkernel = '{kernel}'\n\
             initrd = '{initrd}'\nname = '{name}'\nsubnet = '{subnet}'\n\
             uid_base = {uid}\nready_timeout = '{ready}'\nsandboxes_on_exit = '{on_exit}'\n\
             {settings}\n[capacity]\n{capacity}\n\
             [tls]\nca = '{ca}'\ncert = '{cert}'\nkey = '{key}'\n",
            listen = options.listen.unwrap_or("127.0.0.1"),
            port = self.port,
            data = self.data().display(),
            kernel = provided("OVENBIRD_KERNEL").display(),
            initrd =
                options.initrd.clone().unwrap_or_else(|| provided("OVENBIRD_INITRD")).display(),
            name = self.instance,
            subnet = self.subnet(),
            uid = 6_000_000 + u32::from(self.number() - 800) * 4096,
            // A busy machine boots ten times slower than an idle one.
            ready = options.ready_timeout.unwrap_or("120s"),
            on_exit = if options.keep { "keep" } else { "destroy" },
            settings = options.settings,
            capacity = options.capacity,
            ca = tls.ca.display(),
            cert = tls.cert.display(),
            key = tls.key.display(),
        );
        std::fs::write(self.folder.join("agent.toml"), config).unwrap();
    }

    fn program(&self) -> Program {
        Program::new("agent", env!("CARGO_BIN_EXE_ovenbird-agent"), self.log())
            .arg("--config")
            .arg(self.folder.join("agent.toml"))
    }

    pub(crate) async fn start_agent(&mut self) {
        let mut agent = Process::start(self.program()).unwrap();
        let answers = || async {
            let mut client = self.client.clone();
            client.get_host(host::GetHostRequest {}).await.is_ok()
        };
        if let Err(error) = agent.ready(PATIENCE, answers).await {
            panic!("{error:#}\n{}", agent.log_tail(40));
        }
        self.agent = Some(agent);
    }

    /// The resident memory of the agent, in bytes.
    pub(crate) fn agent_bytes(&self) -> u64 {
        let pid = self.agent.as_ref().unwrap().pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The number that no other agent of a test has: of 800 to 879.
    pub(crate) fn number(&self) -> u16 {
        self.number.number()
    }

    /// Where its sandboxes' addresses come from.
    pub(crate) fn subnet(&self) -> String {
        let place = self.number() - 800;
        format!("10.{}.{}.0/20", 250 + place / 16, place % 16 * 16)
    }

    /// The port of its calls.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    /// A channel to the agent.
    pub(crate) fn channel(&self) -> Channel {
        connected(&self.authority, self.port.number())
    }

    /// A client that reaches the agent at another port.
    pub(crate) fn client_at(&self, port: u16) -> Client {
        HostAgentServiceClient::new(connected(&self.authority, port))
    }

    /// A way to the agent that can be cut.
    pub(crate) async fn proxy(&self) -> Proxy {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, agent) = (listener.local_addr().unwrap().port(), self.port.number());
        let task = tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(("127.0.0.1", agent)).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        Proxy { port, task }
    }

    /// What the kernel says of the agent's process.
    pub(crate) fn agent_status(&self) -> String {
        let pid = self.agent.as_ref().unwrap().pid();
        std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
    }

    /// A channel to the agent without a certificate.
    pub(crate) fn stranger(&self) -> Endpoint {
        endpoint(&self.authority, self.port.number(), None)
    }

    /// Ends the agent as the kernel does it.
    pub(crate) fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill();
    }

    /// Ends the agent in order, with or without its sandboxes.
    pub(crate) async fn stop_agent(&mut self) {
        self.agent.take().unwrap().stop(PATIENCE).await.unwrap();
    }

    /// Lets the agent destroy everything and end, as a caller does it; nothing may be left.
    pub(crate) async fn terminate(self) {
        self.client.clone().terminate(host::TerminateRequest {}).await.unwrap();
        self.ended().await;
    }

    /// Ends the agent in order; nothing may be left.
    pub(crate) async fn stop(mut self) {
        self.agent.take().unwrap().stop(PATIENCE).await.unwrap();
        self.assert_nothing_is_left();
        let log = self.log_text();
        assert!(log.contains("nothing is left on this host"), "{log}");
    }

    /// Waits for the agent's own end.
    pub(crate) async fn ended(mut self) {
        self.wait_for_end().await;
        self.assert_nothing_is_left();
    }

    /// The same, where more is looked at.
    pub(crate) async fn wait_for_end(&mut self) {
        let status = self.agent.take().unwrap().wait(PATIENCE).await.expect("the agent ends");
        assert!(status.success(), "{status}");
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        let mut left = self.left();
        left.extend(self.prepared());
        assert!(left.is_empty(), "left on the host: {left:?}\n{}", self.log_text());
        let groups = control_groups(&format!("ovenbird-{}", self.instance));
        assert!(groups.is_empty(), "left on the host: {groups:?}");
        let rules = Command::new("nft").args(["list", "tables"]).output().unwrap();
        let rules = String::from_utf8(rules.stdout).unwrap();
        let table = format!("ovb_{}", self.instance);
        assert!(!rules.lines().any(|line| line.ends_with(&table)), "{rules}");
    }

    /// The links of networks that are prepared for sandboxes to come.
    pub(crate) fn prepared(&self) -> Vec<String> {
        let prefix = format!("p-{}-", self.instance);
        let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        let names = links.map(|link| link.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Whatever belongs to a sandbox of this agent.
    pub(crate) fn left(&self) -> Vec<String> {
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mut left = Vec::new();
        let namespace = format!("ovb-{}-", self.instance);
        left.extend(
            names(Path::new("/run/netns")).into_iter().filter(|n| n.starts_with(&namespace)),
        );
        let interface = format!("v-{}-", self.instance);
        let interfaces = names(Path::new("/sys/class/net"));
        left.extend(interfaces.into_iter().filter(|name| name.starts_with(&interface)));
        left.extend(names(&self.data().join("sandboxes")));
        for kind in ["images", "snapshots"] {
            let drafts = names(&self.data().join(kind));
            left.extend(drafts.into_iter().filter(|name| name.starts_with('.')));
        }
        left.extend(self.machines().iter().map(|pid| format!("process {pid}")));
        for home in control_groups(&format!("ovenbird-{}", self.instance)) {
            let groups = names(&home).into_iter().filter(|name| home.join(name).is_dir());
            left.extend(groups.map(|slot| home.join(slot).display().to_string()));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&namespace)).map(str::to_owned));
        left
    }

    /// Processes that work in this agent's directory.
    pub(crate) fn machines(&self) -> Vec<String> {
        let data = self.data().canonicalize().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&data))
            })
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    pub(crate) async fn create(&self, template: &str, id: &str) -> host::CreateSandboxResponse {
        let request = sandbox(template, id);
        self.client.clone().create_sandbox(request).await.unwrap().into_inner()
    }

    pub(crate) async fn destroy(&self, id: &str) {
        let request = host::DestroySandboxRequest { sandbox_id: id.into(), fence: None };
        self.client.clone().destroy_sandbox(request).await.unwrap();
    }

    /// The guest's clock is the host's, give or take `most` seconds.
    pub(crate) async fn assert_clock(&self, id: &str, most: f64) {
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let asked = now();
        let clock: f64 = self.shell(id, "date +%s.%N").await.parse().unwrap();
        let right = asked - most..now() + most;
        assert!(right.contains(&clock), "the clock of {id} says {clock}, not {right:?}");
    }

    /// Runs a shell command that has to succeed, and returns what it wrote.
    pub(crate) async fn shell(&self, id: &str, script: &str) -> String {
        let answer = self.exec(id, script).await.unwrap();
        let stderr = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.exit_code, 0, "{script}: {stderr}");
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    pub(crate) async fn exec(
        &self,
        id: &str,
        script: &str,
    ) -> Result<host::ExecResponse, tonic::Status> {
        let request = host::ExecRequest {
            sandbox_id: id.into(),
            cmd: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            timeout_sec: 120,
            ..Default::default()
        };
        Ok(self.client.clone().exec(request).await?.into_inner())
    }

    pub(crate) async fn snapshot(&self, id: &str, name: &str) -> Result<i64, tonic::Status> {
        let request =
            host::CreateSnapshotRequest { sandbox_id: id.into(), name: name.into(), fence: None };
        Ok(self.client.clone().create_snapshot(request).await?.into_inner().size_bytes)
    }

    pub(crate) async fn flatten(&self, id: &str, name: &str) -> Result<i64, tonic::Status> {
        let request =
            host::FlattenRootfsRequest { sandbox_id: id.into(), name: name.into(), fence: None };
        Ok(self.client.clone().flatten_rootfs(request).await?.into_inner().size_bytes)
    }

    pub(crate) async fn pause(&self, id: &str) -> Result<(), tonic::Status> {
        let request = host::PauseSandboxRequest { sandbox_id: id.into() };
        self.client.clone().pause_sandbox(request).await.map(drop)
    }

    pub(crate) async fn resume(
        &self,
        id: &str,
        timeout_sec: i32,
    ) -> Result<host::ResumeSandboxResponse, tonic::Status> {
        let request = host::ResumeSandboxRequest { sandbox_id: id.into(), timeout_sec };
        Ok(self.client.clone().resume_sandbox(request).await?.into_inner())
    }

    /// Starts a shell script as a detached command.
    pub(crate) async fn start_exec(&self, id: &str, exec_id: &str, script: &str) {
        let request = host::StartExecRequest {
            sandbox_id: id.into(),
            exec_id: exec_id.into(),
            cmd: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            ..Default::default()
        };
        self.client.clone().start_exec(request).await.unwrap();
    }

    /// The guest's processes whose arguments match a pattern, which must not match itself.
    pub(crate) async fn processes(&self, id: &str, pattern: &str) -> usize {
        let script = format!(
            "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p; echo; done 2>/dev/null | grep -c '{pattern}'; true"
        );
        self.shell(id, &script).await.parse().unwrap()
    }

    pub(crate) async fn listed(&self, id: &str) -> Option<host::SandboxInfo> {
        let list = self.client.clone().list_sandboxes(host::ListSandboxesRequest::default()).await;
        let sandboxes = list.unwrap().into_inner().sandboxes;
        sandboxes.into_iter().find(|sandbox| sandbox.sandbox_id == id)
    }

    pub(crate) async fn status(&self, id: &str) -> Option<String> {
        self.listed(id).await.map(|found| found.status)
    }

    /// Returns once the sandbox has this status.
    pub(crate) async fn wait_for_status(&self, id: &str, wanted: &str) {
        wait_for(&format!("{id} to be {wanted}"), PATIENCE, || async {
            (self.status(id).await.as_deref() == Some(wanted)).then_some(())
        })
        .await
        .unwrap();
    }

    /// Returns once the sandbox is running no more, or gone: what comes next may pass by quickly.
    pub(crate) async fn runs_no_more(&self, id: &str) {
        wait_for(&format!("{id} to run no more"), PATIENCE, || async {
            (self.status(id).await.as_deref() != Some("running")).then_some(())
        })
        .await
        .unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A failed test: in order, so that its machines go, too.
        if let Some(agent) = &mut self.agent {
            end(agent);
            eprintln!("{}", agent.log_tail(60));
        }
        if !self.machines().is_empty() || !self.left().is_empty() {
            self.clear();
        }
    }
}

impl Host {
    /// Lets another agent destroy what this one has kept.
    fn clear(&self) {
        let path = self.folder.join("agent.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("'keep'", "'destroy'")).unwrap();
        let mut agent = Process::start(self.program()).unwrap();
        let (address, until) = (format!("127.0.0.1:{}", self.port), deadline());
        while std::net::TcpStream::connect(&address).is_err() && std::time::Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        end(&mut agent);
    }
}

fn deadline() -> std::time::Instant {
    std::time::Instant::now() + PATIENCE
}

fn end(agent: &mut Process) {
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    let until = deadline();
    while agent.ended().is_none() && std::time::Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A way to the agent; cut when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn sandbox(template: &str, id: &str) -> host::CreateSandboxRequest {
    host::CreateSandboxRequest {
        template: template.into(),
        sandbox_id: id.into(),
        memory_mb: 256,
        ..Default::default()
    }
}

/// The control groups of this name, in whatever hierarchies this host has.
pub(crate) fn control_groups(name: &str) -> Vec<PathBuf> {
    let (mut found, mut level) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    for _ in 0..8 {
        let entries = level.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten());
        let dirs =
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        level = dirs.map(|entry| entry.path()).collect();
        found.extend(level.iter().filter(|dir| dir.ends_with(name)).cloned());
    }
    found
}

fn endpoint(authority: &Authority, port: u16, identity: Option<Identity>) -> Endpoint {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.certificate()))
        .domain_name(NAME);
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap()
}

fn connected(authority: &Authority, port: u16) -> Channel {
    let leaf = authority.client("runner.test").unwrap();
    let identity = Identity::from_pem(leaf.certificate, leaf.key);
    endpoint(authority, port, Some(identity)).connect_lazy()
}
