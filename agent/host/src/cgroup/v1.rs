//! Version 1: a hierarchy per controller, or per few of them; a machine has a group in each that matters.
//!
//! They lie below the agent's own groups, so what whoever started the agent has limited stays limited.

use std::path::Path;

use super::{
    Error, Hierarchy, Layout, Limits, PERIOD_US, Setting, Settings, cpus,
    places::{Host, homes},
};

/// What a controller sets.
const CONTROLLERS: [(&str, Settings); 3] = [("memory", memory), ("cpu", cpu), ("pids", pids)];
/// A thread that is its process's only one writes itself there. Unlike `cgroup.procs`, this does not wait until every
/// processor has passed a quiet state, which can take 15 ms.
const TASKS: &str = "tasks";
/// The weight of one processor.
const SHARES: u64 = 1024;
const SHARES_MAX: u64 = 262_144;

/// Finds the hierarchies and makes the agent's groups.
pub(super) fn layout(host: &Host, home: &str) -> Result<Layout, Error> {
    let mut hierarchies = Vec::new();
    for (controller, settings) in CONTROLLERS {
        let mut mounts = host.mounts.iter().filter(|mount| !mount.is_v2);
        let mount = mounts.find(|mount| mount.options.iter().any(|option| option == controller));
        let Some(mount) = mount else {
            return Err(Error::Unusable(format!("no hierarchy has the controller {controller}")));
        };
        let homes = homes(&mount.point, &host.own_dir(mount), home);
        hierarchies.push(Hierarchy { homes, settings, has_memory: controller == "memory" });
    }
    let layout = Layout {
        version: "v1",
        hierarchies,
        door: TASKS,
        set_up_home,
        oom_file: "memory.oom_control",
        kill_file: None,
    };
    for hierarchy in &layout.hierarchies {
        layout.prepare(&hierarchy.homes[0])?;
    }
    Ok(layout)
}

/// All machines together weigh as much as the host has processors: one alone does not push others' work aside, nor is
/// it pushed aside by it.
fn set_up_home(home: &Path) -> Result<(), Error> {
    Setting::where_known("cpu.shares", (cpus() * SHARES).min(SHARES_MAX)).write(home)
}

fn memory(limits: &Limits) -> Vec<Setting> {
    vec![
        // No swap on top, where it is counted. First nothing, since neither may ever pass the other.
        Setting::where_known("memory.memsw.limit_in_bytes", -1),
        Setting::of("memory.limit_in_bytes", limits.memory_bytes),
        Setting::where_known("memory.memsw.limit_in_bytes", limits.memory_bytes),
    ]
}

fn cpu(limits: &Limits) -> Vec<Setting> {
    let vcpus = u64::from(limits.vcpus);
    vec![
        Setting::of("cpu.cfs_period_us", PERIOD_US),
        Setting::of("cpu.cfs_quota_us", vcpus * PERIOD_US),
        // What a quiet machine has saved up it may spend in one go.
        Setting::where_known("cpu.cfs_burst_us", vcpus * PERIOD_US),
        Setting::of("cpu.shares", (vcpus * SHARES).min(SHARES_MAX)),
    ]
}

fn pids(limits: &Limits) -> Vec<Setting> {
    vec![Setting::of("pids.max", limits.pids)]
}
