//! `cargo dev openapi`: the API's documents, `openapi.json` from the code and `asyncapi.yaml` by hand.
//!
//! Written or, with `--check`, compared; then both are linted, and the first is held against every released one.

pub mod compatibility;

use std::path::PathBuf;

use anyhow::Context;
use fs_err as fs;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    cache::write_whole,
    program,
    progress::Ui,
    setup::tools::{self, Tools},
    tree,
};

const LINTER: &str = "@stoplight/spectral-cli/dist/index.js";

/// The folder of the documents.
pub fn folder() -> PathBuf {
    tree::root().join("openapi")
}

/// Writes `openapi.json`, or compares it with what the code says; and looks whether both documents are as they must be.
///
/// # Errors
/// With everything that is wrong, and what to do about it.
pub async fn run(ui: &Ui, check: bool) -> anyhow::Result<()> {
    let tools = tools::ensure(ui).await?;
    let text = printed(ui).await?;
    let path = folder().join("openapi.json");
    let mut troubles = Vec::new();
    if check {
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        troubles.extend(drift(&checked_in, &text));
    } else {
        write_whole(&path, text.as_bytes())?;
        ui.line(format!("{} is what the code says", path.display()));
    }
    let document =
        serde_json::from_str(&text).context("the API prints a document that is no JSON")?;
    troubles.extend(breaking(&document)?);
    let step = ui.step("lint openapi.json and asyncapi.yaml");
    match lint(&tools).await {
        Ok(()) => step.done(""),
        Err(error) => troubles.push(error.to_string()),
    }
    anyhow::ensure!(troubles.is_empty(), "{}", troubles.join("\n\n"));
    Ok(())
}

/// The document as the code says it.
async fn printed(ui: &Ui) -> anyhow::Result<String> {
    let step = ui.step("build ovenbird-api");
    let mut build = tree::cargo();
    build.args(["build", "--package", "ovenbird-api", "--bin", "ovenbird-api"]);
    program::run(&step, build).await?;
    let mut print = Command::new(tree::binary("ovenbird-api"));
    print.arg("openapi");
    let text = program::output(print).await?;
    step.done("");
    Ok(text)
}

/// The first line in which the two differ.
fn drift(checked_in: &str, said: &str) -> Option<String> {
    if checked_in == said {
        return None;
    }
    let mut lines = checked_in.lines().zip(said.lines()).zip(1..);
    let (there, here, at) = lines.find(|((there, here), _)| there != here).map_or_else(
        || ("its end", "more or less", checked_in.lines().count()),
        |((there, here), at)| (there.trim(), here.trim(), at),
    );
    Some(format!(
        "openapi/openapi.json is not what the code says: line {at} is `{there}` and should be `{here}`.\n\
         Run `cargo dev openapi`, then `cargo dev sdk`, and commit what they write."
    ))
}

fn breaking(document: &Value) -> anyhow::Result<Option<String>> {
    let mut found = Vec::new();
    for path in released()? {
        let released = serde_json::from_str(&fs::read_to_string(&path)?)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let breaks = compatibility::breaks(&released, document);
        found.extend(breaks.iter().map(|it| format!("  against {name}: {it}")));
    }
    Ok((!found.is_empty()).then(|| {
        format!(
            "This breaks clients of a released version:\n{}\n\
             Keep what was there and add beside it, or give the new form a path of its own (`/v2/…`).",
            found.join("\n")
        )
    }))
}

/// The documents of all released versions.
fn released() -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder().join("released"))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut documents: Vec<_> = paths.into_iter().filter(is_json).collect();
    documents.sort();
    anyhow::ensure!(!documents.is_empty(), "openapi/released holds no document to compare with");
    Ok(documents)
}

async fn lint(tools: &Tools) -> anyhow::Result<()> {
    let mut command = tools.node(LINTER);
    command
        .current_dir(folder())
        .args(["lint", "--ruleset", "tools/spectral.yaml", "--fail-severity", "hint"])
        .args(["--format", "stylish", "openapi.json", "asyncapi.yaml"]);
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await?;
    anyhow::ensure!(
        output.status.success(),
        "The linter is not content (rules: openapi/tools/spectral.yaml; examples: api/src/http/example.rs):\n{}{}",
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::drift;

    #[test]
    fn drift_names_the_first_line_that_differs_and_the_remedy() {
        assert_eq!(drift("{\n}\n", "{\n}\n"), None);
        let told = drift("{\n  \"a\": 1\n}\n", "{\n  \"a\": 2\n}\n").unwrap();
        assert!(told.contains("line 2 is `\"a\": 1` and should be `\"a\": 2`"), "{told}");
        assert!(told.contains("cargo dev openapi"), "{told}");
        assert!(drift("{\n", "{\n}\n").is_some());
    }
}
