//! Rust: `progenitor`, in a program and a workspace of its own (`openapi/tools/progenitor`), and `rustfmt`.

use std::{path::Path, process::Stdio};

use anyhow::Context;
use fs_err as fs;
use tokio::process::Command;

use crate::{openapi, program, progress::Step, tree};

const GENERATOR: &str = "ovenbird-sdk-generator";

pub(super) async fn generate(step: &Step, document: &Path, into: &Path) -> anyhow::Result<()> {
    let mut build = tree::cargo();
    build
        .args(["build", "--locked", "--manifest-path"])
        .arg(openapi::folder().join("tools/progenitor/Cargo.toml"))
        .arg("--target-dir")
        .arg(tree::target());
    program::run(step, build).await?;
    let mut command = Command::new(tree::binary(GENERATOR));
    command.stdin(Stdio::from(std::fs::File::open(document)?)).kill_on_drop(true);
    let output = command.output().await.context("start the generator")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{GENERATOR} ended with {}: {said}", output.status);
    let file = into.join("mod.rs");
    fs::write(&file, &output.stdout)?;
    let mut format = Command::new("rustfmt");
    format.args(["--edition", "2024", "--config-path"]).arg(tree::root()).arg(&file);
    program::run(step, format).await
}
