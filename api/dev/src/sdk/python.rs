//! Python: `openapi-python-client`, whose output `ruff` puts in order.

use std::path::Path;

use crate::{program, progress::Step, setup::tools::Tools};

pub(super) async fn generate(
    step: &Step,
    tools: &Tools,
    document: &Path,
    into: &Path,
) -> anyhow::Result<()> {
    let mut command = tools.python();
    command
        .args(["-m", "openapi_python_client", "generate", "--meta", "none", "--overwrite"])
        // What it cannot express is a failure, not a hole in the client.
        .arg("--fail-on-warning")
        .arg("--path")
        .arg(document)
        .arg("--output-path")
        .arg(into)
        .current_dir(into);
    program::run(step, command).await?;
    let cache = into.join(".ruff_cache");
    if cache.exists() {
        fs_err::remove_dir_all(cache)?;
    }
    Ok(())
}
