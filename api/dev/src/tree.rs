//! The source tree: where it is, and building what is in it.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{program, progress::Ui};

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// What git ignores: runs, caches.
pub fn scratch() -> PathBuf {
    root().join(".ovenbird")
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    // This program stands in `<target>/<profile>/` or, as a test, in `<target>/<profile>/deps/`.
    let program = std::env::current_exe().unwrap_or_default();
    let profile = program.parent().map(|folder| {
        if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }
    });
    profile.and_then(Path::parent).map_or_else(|| root().join("target"), Path::to_owned)
}

/// A program of the platform, as `cargo build` leaves it.
pub fn binary(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// The same, as `cargo build --release` leaves it.
pub fn release_binary(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// A cargo command in the tree, free of what an outer `cargo run` put into the environment.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let foreign = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
        if foreign.iter().any(|prefix| name.starts_with(prefix)) || name == "LD_LIBRARY_PATH" {
            command.env_remove(&key);
        }
    }
    command.current_dir(root());
    command
}

/// Builds every program of the platform; quick when they are fresh.
///
/// # Errors
/// With the compiler's last lines.
pub async fn build(ui: &Ui) -> anyhow::Result<()> {
    build_profile(ui, "dev").await
}

/// The same, with a profile.
///
/// # Errors
/// With the compiler's last lines.
pub async fn build_profile(ui: &Ui, profile: &str) -> anyhow::Result<()> {
    let step = ui.step(format!("build api, bridge, runner, agent ({profile})"));
    let mut command = cargo();
    command.args(["build", "--bins", "--profile", profile]);
    for package in ["ovenbird-api", "ovenbird-bridge", "ovenbird-runner", "ovenbird-agent"] {
        command.args(["--package", package]);
    }
    program::run(&step, command).await?;
    step.done("");
    Ok(())
}
