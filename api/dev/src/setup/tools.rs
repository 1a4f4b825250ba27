//! What works on the API's documents and SDKs: Node.js with the linter and the TypeScript generator, and Python with its
//! generator. All pinned in `openapi/tools`; a change there makes a new entry in the cache.
//!
//! The platform itself needs none of it, so `cargo dev up` and the demo do not fetch it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fs_err as fs;
use tokio::process::Command;

use super::{
    node::{self, Node},
    wheel,
};
use crate::{
    cache::{Cache, digest},
    program,
    progress::Ui,
    tree,
};

const MODULES: &str = "openapi-node";
const PYTHON: &str = "openapi-python";

/// Where the tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    node: Node,
    modules: PathBuf,
    python: PathBuf,
}

impl Tools {
    /// Those that the last set-up made.
    ///
    /// # Errors
    /// When there was none since `openapi/tools` changed.
    pub fn locate(cache: &Cache) -> anyhow::Result<Self> {
        let entry = |kind: &str, key: &str| {
            cache.get(kind, key).with_context(|| {
                format!("the set-up is missing or incomplete ({kind}): run `cargo dev setup`")
            })
        };
        Ok(Self {
            node: Node::locate(cache)?,
            modules: entry(MODULES, &modules_key()?)?,
            python: entry(PYTHON, &python_key()?)?,
        })
    }

    /// A command that runs a program of a package in JavaScript: `@scope/name/bin/program.js`.
    pub fn node(&self, script: &str) -> Command {
        self.node.script(&self.node_modules().join(script))
    }

    /// A command that runs a script of ours in JavaScript.
    pub fn script(&self, script: &Path) -> Command {
        self.node.script(script)
    }

    /// The packages, for a folder that needs them beside it.
    pub fn node_modules(&self) -> PathBuf {
        self.modules.join("node_modules")
    }

    /// A command that runs Python with the packages; programs beside it are found by name.
    pub fn python(&self) -> Command {
        let bin = self.python.join("bin");
        let mut command = Command::new(bin.join("python"));
        let others = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin).chain(std::env::split_paths(&others));
        if let Ok(path) = std::env::join_paths(paths) {
            command.env("PATH", path);
        }
        // What is imported from the source tree leaves nothing there.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The tools, fetched where they are not there.
///
/// # Errors
/// With the last lines of what failed.
pub async fn ensure(ui: &Ui) -> anyhow::Result<Tools> {
    let cache = Cache::open()?;
    let _lock = cache.lock(ui).await?;
    if let Ok(tools) = Tools::locate(&cache) {
        return Ok(tools);
    }
    let node = node::ensure(ui, &cache).await?;
    let key = modules_key()?;
    if cache.get(MODULES, &key).is_none() {
        install_modules(ui, &cache, &node, &key).await?;
    }
    let key = python_key()?;
    if cache.get(PYTHON, &key).is_none() {
        install_python(ui, &cache, &key).await?;
    }
    Tools::locate(&cache)
}

async fn install_modules(ui: &Ui, cache: &Cache, node: &Node, key: &str) -> anyhow::Result<()> {
    let step = ui.step("install the packages of openapi/tools/package-lock.json");
    let bench = cache.workbench()?;
    let entry = bench.path().join("entry");
    fs::create_dir(&entry)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(pinned(file), entry.join(file))?;
    }
    let mut command = node.npm();
    // No script of a package is needed, and none is run.
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&entry);
    program::run(&step, command).await?;
    cache.put(MODULES, key, &entry)?;
    cache.prune(MODULES, 2)?;
    step.done("");
    Ok(())
}

async fn install_python(ui: &Ui, cache: &Cache, key: &str) -> anyhow::Result<()> {
    let step = ui.step("install the packages of openapi/tools/requirements.txt");
    let bench = cache.workbench()?;
    let entry = bench.path().join("entry");
    let python = wheel::virtual_python(&step, &entry).await?;
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "install", "--require-hashes", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-r"])
        .arg(pinned("requirements.txt"));
    program::run(&step, command).await?;
    cache.put(PYTHON, key, &entry)?;
    cache.prune(PYTHON, 2)?;
    step.done("");
    Ok(())
}

fn modules_key() -> anyhow::Result<String> {
    let lock = fs::read(pinned("package-lock.json"))?;
    Ok(digest(&[node::VERSION.as_bytes(), &lock]))
}

fn python_key() -> anyhow::Result<String> {
    Ok(digest(&[&fs::read(pinned("requirements.txt"))?]))
}

fn pinned(file: &str) -> PathBuf {
    tree::root().join("openapi/tools").join(file)
}
