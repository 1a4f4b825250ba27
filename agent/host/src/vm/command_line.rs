//! QEMU's arguments, as a pure function of what a machine shall be.
//!
//! The order of devices, the memory's id, the network card's address and flags are part of every saved
//! state: whoever changes them changes [`DEVICES`], and states of the old set are refused from then on.

use std::fmt::Write as _;

use super::{Accelerator, MachineSpec, Memory, Start, console, file};

/// Names the set of devices below.
pub(super) const DEVICES: &str = "microvm-1";

/// QEMU's cache of translated code in MiB. Without a limit it grows far past the guest's own memory.
const TRANSLATION_CACHE_MB: u32 = 64;

/// QEMU itself, its devices, and the kernel's tables for it, in MiB: twice of what was seen.
const OWN_MEMORY_MB: u32 = 100;
/// Threads that QEMU makes for reads and writes of the disk at most.
const IO_THREADS_MAX: u32 = 64;
/// QEMU's own: the main one, that of RCU, migration, and what a new version may add. A quiet machine has five.
const OWN_THREADS: u32 = 16;

/// As much memory as a machine needs at most: the guest's, the translator's, and QEMU's own.
pub fn memory_limit_mb(memory_mb: u32) -> u32 {
    memory_mb.saturating_add(TRANSLATION_CACHE_MB + OWN_MEMORY_MB)
}

/// As many threads as a machine needs at most.
pub fn threads_max(vcpus: u32) -> u32 {
    vcpus.saturating_add(IO_THREADS_MAX + OWN_THREADS)
}

/// Descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    pub(super) control: i32,
    pub(super) guest: i32,
    pub(super) tap: Option<i32>,
}

/// What the arguments depend on besides the machine itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    pub(super) accelerator: Accelerator,
    pub(super) tsc_khz: u64,
    /// Whether the machine's disk is a device, and no file.
    pub(super) disk_is_device: bool,
}

pub(super) fn arguments(
    spec: &MachineSpec,
    start: Start,
    host: Host,
    inherited: Inherited,
) -> Vec<String> {
    let (accelerator, cpu) = match host.accelerator {
        Accelerator::Kvm => ("kvm".to_owned(), "host"),
        Accelerator::Tcg => (format!("tcg,tb-size={TRANSLATION_CACHE_MB}"), "max"),
    };
    let sharing = match spec.memory {
        Memory::Own => "share=on",
        Memory::CopyOnWrite => "share=off,readonly=on,rom=off",
    };
    let memory_mb = spec.memory_mb;
    let mut arguments = Arguments::default();
    arguments
        .pair("-name", &spec.name)
        .pair("-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,memory-backend=m0")
        .pair("-accel", &accelerator)
        .pair("-cpu", cpu)
        .pair("-smp", &spec.vcpus.to_string())
        .pair("-m", &format!("{memory_mb}M"))
        .pair(
            "-object",
            &format!(
                "memory-backend-file,id=m0,size={memory_mb}M,mem-path={},{sharing}",
                file::MEMORY
            ),
        )
        .one("-nodefaults")
        .one("-no-user-config")
        .pair("-display", "none")
        // A guest that reboots or turns itself off stays there, stopped, so that its console can be read.
        .pair("-action", "reboot=shutdown,shutdown=pause")
        .pair("-chardev", &format!("ringbuf,id=console,size={}", console::RING_BYTES))
        .pair("-serial", "chardev:console");
    // A restored guest has its kernel in its memory; QEMU would read 50 MB that nobody asks for.
    if start == Start::Boot {
        arguments
            .pair("-kernel", file::KERNEL)
            .pair("-initrd", file::INITRD)
            .pair("-append", &kernel_command_line(host.tsc_khz, &spec.kernel_arguments));
    }
    if let Some(disk) = &spec.disk {
        let disk = disk.display();
        // Past the host's page cache, a write that a device has no room for fails in the guest, which must know.
        let cache =
            if host.disk_is_device { "cache.direct=on,cache.no-flush=on" } else { "cache=unsafe" };
        // A restored QEMU would first write the whole disk out and throw its pages away, in case another host has
        // changed it meanwhile: for a disk that was copied a moment ago, that is all of it.
        // Errors are the guest's: QEMU would stop a machine that the host has no room for, and nobody resumes it.
        arguments
            .pair(
                "-drive",
                &format!(
                    "if=none,id=d0,file={disk},format=raw,{cache},discard=unmap,\
                     file.drop-cache=off,werror=report,rerror=report"
                ),
            )
            .pair("-device", "virtio-blk-device,drive=d0");
    }
    arguments
        .pair("-device", "virtio-serial-device,id=vs0")
        .pair("-chardev", &format!("socket,id=ch0,fd={},server=on,wait=off", inherited.guest))
        .pair("-device", "virtserialport,chardev=ch0,name=agent.0");
    if let Some(tap) = inherited.tap {
        arguments
            .pair("-netdev", &format!("tap,id=n0,fd={tap}"))
            .pair("-device", "virtio-net-device,netdev=n0,mac=02:00:00:00:00:01");
    }
    arguments
        .pair("-device", "virtio-balloon-device,free-page-reporting=on")
        .pair("-device", "virtio-rng-device")
        .pair("-chardev", &format!("socket,id=qmp,fd={},server=on,wait=off", inherited.control))
        .pair("-mon", "chardev=qmp,mode=control")
        .pair(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
    if matches!(start, Start::Restore(_)) {
        arguments.pair("-incoming", "defer");
    }
    arguments.list
}

fn kernel_command_line(tsc_khz: u64, more: &str) -> String {
    let mut line = format!(
        "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable tsc_early_khz={tsc_khz} \
         random.trust_cpu=on cryptomgr.notests audit=0 nowatchdog 8250.nr_uarts=1"
    );
    if !more.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(line, " {more}");
    }
    line
}

#[derive(Default)]
struct Arguments {
    list: Vec<String>,
}

impl Arguments {
    fn one(&mut self, argument: &str) -> &mut Self {
        self.list.push(argument.to_owned());
        self
    }

    fn pair(&mut self, name: &str, value: &str) -> &mut Self {
        self.one(name).one(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Identity,
        vm::{Directory, Saved},
    };

    fn line(memory: Memory, start: Start) -> String {
        line_with(memory, start, false)
    }

    fn line_with(memory: Memory, start: Start, disk_is_device: bool) -> String {
        let root = tempfile::tempdir().unwrap();
        let owner = Identity { uid: 61_000, gid: 61_000 };
        let spec = MachineSpec {
            name: "ovb-main-3".into(),
            directory: Directory::create(&root.path().join("a"), owner).unwrap(),
            vcpus: 1,
            memory_mb: 256,
            memory,
            disk: Some("disk".into()),
            nic: None,
            kernel_arguments: "ovenbird.token=00".into(),
            cgroup: None,
        };
        let host = Host { accelerator: Accelerator::Tcg, tsc_khz: 2_000_000, disk_is_device };
        let inherited = Inherited { control: 7, guest: 8, tap: Some(9) };
        arguments(&spec, start, host, inherited).join(" ")
    }

    #[test]
    fn booted_machine_has_the_tried_command_line() {
        assert_eq!(
            line(Memory::Own, Start::Boot),
            "-name ovb-main-3 -M microvm,acpi=on,pit=off,pic=off,rtc=on,memory-backend=m0 \
             -accel tcg,tb-size=64 -cpu max -smp 1 -m 256M \
             -object memory-backend-file,id=m0,size=256M,mem-path=memory,share=on \
             -nodefaults -no-user-config -display none -action reboot=shutdown,shutdown=pause \
             -chardev ringbuf,id=console,size=65536 -serial chardev:console \
             -kernel vmlinux -initrd initrd -append console=ttyS0 quiet reboot=t panic=-1 \
             tsc=reliable tsc_early_khz=2000000 random.trust_cpu=on cryptomgr.notests audit=0 \
             nowatchdog 8250.nr_uarts=1 ovenbird.token=00 \
             -drive if=none,id=d0,file=disk,format=raw,cache=unsafe,discard=unmap,file.drop-cache=off,\
             werror=report,rerror=report \
             -device virtio-blk-device,drive=d0 -device virtio-serial-device,id=vs0 \
             -chardev socket,id=ch0,fd=8,server=on,wait=off \
             -device virtserialport,chardev=ch0,name=agent.0 -netdev tap,id=n0,fd=9 \
             -device virtio-net-device,netdev=n0,mac=02:00:00:00:00:01 \
             -device virtio-balloon-device,free-page-reporting=on -device virtio-rng-device \
             -chardev socket,id=qmp,fd=7,server=on,wait=off -mon chardev=qmp,mode=control \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
        );
    }

    #[test]
    fn device_is_used_past_the_page_cache() {
        let [file, device] = [false, true].map(|it| line_with(Memory::Own, Start::Boot, it));
        assert_eq!(device, file.replace("cache=unsafe", "cache.direct=on,cache.no-flush=on"));
    }

    #[test]
    fn fork_differs_in_memory_incoming_and_the_kernel_it_does_not_load() {
        let boot = line(Memory::Own, Start::Boot);
        let fork = line(Memory::CopyOnWrite, Start::Restore(Saved::Devices));
        let (before, rest) = boot.split_once(" -kernel").unwrap();
        let after = &rest[rest.find(" -drive").unwrap()..];
        let expected = format!("{before}{after} -incoming defer");
        assert_eq!(fork, expected.replace("share=on", "share=off,readonly=on,rom=off"));
    }
}
