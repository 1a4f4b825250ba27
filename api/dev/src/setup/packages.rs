//! Debian packages: asks dpkg what is there, and apt only for what is not.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use fs_err as fs;
use nix::unistd::Uid;
use tokio::process::Command;

use crate::{
    program,
    progress::{Step, Ui},
};

/// What is needed, and what for.
const NEEDED: &[(&str, &str)] = &[
    ("gcc", "linker, and the C parts of crates"),
    ("libc6-dev", "the static guest agent"),
    ("pkg-config", "devicemapper"),
    ("libdevmapper-dev", "devicemapper"),
    ("libclang-dev", "devicemapper"),
    ("postgresql", "the builds' table"),
    ("redis-server", "the queue"),
    ("iproute2", "network namespaces"),
    ("nftables", "NAT of sandboxes"),
    ("e2fsprogs", "root disks"),
    ("xfsprogs", "reflinks, where the file system of the tree has none"),
    ("mmdebstrap", "the base image"),
    ("lz4", "unpacking the guest kernel"),
    ("zstd", "unpacking the guest kernel"),
    ("xz-utils", "unpacking the guest kernel's modules"),
    ("cpio", "looking into an initramfs"),
    ("kmod", "looking into kernel modules"),
    ("util-linux", "setpriv, losetup, mount"),
    ("procps", "looking at processes"),
    ("python3-venv", "pip, which fetches nats-server and schemathesis"),
    ("ca-certificates", "the same"),
    ("systemd", "systemd-analyze and systemd-sysusers, which read the units of .deploy"),
    ("curl", "the README's examples"),
    ("jq", "the same"),
    ("chromium", "the dashboard's tests"),
];

const QEMU: &str = "qemu-system-x86";
/// Older ones have no `file:` migration.
const QEMU_MIN: (u32, u32) = (8, 2);
const BACKPORTS: &str = "/etc/apt/sources.list.d/ovenbird-backports.sources";

/// Installs what is missing and returns how many packages that were.
///
/// # Errors
/// When this is no Debian, or apt fails, or neither root nor sudo is at hand: then with the command to run.
pub(super) async fn ensure(ui: &Ui) -> anyhow::Result<usize> {
    let installed = installed().await?;
    let mut missing: Vec<&str> = NEEDED
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !installed.contains_key(*name))
        .collect();
    let qemu_is_new = installed.get(QEMU).is_some_and(|version| new_enough(version));
    if qemu_is_new && missing.is_empty() {
        return Ok(0);
    }
    let root = Root::find(&missing, qemu_is_new).await?;
    let step = ui.step("install Debian packages");
    let _services = StartsNoServices::begin(&root).await?;
    root.apt(&step, &["update"]).await?;
    if !missing.is_empty() {
        root.apt(&step, &[&["install", "-y", "--no-install-recommends"], &missing[..]].concat())
            .await?;
    }
    if !qemu_is_new {
        install_qemu(&root, &step).await?;
        missing.push(QEMU);
    }
    step.done(&missing.join(" "));
    Ok(missing.len())
}

/// Versions of the installed packages among those needed.
async fn installed() -> anyhow::Result<HashMap<String, String>> {
    let names = NEEDED.iter().map(|(name, _)| *name).chain([QEMU]);
    // Exits with 1 when it knows one of them not at all, so its status says nothing.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status} ${Version}\n"])
        .args(names)
        .output()
        .await
        .with_context(|| {
            let names: Vec<&str> = NEEDED.iter().map(|(name, _)| *name).collect();
            format!(
                "this set-up knows Debian 12 and 13; elsewhere install what these packages hold: {} {QEMU}",
                names.join(" ")
            )
        })?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = HashMap::new();
    for line in lines.lines() {
        if let [name, "installed", version] = line.split(' ').collect::<Vec<_>>()[..] {
            found.insert(name.to_owned(), version.to_owned());
        }
    }
    Ok(found)
}

/// Whether a Debian version of QEMU, like `1:10.0.2+ds-2`, is at least [`QEMU_MIN`].
fn new_enough(version: &str) -> bool {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= QEMU_MIN,
        _ => false,
    }
}

async fn install_qemu(root: &Root, step: &Step) -> anyhow::Result<()> {
    let mut from: Vec<String> = Vec::new();
    if !new_enough(&candidate(QEMU).await?) {
        let suite = format!("{}-backports", super::image::debian_release()?);
        if !offered(&suite).await? {
            let source = format!(
                "# Made by Ovenbird's `cargo dev setup`: QEMU 8.2 or newer.\nTypes: deb\nURIs: http://deb.debian.org/debian\n\
                 Suites: {suite}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            );
            root.write(Path::new(BACKPORTS), &source, 0o644).await?;
            root.apt(step, &["update"]).await?;
        }
        from = vec!["-t".into(), suite];
    }
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(from.iter().map(String::as_str));
    args.push(QEMU);
    root.apt(step, &args).await?;
    let version = installed().await?.remove(QEMU).unwrap_or_default();
    let (major, minor) = QEMU_MIN;
    anyhow::ensure!(
        new_enough(&version),
        "QEMU {major}.{minor} or newer is needed, and apt offers only {version}: install one by hand"
    );
    Ok(())
}

async fn candidate(package: &str) -> anyhow::Result<String> {
    let mut command = Command::new("apt-cache");
    command.args(["policy", package]).env("LC_ALL", "C");
    let text = program::output(command).await?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(line.unwrap_or_default().to_owned())
}

async fn offered(suite: &str) -> anyhow::Result<bool> {
    let mut command = Command::new("apt-cache");
    command.arg("policy").env("LC_ALL", "C");
    Ok(program::output(command).await?.contains(suite))
}

/// The way to root's rights.
struct Root {
    prefix: &'static [&'static str],
}

impl Root {
    async fn find(missing: &[&str], qemu_is_new: bool) -> anyhow::Result<Self> {
        if Uid::effective().is_root() {
            return Ok(Self { prefix: &[] });
        }
        let sudo = Command::new("sudo").args(["-n", "true"]).output().await;
        if sudo.is_ok_and(|output| output.status.success()) {
            return Ok(Self { prefix: &["sudo", "-n", "--"] });
        }
        let qemu = if qemu_is_new {
            ""
        } else {
            " qemu-system-x86 (8.2 or newer: on Debian 12 from bookworm-backports)"
        };
        anyhow::bail!(
            "packages are missing, and neither root nor sudo without a password is at hand. Run as root:\n  \
             apt-get install --no-install-recommends {}{qemu}",
            missing.join(" ")
        )
    }

    fn command(&self, program: &str) -> Command {
        match self.prefix {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        }
    }

    async fn apt(&self, step: &Step, args: &[&str]) -> anyhow::Result<()> {
        let mut command = self.command("env");
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get"])
            .args(["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"])
            .args(args);
        program::run(step, command).await
    }

    async fn write(&self, path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
        let new = tempfile::NamedTempFile::new()?;
        fs::write(new.path(), content)?;
        fs::set_permissions(new.path(), std::fs::Permissions::from_mode(mode))?;
        let mut command = self.command("cp");
        command.args(["--preserve=mode", "--"]).arg(new.path()).arg(path);
        program::output(command).await.map(drop)
    }
}

/// While this lives, packages that bring a service do not start it (Postgres and Redis of the system are of
/// no use to us). A `policy-rc.d` that is there already is left alone.
struct StartsNoServices {
    made: Option<PathBuf>,
    prefix: &'static [&'static str],
}

impl StartsNoServices {
    async fn begin(root: &Root) -> anyhow::Result<Self> {
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self { made: None, prefix: root.prefix });
        }
        // Without effect once this process has gone, should it be killed before it removes the file.
        let script = format!(
            "#!/bin/sh\n# Made by Ovenbird's `cargo dev setup` for the time of one installation.\n\
             [ -d /proc/{} ] && exit 101\nexit 0\n",
            std::process::id()
        );
        root.write(path, &script, 0o755).await?;
        Ok(Self { made: Some(path.to_owned()), prefix: root.prefix })
    }
}

impl Drop for StartsNoServices {
    fn drop(&mut self) {
        let Some(path) = self.made.take() else { return };
        let mut words = self.prefix.iter().copied().chain(["rm", "-f", "--"]);
        let Some(first) = words.next() else { return };
        let removed = std::process::Command::new(first).args(words).arg(&path).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("could not remove {}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn qemu_is_new_enough_from_8_2_on() {
        for (version, answer) in [
            ("1:7.2+dfsg-7+deb12u13", false),
            ("1:8.1.5+ds-1", false),
            ("1:8.2.2+ds-0ubuntu1", true),
            ("1:10.0.2+ds-2+deb13u1~bpo12+1", true),
            ("(none)", false),
            ("", false),
        ] {
            assert_eq!(new_enough(version), answer, "{version}");
        }
    }
}
