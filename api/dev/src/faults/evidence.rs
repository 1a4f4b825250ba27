//! What is kept of a seed that does not hold: `.ovenbird/faults/seed-N`, until it runs again.

use std::path::PathBuf;

use fs_err as fs;
use serde_json::{Value, json};

use super::{load::Load, verdict};
use crate::{api::Api, platform::Platform, tree};

/// Copies the logs of all processes, and writes down each build with its log. Answers where.
///
/// # Errors
/// When a file cannot be written, or a log not be read.
pub(super) async fn keep(
    platform: &Platform,
    api: &Api,
    builds: &[(Load, Value)],
    seed: u64,
) -> anyhow::Result<PathBuf> {
    let folder = tree::scratch().join("faults").join(format!("seed-{seed}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for log in fs::read_dir(platform.logs())? {
        let log = log?;
        fs::copy(log.path(), folder.join(log.file_name()))?;
    }
    for (load, build) in builds {
        let told = json!({ "build": build, "log": verdict::records(api, &load.id).await? });
        fs::write(folder.join(format!("{}.json", load.name)), format!("{told:#}"))?;
    }
    Ok(folder)
}
