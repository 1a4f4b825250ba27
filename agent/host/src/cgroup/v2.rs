//! Version 2: one hierarchy, where only groups without processes hand controllers down.
//!
//! The parent of the agent's groups is the nearest group above the agent that was delegated to it, which is marked
//! with the attribute `delegate`; systemd does that for `Delegate=yes`. Where there is none, it is the root. An agent
//! that is alone in its delegated group moves into a leaf of it; processes of others are never moved.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Error, Hierarchy, Layout, Limits, PERIOD_US, Setting, cpus, failed,
    places::{Host, homes},
};

/// Waits until all processors have passed a quiet state, which can take 15 ms, unless the hierarchy is mounted with
/// `favordynmods`.
const PROCS: &str = "cgroup.procs";
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// The group that an agent moves itself to.
const LEAF: &str = "agent";
/// Set on a group that is its service's to divide.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// The weight of one processor.
const WEIGHT: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;

/// Finds the parent, gets its controllers, and makes the agent's group.
pub(super) fn layout(host: &Host, home: &str) -> Result<Layout, Error> {
    let Some(mount) = host.mounts.iter().find(|mount| mount.is_v2) else {
        return Err(Error::Unusable("it is not mounted".into()));
    };
    let own = host.own_dir(mount);
    let parent = parent_of(&own, &mount.point);
    hand_down(&parent, own == parent)?;
    let homes = homes(&mount.point, &parent, home);
    let layout = Layout {
        version: "v2",
        hierarchies: vec![Hierarchy { homes, settings, has_memory: true }],
        door: PROCS,
        set_up_home,
        oom_file: "memory.events",
        kill_file: Some("cgroup.kill"),
    };
    for hierarchy in &layout.hierarchies {
        layout.prepare(&hierarchy.homes[0])?;
    }
    Ok(layout)
}

/// All machines together weigh as much as the host has processors, see `v1`.
fn set_up_home(home: &Path) -> Result<(), Error> {
    Setting::of("cpu.weight", (cpus() * WEIGHT).min(WEIGHT_MAX)).write(home)?;
    hand_down(home, false)
}

fn parent_of(own: &Path, mount: &Path) -> PathBuf {
    let below_root = own.ancestors().take_while(|dir| *dir != mount);
    let mut delegated = below_root.filter(|dir| is_delegated(dir));
    delegated.next().unwrap_or(mount).to_owned()
}

fn is_delegated(dir: &Path) -> bool {
    MARKS.iter().any(|mark| {
        let mut value = [0_u8; 2];
        rustix::fs::getxattr(dir, *mark, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// Lets the groups in a group have the controllers.
fn hand_down(dir: &Path, is_own: bool) -> Result<(), Error> {
    let read = |file: &str| {
        let path = dir.join(file);
        fs::read_to_string(&path).map_err(failed("read", &path))
    };
    let has = |text: &str, controller: &str| text.split_whitespace().any(|word| word == controller);
    let (there, handed) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    if let Some(missing) = CONTROLLERS.iter().find(|controller| !has(&there, controller)) {
        let dir = dir.display();
        return Err(Error::Unusable(format!("{dir} does not have the controller {missing}")));
    }
    let missing: Vec<String> = CONTROLLERS
        .iter()
        .filter(|controller| !has(&handed, controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let path = dir.join("cgroup.subtree_control");
    let hand = || fs::write(&path, missing.join(" "));
    let handed = match hand() {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && is_own => {
            move_to_leaf(dir)?;
            hand()
        }
        other => other,
    };
    handed.map_err(failed("hand down the controllers in", &path))
}

/// Leaves a group that this process is alone in.
fn move_to_leaf(dir: &Path) -> Result<(), Error> {
    let path = dir.join(PROCS);
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    let own = std::process::id().to_string();
    if text.lines().any(|pid| pid != own) {
        let dir = dir.display();
        let reason = format!("{dir} has processes besides the agent: start it alone in its group");
        return Err(Error::Unusable(reason));
    }
    let leaf = dir.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make the control group", &leaf)(error));
        }
        _ => {}
    }
    Setting::of(PROCS, 0).write(&leaf)
}

fn settings(limits: &Limits) -> Vec<Setting> {
    let vcpus = u64::from(limits.vcpus);
    vec![
        Setting::of("memory.max", limits.memory_bytes),
        Setting::where_known("memory.swap.max", 0),
        Setting::of("cpu.max", format!("{} {PERIOD_US}", vcpus * PERIOD_US)),
        // What a quiet machine has saved up it may spend in one go.
        Setting::where_known("cpu.max.burst", vcpus * PERIOD_US),
        Setting::of("cpu.weight", (vcpus * WEIGHT).min(WEIGHT_MAX)),
        Setting::of("pids.max", limits.pids),
    ]
}
