//! `cargo dev test`: set-up, the programs, then every test of the workspace.

use std::process::Stdio;

use anyhow::Context;

use crate::{cache::Artifacts, platform::require_root, progress::Ui, setup, tree};

/// With this in their environment, tests that take minutes do not count as ignored.
const ALL: &str = "OVENBIRD_TEST_ALL";

/// The Rust SDK's generated examples are fragments.
const DOCUMENTATION: [&str; 6] =
    ["test", "--quiet", "--workspace", "--doc", "--exclude", "ovenbird-sdk"];

/// Runs the tests whose names match `filters`, or every one; with `all` also those that take minutes. The runner's own
/// summary comes last.
///
/// # Errors
/// When a test fails.
pub async fn run(ui: &Ui, all: bool, filters: &[String]) -> anyhow::Result<()> {
    require_root()?;
    let artifacts = setup::run(ui, setup::Again::default()).await?;
    setup::tools::ensure(ui).await?;
    setup::deploy::ensure(ui).await?;
    // Cargo builds the programs that the end-to-end tests start together with these.
    let nextest = tree::cargo().args(["nextest", "--version"]).output().await;
    let nextest = nextest.is_ok_and(|output| output.status.success());
    let mut failed = Vec::new();
    if nextest {
        failed.extend(run_one(&artifacts, all, &["nextest", "run", "--workspace"], filters).await?);
        // nextest runs no examples in documentation.
        if filters.is_empty() {
            failed.extend(run_one(&artifacts, all, &DOCUMENTATION, &[]).await?);
        }
    } else {
        ui.notice("cargo-nextest is not there: `cargo test` runs the tests, one after the other");
        let args = ["test", "--workspace", "--no-fail-fast", "--"];
        let one_by_one = [&["--test-threads=1".to_owned()], filters].concat();
        failed.extend(run_one(&artifacts, all, &args, &one_by_one).await?);
    }
    anyhow::ensure!(failed.is_empty(), "tests failed: {}", failed.join("; "));
    Ok(())
}

async fn run_one(
    artifacts: &Artifacts,
    all: bool,
    args: &[&str],
    filters: &[String],
) -> anyhow::Result<Option<String>> {
    let mut command = tree::cargo();
    command.args(args).args(filters).envs(artifacts.environment());
    if all {
        command.env(ALL, "1");
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let status = command.status().await.context("start cargo")?;
    let words =
        args.iter().take_while(|word| **word != "--").copied().collect::<Vec<_>>().join(" ");
    Ok((!status.success()).then(|| format!("cargo {words} ({status})")))
}
