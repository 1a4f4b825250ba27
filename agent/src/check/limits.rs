//! What is read from `/proc`: bounds of the kernel and of this process, room on the disk, the clock. Each bound follows
//! from how many sandboxes there may be.

use std::path::Path;

use ovenbird_host::{clock, vm};
use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};

use super::{Finding, existing};
use crate::{agent, config::Config, sandbox::Shape};

/// Descriptors of the agent itself, and for each sandbox: sockets, disk, log, and streams of its commands.
const FILES: (u64, u64) = (1024, 64);
/// Connections that a sandbox may have at the same time, as the host's NAT counts them.
const CONNECTIONS_EACH: u64 = 1024;
/// Processes of the host itself.
const PROCESSES: u64 = 4096;
/// Room for templates, and for what sandboxes write.
const DISK_MB: u64 = 10 * 1024;
/// Neighbours of the host itself.
const NEIGHBOURS: u64 = 128;

pub(super) fn all(config: &Config) -> Vec<Finding> {
    let sandboxes = u64::from(config.capacity.sandboxes);
    let threads = u64::from(vm::threads_max(config.capacity.sandbox_vcpus));
    vec![
        forwarding(),
        overcommit(),
        at_least("pids", "kernel.pid_max", PROCESSES + sandboxes * threads),
        at_least("threads", "kernel.threads-max", PROCESSES + sandboxes * threads),
        at_least("neighbours", "net.ipv4.neigh.default.gc_thresh3", NEIGHBOURS + 2 * sandboxes),
        connections(sandboxes * CONNECTIONS_EACH),
        files(FILES.0 + FILES.1 * sandboxes),
        capacity(config),
        room(config),
        clock(),
    ]
}

fn path_of(sysctl: &str) -> String {
    format!("/proc/sys/{}", sysctl.replace('.', "/"))
}

fn read(sysctl: &str) -> Result<u64, String> {
    let text =
        std::fs::read_to_string(path_of(sysctl)).map_err(|error| format!("{sysctl}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{sysctl} is {:?}", text.trim()))
}

fn persist(sysctl: &str, value: u64) -> String {
    format!("sysctl -w {sysctl}={value}, and the same line in /etc/sysctl.d/ovenbird.conf")
}

fn at_least(name: &'static str, sysctl: &str, wanted: u64) -> Finding {
    match read(sysctl) {
        Ok(value) if value >= wanted => Finding::yes(name, format!("{sysctl} is {value}")),
        Ok(value) => {
            let found =
                format!("{sysctl} is {value}; as many sandboxes as configured need {wanted}");
            Finding::no(name, found, persist(sysctl, wanted))
        }
        Err(found) => Finding::no(name, found, persist(sysctl, wanted)),
    }
}

/// The agent turns it on at its start, where it may.
fn forwarding() -> Finding {
    const SYSCTL: &str = "net.ipv4.ip_forward";
    let writable = std::fs::OpenOptions::new().write(true).open(path_of(SYSCTL));
    match (read(SYSCTL), writable) {
        (Ok(1), _) => Finding::yes("forwarding", format!("{SYSCTL} is 1")),
        (Ok(_), Ok(_)) => {
            Finding::yes("forwarding", format!("{SYSCTL} is 0; the agent turns it on"))
        }
        (found, _) => {
            let found = found.map_or_else(|error| error, |_| format!("{SYSCTL} is 0, for good"));
            Finding::no("forwarding", found, persist(SYSCTL, 1))
        }
    }
}

/// With strict accounting the memory of each forked sandbox counts whole, though most of it is shared.
fn overcommit() -> Finding {
    const SYSCTL: &str = "vm.overcommit_memory";
    match read(SYSCTL) {
        Ok(2) => Finding::no(
            "overcommit",
            format!("{SYSCTL} is 2: shared memory counts twice"),
            persist(SYSCTL, 0),
        ),
        found => Finding::of(
            "overcommit",
            found.map(|value| format!("{SYSCTL} is {value}")),
            persist(SYSCTL, 0),
        ),
    }
}

/// Known once the module is loaded, which the first sandbox does.
fn connections(wanted: u64) -> Finding {
    const SYSCTL: &str = "net.netfilter.nf_conntrack_max";
    if !Path::new(&path_of(SYSCTL)).exists() {
        let found = "nf_conntrack is not loaded yet: its bound is not known";
        let remedy = format!("modprobe nf_conntrack, and ask again; {}", persist(SYSCTL, wanted));
        return Finding::no("connections", found, remedy);
    }
    at_least("connections", SYSCTL, wanted)
}

fn files(wanted: u64) -> Finding {
    let remedy = format!("ulimit -n {wanted}; in a systemd unit LimitNOFILE={wanted}");
    match getrlimit(Resource::Nofile).current {
        Some(value) if value < wanted => Finding::no(
            "files",
            format!("this shell may open {value} files; the agent needs {wanted}"),
            remedy,
        ),
        Some(value) => Finding::yes("files", format!("this shell may open {value} files")),
        None => Finding::yes("files", "this shell may open any number of files"),
    }
}

/// The largest sandbox must find room on an empty host.
fn capacity(config: &Config) -> Finding {
    let host = agent::host_shape();
    let Shape { vcpus, memory_mb } = config.capacity.total(host);
    let (most_vcpus, most_mb) = (config.capacity.sandbox_vcpus, config.capacity.sandbox_memory_mb);
    let found = format!(
        "of {} processors and {} MiB, {vcpus} vCPUs and {memory_mb} MiB are promised",
        host.vcpus, host.memory_mb
    );
    if most_vcpus <= vcpus && most_mb <= memory_mb {
        return Finding::yes("capacity", found);
    }
    let found = format!("{found}; the largest sandbox has {most_vcpus} and {most_mb} MiB");
    let remedy =
        "take a larger machine, or lower capacity.sandbox_vcpus and capacity.sandbox_memory_mb";
    Finding::no("capacity", found, remedy)
}

/// A paused sandbox has its memory on the disk.
fn room(config: &Config) -> Finding {
    let folder = existing(&config.data_dir);
    let promised = config.capacity.total(agent::host_shape()).memory_mb;
    let wanted = DISK_MB + u64::from(promised);
    let remedy = format!(
        "give {} a disk with {wanted} MiB free, or promise less memory",
        config.data_dir.display()
    );
    match statvfs(&folder) {
        Ok(there) => {
            let free = there.f_bavail.saturating_mul(there.f_frsize) >> 20;
            let found = format!("{free} MiB are free at {}", folder.display());
            if free >= wanted {
                return Finding::yes("room", found);
            }
            let found =
                format!("{found}; what is promised, once paused, and templates need {wanted} MiB");
            Finding::no("room", found, remedy)
        }
        Err(error) => Finding::no("room", format!("{}: {error}", folder.display()), remedy),
    }
}

fn clock() -> Finding {
    let remedy = "run a time service (Debian: apt install chrony, or systemd-timesyncd) and wait until it has the time";
    match clock::is_synchronised() {
        Ok(true) => Finding::yes("clock", "the kernel's clock is kept by a time service"),
        Ok(false) => Finding::no("clock", "nobody keeps the kernel's clock right", remedy),
        Err(error) => Finding::no("clock", format!("the kernel does not say: {error}"), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_is_held_against_what_the_kernel_has() {
        let has = read("kernel.pid_max").unwrap();
        assert!(at_least("pids", "kernel.pid_max", has).ok);
        let short = at_least("pids", "kernel.pid_max", has + 1);
        let wanted = format!("sysctl -w kernel.pid_max={}", has + 1);
        assert!(!short.ok && short.remedy.unwrap().starts_with(&wanted));
        let unknown = at_least("none", "kernel.no_such", 1);
        assert!(!unknown.ok && unknown.found.contains("kernel.no_such"), "{unknown:?}");
        assert!(files(0).ok && !files(u64::MAX).ok);
    }
}
