//! A private Postgres cluster.
//!
//! As root it runs as the user `postgres` of Debian's package, else as whoever runs us. The password of its
//! superuser is random and stands in a file in the cluster's folder.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::signal::Signal,
    unistd::{Gid, Uid, User, chown},
};
use rand::RngCore;
use tokio::process::Command;

use crate::{
    Port, Process,
    certificates::Leaf,
    process::{self, Program},
};

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const STATEMENT: Duration = Duration::from_secs(60);
const SUPERUSER: &str = "postgres";

/// How it runs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Flush to disk on commit. Without it a crash of the *machine* may cost data, a crash of Postgres not.
    pub durable: bool,
    /// Most connections at once.
    pub connections_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { durable: false, connections_max: 200 }
    }
}

/// A running Postgres.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    password: String,
    program: Program,
    process: Process,
    port: Port,
}

impl Postgres {
    /// Starts a cluster on a free port with its data in `dir` (made when there is none), and waits until it
    /// takes connections.
    ///
    /// # Errors
    /// When Postgres is not installed, `dir` cannot be reached by its user, or it is not ready in time; the
    /// message ends with its log.
    pub async fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        Self::start_with(dir, options, None).await
    }

    /// As [`Postgres::start`]; clients may also speak TLS and need no certificates, `leaf` is the server's.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_tls(dir: &Path, options: Options, leaf: &Leaf) -> anyhow::Result<Self> {
        Self::start_with(dir, options, Some(leaf)).await
    }

    async fn start_with(dir: &Path, options: Options, tls: Option<&Leaf>) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let binaries = binaries()?;
        let user = unprivileged_user()?;
        let data = dir.join("data");
        let log = dir.join("postgres.log");
        if let Some((user, group)) = user {
            reachable(&dir)?;
            chown(&dir, Some(user), Some(group))?;
        }
        let password = password(&dir.join("password"), user)?;
        if !data.join("PG_VERSION").exists() {
            initialize(&binaries, &dir, user).await?;
        }
        let port = Port::reserve()?;
        let on_or_off = if options.durable { "on" } else { "off" };
        let mut program = Program::new("postgres", binaries.join("postgres"), log)
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("port={port}")])
            .args(["-c", &format!("max_connections={}", options.connections_max)])
            .args(["-c", &format!("fsync={on_or_off}")])
            .args(["-c", &format!("synchronous_commit={on_or_off}")])
            .args(["-c", &format!("full_page_writes={on_or_off}")])
            .args(["-c", "shared_buffers=32MB", "-c", "jit=off", "-c", "timezone=UTC"]);
        if let Some(leaf) = tls {
            let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
            fs::write(&cert, &leaf.certificate)?;
            // It refuses a key that others may read.
            own_file(&key, &leaf.key, user)?;
            program = program
                .args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", cert.display())])
                .args(["-c", &format!("ssl_key_file={}", key.display())]);
        }
        program.user = user;
        program.dir = Some(dir);
        // "Immediate" when we die or drop it: it ends its children and removes its shared memory. "Fast" else.
        program.death_signal = Signal::SIGQUIT;
        program.stop_signal = Signal::SIGINT;
        let process = Process::start(program.clone())?;
        let mut postgres = Self { binaries, password, program, process, port };
        postgres.ready().await?;
        Ok(postgres)
    }

    /// URL of the database `postgres`, with the superuser's password.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// URL of a database, with the superuser's password.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Makes an empty database and returns its URL.
    ///
    /// # Errors
    /// When there is one of that name.
    pub async fn database(&self, name: &str) -> anyhow::Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE {}", quoted(name))).await?;
        Ok(self.url_of(name))
    }

    /// Makes a database as a copy of `template` and returns its URL. Migrate one database, drop its
    /// connections, and give each test a copy: some 50 ms instead of all the migrations.
    ///
    /// # Errors
    /// When there is one of that name, or somebody stays connected to the template for over 10 s.
    pub async fn database_from(&self, template: &str, name: &str) -> anyhow::Result<String> {
        let statement = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.sql("postgres", &statement).await {
                Ok(_) => return Ok(self.url_of(name)),
                Err(error) if !error.to_string().contains("is being accessed") => {
                    return Err(error);
                }
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Runs statements by `psql` and returns what they print, columns separated by `|`.
    ///
    /// # Errors
    /// With what `psql` says, when one fails.
    pub async fn sql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let output = Command::new(self.binaries.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"])
            .args(["-p", &self.port.to_string(), "-U", SUPERUSER, "-d", database, "-c", statements])
            .env("PGPASSWORD", &self.password)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(STATEMENT, output).await.context("psql hangs")??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        anyhow::ensure!(output.status.success(), "psql: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it in order: clients are disconnected, everything is written.
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
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        // After a kill its children need a moment to notice; until then a new one refuses to start.
        let end = Instant::now() + READY;
        loop {
            self.process = Process::start(self.program.clone())?;
            match self.ready().await {
                Err(error) if still_ending(&error) && Instant::now() < end => {}
                other => return other,
            }
        }
    }

    /// Postgres itself writes `ready` into the last line of its pid file; `pg_ctl` waits for the same.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let file = self.program.dir.clone().unwrap_or_default().join("data/postmaster.pid");
        let pid = self.process.pid().to_string();
        let probe = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let ready = lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready");
            std::future::ready(ready)
        };
        self.process.ready(READY, probe).await
    }
}

fn still_ending(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains("pre-existing shared memory block")
        || text.contains("lock file \"postmaster.pid\" already exists")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The newest installed version's programs: Debian keeps them out of `PATH`.
fn binaries() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter(|version| version.path().join("bin/initdb").is_file())
        .max_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    if let Some(version) = newest {
        return Ok(version.path().join("bin"));
    }
    let initdb =
        process::find("initdb").context("package postgresql is needed: `cargo dev setup`")?;
    Ok(initdb.canonicalize()?.parent().map(Path::to_owned).unwrap_or_default())
}

/// Postgres refuses to run as root.
fn unprivileged_user() -> anyhow::Result<Option<(Uid, Gid)>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user = User::from_name(SUPERUSER)?
        .context("no user `postgres`: package postgresql is needed: `cargo dev setup`")?;
    Ok(Some((user.uid, user.gid)))
}

/// Its user must be able to enter every folder above.
fn reachable(dir: &Path) -> anyhow::Result<()> {
    for folder in dir.ancestors().skip(1) {
        let mode = fs::metadata(folder)?.permissions().mode();
        anyhow::ensure!(
            mode & 0o001 != 0,
            "Postgres runs as the user `{SUPERUSER}`, who may not enter {}: use another folder",
            folder.display()
        );
    }
    Ok(())
}

fn own_file(file: &Path, text: &str, user: Option<(Uid, Gid)>) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    io::Write::write_all(&mut new, text.as_bytes())?;
    if let Some((user, group)) = user {
        chown(file, Some(user), Some(group))?;
    }
    Ok(())
}

fn password(file: &Path, user: Option<(Uid, Gid)>) -> anyhow::Result<String> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut new) => {
            let mut bytes = [0; 16];
            rand::rng().fill_bytes(&mut bytes);
            io::Write::write_all(&mut new, hex::encode(bytes).as_bytes())?;
            if let Some((user, group)) = user {
                chown(file, Some(user), Some(group))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("write {}", file.display())),
    }
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

async fn initialize(binaries: &Path, dir: &Path, user: Option<(Uid, Gid)>) -> anyhow::Result<()> {
    // A cluster that was only half made by a killed run would be refused.
    let half = dir.join("data");
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    let mut program = Program::new("initdb", binaries.join("initdb"), dir.join("initdb.log"))
        .args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"])
        .arg(format!("--username={SUPERUSER}"))
        .arg(format!("--pwfile={}", dir.join("password").display()))
        .arg("-D")
        .arg(&half);
    program.user = user;
    program.dir = Some(dir.to_owned());
    let mut process = Process::start(program)?;
    let status = process.wait(READY).await.context("initdb hangs")?;
    anyhow::ensure!(status.success(), "initdb ended ({status}):\n{}", process.log_tail(20));
    Ok(())
}
