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
}

impl Redis {
    /// Starts `redis-server` on a free port with its data in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When the program is missing or is not ready in time; the message ends with its log.
    pub async fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let port = Port::reserve()?;
        let yes_or_no = if options.append_only { "yes" } else { "no" };
        let program = Program::new("redis", server()?, dir.join("redis.log"))
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"])
            .args(["--appendonly", yes_or_no, "--appendfsync", "always"])
            .args(["--save", "", "--dir"])
            .arg(dir);
        let process = Process::start(program.clone())?;
        let mut redis = Self { program, process, port };
        redis.ready().await?;
        Ok(redis)
    }

    /// `redis://127.0.0.1:<port>/`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
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
        let port = self.port.number();
        self.process.ready(READY, || async move { ping(port).await.is_ok() }).await
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
