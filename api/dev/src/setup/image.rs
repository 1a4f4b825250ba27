//! The root disk of the base template `minimal`: Debian's smallest, with busybox (an HTTP server among
//! others) and the certificates that HTTPS needs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fs_err as fs;
use tokio::process::Command;

use crate::{
    cache::{Cache, digest},
    program,
    progress::Ui,
};

const PACKAGES: &str = "busybox,ca-certificates";
/// Sparse; a build can ask for more by `disk_mb`.
const SIZE: &str = "1G";
/// The journal and checksums cost writes and protect nothing here: a disk lives as long as its sandbox.
const FEATURES: &str = "^has_journal,^metadata_csum";
const OPTIONS: &str = "lazy_itable_init=1,root_owner=0:0";
/// Raise it when what [`make`] does to the tree changes.
const RECIPE: &str = "1";

/// The image in the cache, made if it is not there or if it is asked for.
pub(super) async fn ensure(ui: &Ui, cache: &Cache, again: bool) -> anyhow::Result<PathBuf> {
    let release = debian_release()?;
    let parts = [release.as_str(), PACKAGES, SIZE, FEATURES, OPTIONS, RECIPE];
    let key = digest(&parts.map(str::as_bytes));
    if let Some(entry) = cache.get("image-minimal", &key).filter(|_| !again) {
        return Ok(entry.join("rootfs.ext4"));
    }
    let step = ui.step(format!("make the base image from Debian {release}"));
    let bench = cache.workbench()?;
    let entry = bench.path().join("entry");
    fs::create_dir(&entry)?;
    make(&step, &release, bench.path(), &entry.join("rootfs.ext4")).await?;
    let entry = cache.put("image-minimal", &key, &entry)?;
    cache.prune("image-minimal", 2)?;
    step.done("");
    Ok(entry.join("rootfs.ext4"))
}

async fn make(
    step: &crate::progress::Step,
    release: &str,
    bench: &Path,
    image: &Path,
) -> anyhow::Result<()> {
    // Under /var/tmp, because apt's own user must be able to enter, and /tmp may be without device files.
    let tree = tempfile::Builder::new().prefix("ovenbird-image-").tempdir_in("/var/tmp")?;
    let tar = bench.join("root.tar");
    let mut command = Command::new("mmdebstrap");
    command
        .env("TMPDIR", tree.path())
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), release])
        .arg(&tar);
    std::fs::set_permissions(tree.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    program::run(step, command).await?;

    step.message("write the file system");
    let root = tree.path().join("root");
    fs::create_dir(&root)?;
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "-xpf"]).arg(&tar).arg("-C").arg(&root);
    // Device files come from the guest's own devtmpfs.
    command.args(["--exclude=./dev/*"]);
    program::run(step, command).await?;
    finish(&root)?;

    let mut command = Command::new("truncate");
    command.args(["-s", SIZE]).arg(image);
    program::run(step, command).await?;
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-O", FEATURES, "-E", OPTIONS, "-d"]).arg(&root).arg(image);
    program::run(step, command).await
}

/// What the machine it was made on left in it.
fn finish(root: &Path) -> anyhow::Result<()> {
    fs::write(root.join("etc/hostname"), "sandbox\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost sandbox\n::1 localhost\n")?;
    let resolver = root.join("etc/resolv.conf");
    if resolver.symlink_metadata().is_ok() {
        fs::remove_file(&resolver)?;
    }
    fs::write(resolver, "nameserver 1.1.1.1\nnameserver 8.8.8.8\n")?;
    fs::write(root.join("etc/machine-id"), "")?;
    Ok(())
}

/// `bookworm`, `trixie`: the release of this machine.
pub(super) fn debian_release() -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    anyhow::ensure!(
        field("ID").as_deref() == Some("debian"),
        "the guest's kernel and image are made from Debian's packages: this needs Debian 12 or 13"
    );
    field("VERSION_CODENAME").context("/etc/os-release names no Debian release")
}
