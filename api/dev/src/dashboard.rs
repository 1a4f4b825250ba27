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

use crate::{
    cache::{self, Cache},
    program,
    progress::Ui,
    setup::node::{self, Node},
    tree,
};

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

/// Installs Node's packages and builds the dashboard, each only when it is missing or old.
///
/// # Errors
/// With the failing program's last lines.
pub async fn ensure(ui: &Ui, node: &Node) -> anyhow::Result<()> {
    install(ui, node).await?;
    if is_fresh(BUILT, &built_from()?) {
        return Ok(());
    }
    build(ui, node).await
}

/// Installs what the lock file names, if that is not there.
///
/// # Errors
/// When npm fails.
pub async fn install(ui: &Ui, node: &Node) -> anyhow::Result<()> {
    let lock = fs::read(folder().join("package-lock.json"))?;
    let key = cache::digest(&[node::VERSION.as_bytes(), &lock]);
    if is_fresh(INSTALLED, &key) {
        return Ok(());
    }
    let step = ui.step("fetch the dashboard's packages");
    let mut command = npm(node);
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
pub async fn build(ui: &Ui, node: &Node) -> anyhow::Result<()> {
    let key = built_from()?;
    let step = ui.step("build the dashboard");
    let mut command = npm(node);
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
        let node = Node::locate(&Cache::open()?)?;
        let mut types = npm(&node);
        types.args(["run", "types"]);
        program::run(&step, types).await?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log: std::fs::File =
            fs::File::create(tree::scratch().join("dashboard-dev.log"))?.into();
        let child = node
            .script(&folder().join("node_modules/vite/bin/vite.js"))
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

fn npm(node: &Node) -> Command {
    let mut command = node.npm();
    command.current_dir(folder());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_made_from_sources_and_not_from_what_it_writes() {
        let mut files = Vec::new();
        collect(&folder().join("src"), &mut files).unwrap();
        assert!(files.iter().any(|file| file.ends_with("main.ts")));
        assert!(!files.iter().any(|file| file.ends_with(GENERATED)));
    }
}
