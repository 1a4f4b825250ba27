//! What is tried out, in a scratch folder beside `data_dir` and in namespaces of its own.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    time::Duration,
};

use ovenbird_host::{
    Identity, Instance, Slot,
    cgroup::{Cgroups, Mode},
    net::{self, NetlinkNetworks, Networks as _},
    storage::{self, DmOptions, FileVolumes, Volumes as _},
    vm::{self, Accelerator, Qemu, probe},
};
use ovenbird_kit::telemetry::chain;
use tempfile::TempDir;

use super::{Finding, existing};
use crate::config::Config;

/// The name of what is made, other than that of any agent with the default configuration.
const INSTANCE: &str = "check";
/// Addresses for documentation (RFC 5737), which no network uses.
const SUBNET: &str = "192.0.2.0/29";
/// A limit that works, in kbit/s.
const BANDWIDTH_KBIT: u32 = 1_000_000;
/// For the smallest disk that the driver tries itself with.
const RESERVE_BYTES: u64 = 1 << 20;

const KVM: &str = "use a machine, or a virtual machine with nested virtualization, whose processor has VMX or SVM turned \
    on in its firmware; modprobe kvm_intel (or kvm_amd); let the group of /dev/kvm open it (chmod 0660). Without KVM \
    microVMs are emulated, some ten times slower";
const QEMU: &str =
    "install QEMU 8.2 or newer (Debian: apt install qemu-system-x86), or set qemu to its path";
const GUEST: &str = "install the guest kernel and the initramfs, and set kernel and initrd to them";
const STORAGE: &str = "put data_dir on XFS (mkfs.xfs -m reflink=1) or btrfs; or, on another file system, modprobe loop \
    dm-snapshot dm-zero and mount it without nodev. Otherwise each disk is a whole copy of its template's";
const CGROUPS: &str = "mount cgroup2 at /sys/fs/cgroup with the controllers memory, cpu and pids (boot with \
    systemd.unified_cgroup_hierarchy=1); a systemd service needs Delegate=yes";
const TUN: &str = "modprobe tun, and let root open /dev/net/tun";
const NETWORK: &str = "use a kernel with network namespaces, veth and nf_tables with NAT: modprobe veth nf_tables nft_nat \
    nft_masq nft_ct; in a container this needs CAP_NET_ADMIN and CAP_SYS_ADMIN on the host";
const BANDWIDTH: &str = "modprobe sch_tbf, or never limit the bandwidth of a sandbox";

pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let near = existing(&config.data_dir);
    let scratch = match tempfile::Builder::new().prefix(".ovenbird-check-").tempdir_in(&near) {
        Ok(scratch) => scratch,
        Err(error) => {
            let found = format!("nothing can be written to {}: {error}", near.display());
            return vec![Finding::no("storage", found, "set data_dir to a folder on a disk")];
        }
    };
    let qemu = Qemu::open(&config.qemu, Accelerator::Tcg).await;
    let version = qemu.as_ref().map(|qemu| qemu.version().to_string());
    let guest = guest(config);
    let mut found = vec![
        Finding::of("qemu", version.map_err(|error| chain(error)), QEMU),
        Finding::of("guest", guest.as_ref().map(|_| "kernel and initramfs are there"), GUEST),
    ];
    found.push(kvm(qemu, guest, scratch.path(), config.uid_base).await);
    found.push(storage(&scratch, config).await);
    found.push(cgroups());
    found.push(Finding::of("tun", tun(), TUN));
    found.extend(network(config).await);
    found
}

/// The two files of every guest.
fn guest(config: &Config) -> Result<[PathBuf; 2], String> {
    let files = [config.kernel.clone(), config.initrd.clone()];
    match files.iter().find(|file| std::fs::File::open(file).is_err()) {
        Some(file) => Err(format!("{} cannot be read", file.display())),
        None => Ok(files),
    }
}

/// The agent's own choice: facts first, then a boot of the guest's kernel, where there is one.
async fn kvm(
    qemu: Result<Qemu, vm::Error>,
    guest: Result<[PathBuf; 2], String>,
    scratch: &Path,
    uid_base: u32,
) -> Finding {
    if let Some(refusal) = probe::refusal() {
        return Finding::no("kvm", refusal, KVM);
    }
    let (Ok(qemu), Ok(files)) = (qemu, guest) else {
        return Finding::yes(
            "kvm",
            "the device opens; no kernel was booted, for QEMU or guest are missing",
        );
    };
    let owner = Identity { uid: uid_base, gid: uid_base };
    let copied = ["kernel", "initrd"].map(|name| scratch.join(name));
    // Machines link their files, which works on one file system only.
    for (from, to) in files.iter().zip(&copied) {
        if let Err(error) = std::fs::copy(from, to) {
            let found = format!("{} cannot be copied: {error}", from.display());
            return Finding::no("kvm", found, "make room on the file system of data_dir");
        }
    }
    let [kernel, initrd] = &copied;
    let choice = probe::choose(&qemu, kernel, initrd, scratch, owner).await;
    match choice.accelerator {
        Accelerator::Kvm => Finding::yes("kvm", choice.reason),
        Accelerator::Tcg => Finding::no("kvm", choice.reason, KVM),
    }
}

async fn storage(scratch: &TempDir, config: &Config) -> Finding {
    let of = config.data_dir.display();
    let clones = FileVolumes::reflink(scratch.path());
    if clones.is_ok() {
        return Finding::yes("storage", format!("the file system of {of} clones files"));
    }
    let Ok(instance) = Instance::new(INSTANCE) else {
        return Finding::no("storage", "nothing could be tried", STORAGE);
    };
    let dm = DmOptions { instance, reserve_bytes: RESERVE_BYTES, pause: Duration::from_secs(1) };
    match storage::DmVolumes::open(scratch.path(), dm).await {
        Ok(volumes) => {
            volumes.close().await;
            Finding::yes(
                "storage",
                format!("device-mapper makes snapshots on the file system of {of}"),
            )
        }
        Err(error) => {
            let found =
                format!("the file system of {of} does not clone files, and {}", chain(&error));
            Finding::no("storage", found, STORAGE)
        }
    }
}

fn cgroups() -> Finding {
    let opened = Instance::new(INSTANCE).map_err(|error| chain(&error)).and_then(|instance| {
        let cgroups = Cgroups::open(&instance, Mode::Require).map_err(|error| chain(&error))?;
        let version = cgroups.version();
        cgroups.close().map_err(|error| chain(&error))?;
        Ok(format!("{version}, with memory, cpu and pids"))
    });
    Finding::of("cgroups", opened, CGROUPS)
}

fn tun() -> Result<&'static str, String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.map(|_| "/dev/net/tun opens").map_err(|error| format!("/dev/net/tun: {error}"))
}

/// A sandbox's network, whole, and once more with a limit.
async fn network(config: &Config) -> [Finding; 2] {
    let free = net::Policy::default();
    let limited = net::Policy { bandwidth_kbit: BANDWIDTH_KBIT, ..net::Policy::default() };
    [
        Finding::of(
            "network",
            made(config, &free).await.map(|()| "a sandbox's network was made"),
            NETWORK,
        ),
        Finding::of(
            "bandwidth",
            made(config, &limited).await.map(|()| "and one with a limit"),
            BANDWIDTH,
        ),
    ]
}

async fn made(config: &Config, policy: &net::Policy) -> Result<(), String> {
    let instance = Instance::new(INSTANCE).map_err(|error| chain(&error))?;
    let subnet = SUBNET.parse::<net::Subnet>().map_err(|error| chain(&error))?;
    let networks = NetlinkNetworks::new(net::Options {
        plan: net::Plan::new(instance, subnet),
        pool: 0,
        slots: 1,
        uid_base: config.uid_base,
        resolvers: Vec::new(),
    });
    let owner = Identity { uid: config.uid_base, gid: config.uid_base };
    let made = networks.ensure(Slot(0), owner, policy).await;
    let removed = networks.remove(Slot(0)).await;
    made.map(drop).and(removed).map_err(|error| chain(&error))
}
