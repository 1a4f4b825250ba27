//! The driver on this host, whichever version it has; what is read from the kernel's own descriptions; and what each
//! version writes.

use std::process::{Child, Command};

use super::{
    places::{Mount, homes, own_group},
    *,
};

const LIMITS: Limits = Limits { memory_bytes: 64 << 20, vcpus: 2, pids: 9 };

/// Groups of an agent that nobody else has, gone with the test.
struct Place(Cgroups);

impl Place {
    fn new(name: &str) -> Self {
        Self(Cgroups::open(&Instance::new(name).unwrap(), Mode::Require).unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for slot in self.0.list().unwrap() {
            self.0.remove(slot).unwrap();
        }
        self.0.close().unwrap();
        assert_eq!(self.0.homes().filter(|home| home.exists()).count(), 0);
    }
}

/// A process that enters a group and waits there.
fn resident(group: &Group) -> Child {
    let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    for dir in &group.dirs {
        fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    assert!(child.try_wait().unwrap().is_none());
    child
}

fn value(group: &Group, file: &str) -> String {
    let mut found = group.dirs.iter().filter_map(|dir| fs::read_to_string(dir.join(file)).ok());
    found.next().unwrap_or_else(|| panic!("no group has {file}")).trim().to_owned()
}

#[test]
fn group_is_made_found_kept_while_somebody_is_in_it_and_removed() {
    let place = Place::new("cgmade");
    let cgroups = &place.0;
    assert!(cgroups.find(Slot(3)).is_none());
    let group = cgroups.ensure(Slot(3), &LIMITS).unwrap().unwrap();
    cgroups.ensure(Slot(12), &LIMITS).unwrap();
    assert_eq!(cgroups.list().unwrap(), [Slot(3), Slot(12)]);
    assert_eq!(value(&group, "pids.max"), "9");

    let mut child = resident(&group);
    let smaller = Limits { pids: 5, ..LIMITS };
    let same = cgroups.ensure(Slot(3), &smaller).unwrap().unwrap();
    assert_eq!(
        (value(&same, "cgroup.procs"), value(&same, "pids.max")),
        (child.id().to_string(), "5".into())
    );
    // Another agent of the same name finds it, too.
    let again = Cgroups::open(&Instance::new("cgmade").unwrap(), Mode::Auto).unwrap();
    assert_eq!(again.find(Slot(3)).unwrap().dirs, group.dirs);
    again.close().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    cgroups.remove(Slot(3)).unwrap();
    cgroups.remove(Slot(3)).unwrap();
    assert!(group.dirs.iter().all(|dir| !dir.exists()));
    assert_eq!(cgroups.list().unwrap(), [Slot(12)]);
}

#[test]
fn removal_ends_who_is_still_in_the_group() {
    let place = Place::new("cgkill");
    let group = place.0.ensure(Slot(1), &LIMITS).unwrap().unwrap();
    let mut children = [resident(&group), resident(&group)];
    // One that is not reaped yet is in no group any more.
    place.0.remove(Slot(1)).unwrap();
    assert!(children.iter_mut().all(|child| !child.wait().unwrap().success()));
    assert!(group.dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn group_whose_folder_is_tidied_away_is_made_all_the_same() {
    let place = Place::new("cgtidy");
    place.0.close().unwrap();
    let group = place.0.ensure(Slot(0), &LIMITS).unwrap().unwrap();
    assert!(group.dirs.iter().all(|dir| dir.is_dir()));
}

#[test]
fn group_is_made_and_removed_again_and_again() {
    let place = Place::new("cgquick");
    let mut best = Duration::MAX;
    for slot in (0..20).map(Slot) {
        let started = Instant::now();
        let group = place.0.ensure(slot, &LIMITS).unwrap().unwrap();
        let doors = group.doors().unwrap();
        best = best.min(started.elapsed());
        assert_eq!(doors.len(), group.dirs.len());
        drop(doors);
        place.0.remove(slot).unwrap();
    }
    println!("a group is made in {best:?}");
}

#[test]
fn turned_off_or_missing_groups_do_nothing_and_say_so() {
    let off = Cgroups::open(&Instance::new("cgoff").unwrap(), Mode::Off).unwrap();
    assert_eq!((off.version(), off.reason()), ("none", "turned off by configuration"));
    assert!(off.ensure(Slot(0), &LIMITS).unwrap().is_none());
    assert!(off.find(Slot(0)).is_none() && off.list().unwrap().is_empty());
    off.remove(Slot(0)).unwrap();
    off.close().unwrap();
}

const HYBRID: &str = "\
    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:32 /docker/abc /sys/fs/cgroup/me\\040mory ro,relatime shared:7 - cgroup cgroup rw,memory\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
const OWN: &str = "9:name=systemd:/\n4:memory:/docker/abc/inner\n2:cpu,cpuacct:/a:b\n0::/system.slice/x.service\n";

#[test]
fn own_groups_are_found_in_mounts_of_every_kind() {
    let host = Host {
        mounts: HYBRID.lines().filter_map(Mount::parse).collect(),
        own: OWN.lines().filter_map(own_group).collect(),
    };
    let own: Vec<PathBuf> = host.mounts.iter().map(|mount| host.own_dir(mount)).collect();
    let expected = [
        "/sys/fs/cgroup/cpu,cpuacct/a:b",
        "/sys/fs/cgroup/me mory/inner",
        "/sys/fs/cgroup/unified/system.slice/x.service",
    ];
    assert_eq!(own, expected.map(PathBuf::from));
    // Above what is mounted here.
    let outside = Host { own: vec![("memory".into(), "/docker".into())], ..host };
    assert_eq!(outside.own_dir(&outside.mounts[1]), PathBuf::from("/sys/fs/cgroup/me mory"));
}

#[test]
fn host_without_a_controller_is_refused_with_its_name() {
    let host = |text: &str| Host {
        mounts: text.lines().filter_map(Mount::parse).collect(),
        own: Vec::new(),
    };
    let hybrid = host(HYBRID);
    let older = v1::layout(&hybrid, "ovenbird-cgnone").unwrap_err();
    assert!(older.to_string().contains("the controller pids"), "{older}");
    let newer = v2::layout(&host(""), "ovenbird-cgnone").unwrap_err();
    assert!(newer.to_string().contains("not mounted"), "{newer}");
    assert!(newer.to_string().contains("cgroups = \"off\""), "{newer}");
}

#[test]
fn group_left_by_an_agent_that_was_started_elsewhere_is_found() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = root.path().join("user.slice/session/ovenbird-a");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(root.path().join("system.slice/ovenbird-ab")).unwrap();
    // Below another user's, and another user's itself.
    let given = ["user.slice/given", "user.slice/given/ovenbird-a", "given/ovenbird-a"]
        .map(|dir| root.path().join(dir));
    for dir in &given {
        fs::create_dir_all(dir).unwrap();
    }
    for dir in [&given[0], &given[2]] {
        std::os::unix::fs::chown(dir, Some(61_000), None).unwrap();
    }
    let parent = root.path().join("system.slice");
    let found = homes(root.path(), &parent, "ovenbird-a");
    assert_eq!(found, [parent.join("ovenbird-a"), elsewhere]);
}

#[test]
fn setting_that_a_kernel_does_not_know_is_passed_over_only_where_it_may_be() {
    let root = tempfile::tempdir().unwrap();
    Setting::where_known("memory.swap.max", 0).write(root.path()).unwrap();
    let error = Setting::of("memory.max", 0).write(root.path()).unwrap_err();
    assert!(error.to_string().contains("memory.max"), "{error}");
    assert!(!root.path().join("memory.max").exists());
}
