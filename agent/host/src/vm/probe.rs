//! Whether KVM is to be used on this host.
//!
//! `/dev/kvm` may open, report its version and even run a toy guest, and still not run a stock kernel. So
//! the facts are looked at first, and when they allow it the configured kernel is booted once.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Accelerator, Directory, Hypervisor, MachineSpec, Memory, Qemu, Start, file};
use crate::Identity;

/// The kernel's device.
pub(super) const KVM: &str = "/dev/kvm";
/// For the probe's kernel to come as far as looking for its root disk.
const BOOT_PATIENCE: Duration = Duration::from_secs(3);
const MEMORY_MB: u32 = 128;

/// An accelerator, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// One clause for the log and for `GetHost`.
    pub reason: String,
}

/// What the host says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    processor_flag: bool,
    module: bool,
    paravirtual: bool,
    device: Result<(), String>,
}

impl Facts {
    fn of_this_host() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let module = |name: &str| Path::new("/sys/module").join(name).exists();
        Self {
            processor_flag: has_virtualization(&cpuinfo),
            module: module("kvm_intel") || module("kvm_amd"),
            paravirtual: module("kvm_pvm"),
            device: device_opens(),
        }
    }

    /// Why KVM cannot be used, or nothing.
    fn refusal(&self) -> Option<String> {
        if !self.processor_flag {
            Some("the processor has neither vmx nor svm".into())
        } else if !self.module {
            Some("neither kvm_intel nor kvm_amd is loaded".into())
        } else if self.paravirtual {
            Some("kvm_pvm is loaded, which does not run a stock kernel".into())
        } else {
            self.device.clone().err()
        }
    }
}

/// Why this host's own facts rule KVM out, or nothing: then only a boot can tell.
pub fn refusal() -> Option<String> {
    Facts::of_this_host().refusal()
}

fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"))
}

fn device_opens() -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(KVM);
    let metadata = opened
        .and_then(|device| device.metadata())
        .map_err(|error| format!("{KVM} does not open: {error}"))?;
    if metadata.mode() & 0o060 == 0o060 {
        Ok(())
    } else {
        Err(format!("{KVM} is closed to its group, and machines do not run as root"))
    }
}

/// The processor's name.
pub(super) fn cpu_model() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = cpuinfo.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    line.split_once(':').map_or("unknown", |(_, model)| model.trim()).to_owned()
}

/// Chooses the accelerator. `scratch` is a directory of root's for the probe's machine, which runs as
/// `owner` and is gone afterwards.
pub async fn choose(
    qemu: &Qemu,
    kernel: &Path,
    initrd: &Path,
    scratch: &Path,
    owner: Identity,
) -> Choice {
    if let Some(refusal) = refusal() {
        return Choice { accelerator: Accelerator::Tcg, reason: format!("no KVM: {refusal}") };
    }
    let qemu = qemu.clone().with_accelerator(Accelerator::Kvm);
    match boots(&qemu, kernel, initrd, scratch, owner, BOOT_PATIENCE).await {
        Ok(()) => Choice {
            accelerator: Accelerator::Kvm,
            reason: "a probe boot of the guest kernel came up".into(),
        },
        Err(reason) => Choice {
            accelerator: Accelerator::Tcg,
            reason: format!("no KVM: the probe boot failed: {reason}"),
        },
    }
}

/// Boots the kernel with an init that does not exist: its panic says that everything before it worked.
pub(super) async fn boots(
    qemu: &Qemu,
    kernel: &Path,
    initrd: &Path,
    scratch: &Path,
    owner: Identity,
    patience: Duration,
) -> Result<(), String> {
    let path = scratch.join("kvm-probe");
    let text = |error: std::io::Error| error.to_string();
    Directory::remove(&path).map_err(text)?;
    let booted = async {
        let directory = Directory::create(&path, owner).map_err(text)?;
        directory.link(kernel, file::KERNEL).map_err(text)?;
        directory.link(initrd, file::INITRD).map_err(text)?;
        directory.add(file::MEMORY, u64::from(MEMORY_MB) << 20).map_err(text)?;
        let spec = MachineSpec {
            name: "ovb-probe".into(),
            directory,
            vcpus: 1,
            memory_mb: MEMORY_MB,
            memory: Memory::Own,
            disk: None,
            nic: None,
            kernel_arguments: "rdinit=/no/such/init root=/dev/none".into(),
            cgroup: None,
        };
        let machine = qemu.launch(&spec, Start::Boot).await.map_err(|error| error.to_string())?;
        let ended = timeout(patience, async {
            machine.ended().await;
            // The panic's text can reach the ring a moment after the event.
            sleep(Duration::from_millis(10)).await;
        })
        .await;
        let console = machine.console_tail(4096).await;
        machine.kill().await.map_err(|error| error.to_string())?;
        match ended {
            Err(_) => Err(format!("not up within {} s", patience.as_secs())),
            Ok(()) if console.contains("Kernel panic - not syncing: VFS") => Ok(()),
            Ok(()) => Err("it ended before it looked for its root disk".into()),
        }
    }
    .await;
    Directory::remove(&path).map_err(text)?;
    booted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable() -> Facts {
        Facts { processor_flag: true, module: true, paravirtual: false, device: Ok(()) }
    }

    #[test]
    fn every_fact_can_refuse_kvm() {
        assert_eq!(usable().refusal(), None);
        let refused = [
            Facts { processor_flag: false, ..usable() },
            Facts { module: false, ..usable() },
            Facts { paravirtual: true, ..usable() },
            Facts { device: Err("closed".into()), ..usable() },
        ];
        for facts in refused {
            assert!(facts.refusal().is_some(), "{facts:?}");
        }
    }

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        assert!(has_virtualization("model name\t: x\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_virtualization("flags\t\t: fpu vmx_like\nbugs\t: svm\n"));
        assert!(!has_virtualization(""));
    }
}
