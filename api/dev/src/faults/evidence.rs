//! What is kept of a seed that does not hold: `.ovenbird/faults/seed-N`, until it is run again.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use fs_err as fs;
use serde_json::{Value, json};

use super::verdict;
use crate::{platform::Platform, progress::Ui, tree};

/// The API may be what does not hold.
const BUILDS_MAX: Duration = Duration::from_secs(60);

fn folder(seed: u64) -> String {
    format!("faults/seed-{seed}")
}

/// Removes what an earlier run has left.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn clear(seed: u64) -> anyhow::Result<()> {
    let folder = tree::scratch().join(folder(seed));
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Copies the logs of all processes, and writes down each build with its log. What cannot be kept is told: the verdict
/// matters more.
pub(super) async fn keep(ui: &Ui, platform: &Platform, seed: u64) {
    let kept = match platform.keep_logs(&folder(seed)) {
        Ok(kept) => kept,
        Err(error) => return ui.line(format!("the logs cannot be kept: {error:#}")),
    };
    let builds = tokio::time::timeout(BUILDS_MAX, builds(platform, &kept)).await;
    if let Err(error) = builds.context("it took too long").flatten() {
        ui.line(format!("not every build can be kept: {error:#}"));
    }
    ui.line(format!("logs and builds are in {}", kept.display()));
}

async fn builds(platform: &Platform, kept: &Path) -> anyhow::Result<()> {
    let api = platform.api()?;
    for build in api.builds_all().await? {
        let id = build["id"].as_str().unwrap_or_default();
        let mut log = Vec::new();
        if let Err(error) = verdict::read(&api, id, &mut log).await {
            log.push(Value::String(format!("{error:#}")));
        }
        let told = json!({ "build": build, "log": log });
        fs::write(kept.join(format!("{id}.json")), format!("{told:#}"))?;
    }
    Ok(())
}
