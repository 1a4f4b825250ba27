//! TypeScript: `@hey-api/openapi-ts`, which brings its own small client over `fetch`.

use std::path::Path;

use crate::{openapi, program, progress::Step, setup::tools::Tools};

pub(super) async fn generate(
    step: &Step,
    tools: &Tools,
    document: &Path,
    into: &Path,
) -> anyhow::Result<()> {
    let mut command = tools.node("@hey-api/openapi-ts/bin/run.js");
    command
        .arg("--file")
        .arg(openapi::folder().join("tools/openapi-ts.config.mjs"))
        .arg("--no-log-file")
        .env("OVENBIRD_SPEC", document)
        .env("OVENBIRD_OUTPUT", into)
        .current_dir(into);
    program::run(step, command).await
}
