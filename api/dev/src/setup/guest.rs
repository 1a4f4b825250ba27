//! The guest's initramfs: the guest agent as `/init` and the kernel's modules.

use std::path::PathBuf;

use anyhow::Context;
use fs_err as fs;

use super::kernel::Kernel;
use crate::{
    cache::{Cache, digest},
    initramfs::Archive,
    program,
    progress::Ui,
    tree,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Older initramfs stay for platforms that run with them.
const KEPT: usize = 3;

/// Builds the guest agent (quick when it is fresh) and packs it.
pub(super) async fn ensure(ui: &Ui, cache: &Cache, kernel: &Kernel) -> anyhow::Result<PathBuf> {
    let agent = build(ui).await?;
    let agent = fs::read(agent)?;
    let mut modules = Vec::new();
    for file in kernel.modules()? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        modules.push((name, fs::read(&file)?));
    }
    let mut archive = Archive::default();
    archive.folder("dev");
    archive.console("dev/console");
    archive.folder("modules");
    archive.program("init", &agent);
    for (name, module) in &modules {
        archive.file(&format!("modules/{name}"), module);
    }
    let bytes = archive.finish();
    let key = digest(&[&bytes]);
    if let Some(entry) = cache.get("initramfs", &key) {
        return Ok(entry.join("initramfs"));
    }
    let bench = cache.workbench()?;
    let entry = bench.path().join("entry");
    fs::create_dir(&entry)?;
    fs::write(entry.join("initramfs"), &bytes)?;
    let entry = cache.put("initramfs", &key, &entry)?;
    cache.prune("initramfs", KEPT)?;
    Ok(entry.join("initramfs"))
}

/// A static program: nothing else is in the initramfs. The explicit target keeps the flag away from
/// proc-macros, which cannot be static.
async fn build(ui: &Ui) -> anyhow::Result<PathBuf> {
    let step = ui.step("build the guest agent");
    let mut command = tree::cargo();
    command
        .args(["build", "--package", "ovenbird-guest", "--profile", "guest", "--target", TARGET])
        .args([
            "--config",
            &format!("target.{TARGET}.rustflags=[\"-C\",\"target-feature=+crt-static\"]"),
        ]);
    program::run(&step, command).await.context("build the guest agent")?;
    let program = tree::target().join(TARGET).join("guest/ovenbird-guest");
    step.done(&format!("{} KiB", fs::metadata(&program)?.len() / 1024));
    Ok(program)
}
