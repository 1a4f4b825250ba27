//! schemathesis, for the test that holds the API against its specification: a Python environment of its own in
//! the cache, its packages pinned by hash. The tests find it there and need no network.

use std::path::PathBuf;

use fs_err as fs;
use ovenbird_testkit::schemathesis::{KIND, REQUIREMENTS, key};
use tokio::process::Command;

use crate::{cache::Cache, program, progress::Ui};

/// Older environments stay for trees that run with them.
const KEPT: usize = 2;

/// Makes the environment if it is not there.
pub(super) async fn ensure(ui: &Ui, cache: &Cache) -> anyhow::Result<()> {
    let key = key();
    if cache.get(KIND, &key).is_some() {
        return Ok(());
    }
    let step = ui.step("fetch schemathesis");
    let bench = cache.workbench()?;
    let environment = bench.path().join("environment");
    let system = PathBuf::from("/usr/bin/python3");
    let mut command = Command::new(if system.is_file() { system } else { "python3".into() });
    command.args(["-m", "venv"]).arg(&environment);
    program::run(&step, command).await?;

    let pinned = bench.path().join("requirements.txt");
    fs::write(&pinned, REQUIREMENTS)?;
    let mut command = Command::new(environment.join("bin/python"));
    command
        .args(["-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-r"])
        .arg(&pinned);
    program::run(&step, command).await?;

    cache.put(KIND, &key, &environment)?;
    cache.prune(KIND, KEPT)?;
    step.done("");
    Ok(())
}
