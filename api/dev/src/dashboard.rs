//! The dashboard's tools: Node's packages, pinned by `package-lock.json`; the build that the api embeds; and Vite's own
//! server, which shows a change at once.
//!
//! Each thing is made only when what it is made from changed, so that nothing here needs the network twice.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use fs_err as fs;
use tokio::process::{Child, Command};

use crate::{cache, program, progress::Ui, tree};

/// What Vite needs.
const NODE_MIN: (u32, u32) = (20, 19);
/// Holds the digest of what `node_modules` was made from.
const INSTALLED: &str = "node_modules/.ovenbird";
/// Holds the digest of what the build was made from.
const BUILT: &str = "dist/.ovenbird";
/// What the build is made from, beside the API's document.
const SOURCES: [&str; 8] = [
    "index.html",
    "package.json",
    "package-lock.json",
    "public",
    "src",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
];
/// Written by the build itself.
const GENERATED: &str = "schema.d.ts";

/// Where the dashboard's sources are.
pub fn folder() -> PathBuf {
    tree::root().join("api/dashboard")
}

/// Whether a Node and an npm are there that can build it.
pub async fn node_is_there() -> bool {
    let node = Command::new("node").arg("--version").output().await;
    let new = node.is_ok_and(|output| new_enough(&String::from_utf8_lossy(&output.stdout)));
    let npm = Command::new("npm").arg("--version").stdin(Stdio::null()).output().await;
    new && npm.is_ok_and(|output| output.status.success())
}

/// Installs Node's packages and builds the dashboard, each only when it is missing or old.
///
/// # Errors
/// With the failing program's last lines.
pub async fn ensure(ui: &Ui) -> anyhow::Result<()> {
    install(ui).await?;
    if is_fresh(BUILT, &built_from()?) {
        return Ok(());
    }
    build(ui).await
}

/// Installs what the lock file names, if that is not there.
///
/// # Errors
/// When Node is too old, or npm fails.
pub async fn install(ui: &Ui) -> anyhow::Result<()> {
    let lock = fs::read(folder().join("package-lock.json"))?;
    let key = cache::digest(&[&lock]);
    if is_fresh(INSTALLED, &key) {
        return Ok(());
    }
    let (major, minor) = NODE_MIN;
    anyhow::ensure!(
        node_is_there().await,
        "the dashboard needs Node {major}.{minor} or newer with npm; Debian 13 has it (nodejs, npm)"
    );
    let step = ui.step("fetch the dashboard's packages");
    let mut command = npm();
    command
        .args(["ci", "--no-audit", "--no-fund"])
        // The tests use Debian's browser.
        .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1");
    program::run(&step, command).await?;
    fs::write(folder().join(INSTALLED), key)?;
    step.done("");
    Ok(())
}

/// Builds the dashboard into `api/dashboard/dist/page`, whatever is there.
///
/// # Errors
/// With the failing program's last lines.
pub async fn build(ui: &Ui) -> anyhow::Result<()> {
    let key = built_from()?;
    let step = ui.step("build the dashboard");
    let mut command = npm();
    command.args(["run", "build"]);
    program::run(&step, command).await?;
    fs::write(folder().join(BUILT), key)?;
    step.done("");
    Ok(())
}

/// Vite's server before a running api. It ends when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts one; it is there within a second or two.
    ///
    /// # Errors
    /// When Node does not start, or no port is free.
    pub async fn start(ui: &Ui, api: &str) -> anyhow::Result<Self> {
        let step = ui.step("dashboard with hot reload");
        let mut types = npm();
        types.args(["run", "types"]);
        program::run(&step, types).await?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log: std::fs::File =
            fs::File::create(tree::scratch().join("dashboard-dev.log"))?.into();
        let child = Command::new("node")
            .arg("node_modules/vite/bin/vite.js")
            .args(["--port", &port.to_string()])
            .current_dir(folder())
            .env("OVENBIRD_API", api)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start Vite")?;
        step.done("");
        Ok(Self { child, address: format!("http://127.0.0.1:{port}/admin/templates") })
    }

    /// Where the dashboard is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Says once that it ended by itself.
    pub fn look_after(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("Vite ended with {status}; see .ovenbird/dashboard-dev.log"))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

fn npm() -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder()).env("NO_UPDATE_NOTIFIER", "1");
    command
}

fn is_fresh(stamp: &str, key: &str) -> bool {
    fs::read_to_string(folder().join(stamp)).is_ok_and(|found| found == key)
}

/// A key for everything that the build is made from.
fn built_from() -> anyhow::Result<String> {
    let mut files = vec![tree::root().join("openapi/openapi.json")];
    for source in SOURCES {
        collect(&folder().join(source), &mut files)?;
    }
    files.sort();
    let mut parts = Vec::with_capacity(files.len() * 2);
    for file in &files {
        parts.push(file.to_string_lossy().into_owned().into_bytes());
        parts.push(fs::read(file)?);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(cache::digest(&parts))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if !path.ends_with(GENERATED) {
        files.push(path.to_owned());
    }
    Ok(())
}

/// Whether a version like `v20.19.2` is at least [`NODE_MIN`].
fn new_enough(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= NODE_MIN,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_new_enough_from_20_19_on() {
        for (version, answer) in [
            ("v20.19.2\n", true),
            ("v18.20.4", false),
            ("v20.9.0", false),
            ("v24.0.0", true),
            ("", false),
        ] {
            assert_eq!(new_enough(version), answer, "{version}");
        }
    }

    #[test]
    fn the_build_is_made_from_sources_and_not_from_what_it_writes() {
        let mut files = Vec::new();
        collect(&folder().join("src"), &mut files).unwrap();
        assert!(files.iter().any(|file| file.ends_with("main.ts")));
        assert!(!files.iter().any(|file| file.ends_with(GENERATED)));
    }
}
