//! A private Redis.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Port, Process,
    certificates::Files,
    process::{self, Program},
};

const READY: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);

/// How it keeps its data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Append each write to a file and flush it before answering; else a kill loses everything, as with
    /// Debian's own settings.
    pub append_only: bool,
}

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    program: Program,
    process: Process,
    port: Port,
    has_tls: bool,
}

impl Redis {
    /// Starts `redis-server` on a free port with its data in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When the program is missing or is not ready in time; the message ends with its log.
    pub async fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        Self::start_with(dir, options, None).await
    }

    /// As [`Redis::start`], for clients that speak TLS, who need no certificates; `files` are the server's.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_tls(dir: &Path, options: Options, files: &Files) -> anyhow::Result<Self> {
        Self::start_with(dir, options, Some(files)).await
    }

    async fn start_with(dir: &Path, options: Options, tls: Option<&Files>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let port = Port::reserve()?;
        let yes_or_no = if options.append_only { "yes" } else { "no" };
        let (plain, ciphered) = match tls {
            None => (port.number(), 0),
            Some(_) => (0, port.number()),
        };
        let mut program = Program::new("redis", server()?, dir.join("redis.log"))
            .args(["--bind", "127.0.0.1", "--port", &plain.to_string(), "--daemonize", "no"])
            .args(["--appendonly", yes_or_no, "--appendfsync", "always"])
            .args(["--save", "", "--dir"])
            .arg(dir);
        if let Some(files) = tls {
            program = program
                .args(["--tls-port", &ciphered.to_string(), "--tls-auth-clients", "no"])
                .arg("--tls-cert-file")
                .arg(&files.cert)
                .arg("--tls-key-file")
                .arg(&files.key)
                .arg("--tls-ca-cert-file")
                .arg(&files.ca);
        }
        let process = Process::start(program.clone())?;
        let has_tls = tls.is_some();
        let mut redis = Self { program, process, port, has_tls };
        redis.ready().await?;
        Ok(redis)
    }

    /// `redis://127.0.0.1:<port>/`, `rediss://…` where it speaks TLS.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}/", self.port)
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

    /// Starts it again on the same port and data; ends it first when it still runs.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.process = Process::start(self.program.clone())?;
        self.ready().await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let (port, has_tls) = (self.port.number(), self.has_tls);
        let probe = || async move {
            match has_tls {
                // Clients do the rest.
                true => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok(),
                false => ping(port).await.is_ok(),
            }
        };
        self.process.ready(READY, probe).await
    }
}

async fn ping(port: u16) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    connection.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"+PONG\r\n", "still loading");
    Ok(())
}

fn server() -> anyhow::Result<PathBuf> {
    process::find("redis-server").context("package redis-server is needed: `cargo dev setup`")
}
