//! Control groups of version 2, driven for real: this host may have version 1, but a guest has a whole version 2 of its
//! own. The test runs itself in there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ovenbird_host::{
    Instance, Slot,
    cgroup::{Cgroups, Limits, Mode},
};
use ovenbird_hostagent::v1 as host;
use ovenbird_testkit::wait_until;

use crate::support::*;

const INSIDE: &str = "OVENBIRD_TEST_INSIDE";
const ROOT: &str = "/sys/fs/cgroup";
const LIMITS: Limits = Limits { memory_bytes: 32 << 20, vcpus: 2, pids: 7 };

#[tokio::test]
async fn version_2_is_laid_out_entered_counted_and_removed_in_a_guest() {
    if std::env::var_os(INSIDE).is_some() {
        groups_below_the_root().await;
        groups_below_a_delegated_one();
        return;
    }
    let options = Options { settings: "message_max_bytes = 67108864".into(), ..Options::default() };
    let host = Host::start_with(options).await;
    host.create("minimal", "a").await;
    let small = host.folder.join("small");
    let stripped =
        Command::new("strip").arg("-o").arg(&small).arg(std::env::current_exe().unwrap()).status();
    assert!(stripped.unwrap().success());
    let write = host::WriteFileRequest {
        sandbox_id: "a".into(),
        path: "/root/test".into(),
        content: fs::read(&small).unwrap(),
        fence: None,
    };
    host.client.clone().write_file(write).await.unwrap();
    let name = "groups::version_2_is_laid_out_entered_counted_and_removed_in_a_guest";
    let script = format!(
        "chmod +x /root/test && {INSIDE}=1 RUST_BACKTRACE=0 /root/test --exact {name} --nocapture 2>&1"
    );
    let answer = host.exec("a", &script).await.unwrap();
    let said = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(answer.exit_code, 0, "{said}{}", String::from_utf8_lossy(&answer.stderr));
    assert!(said.contains("1 passed"), "{said}");
    host.stop().await;
}

fn open(name: &str) -> Cgroups {
    Cgroups::open(&Instance::new(name).unwrap(), Mode::Require).unwrap()
}

fn value(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap().trim().to_owned()
}

fn own() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

async fn groups_below_the_root() {
    let cgroups = open("root");
    assert_eq!(cgroups.version(), "v2");
    let group = cgroups.ensure(Slot(7), &LIMITS).unwrap().unwrap();
    let dir = PathBuf::from(ROOT).join("ovenbird-root/7");
    assert_eq!(group.dirs(), std::slice::from_ref(&dir));
    assert_eq!(value(&dir, "memory.max"), (32 << 20).to_string());
    assert_eq!(value(&dir, "memory.swap.max"), "0");
    assert_eq!(value(&dir, "cpu.max"), "200000 100000");
    assert_eq!((value(&dir, "cpu.weight"), value(&dir, "pids.max")), ("200".into(), "7".into()));
    // The agent stays where it was: nobody but the root's processes needs no leaf.
    assert!(own().starts_with("/ovenbird/exec-"), "{}", own());

    // Somebody who wants more memory than there is, in the way in which a machine enters.
    assert_eq!(group.oom_kills(), 0);
    let greedy =
        "echo 0 > $0/cgroup.procs; head -c 80000000 /dev/zero | tail -c 80000000 >/dev/null";
    Command::new("sh").args(["-c", greedy]).arg(&dir).status().unwrap();
    assert!(group.oom_kills() > 0, "{}", value(&dir, "memory.events"));
    wait_until("whoever it began to be gone, too", PATIENCE, || async {
        value(&dir, "pids.current") == "0"
    })
    .await;

    let mut waiting = Command::new("sh")
        .args(["-c", "echo 0 > $0/cgroup.procs; echo in; exec sleep 1000"])
        .arg(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(waiting.stdout.as_mut().unwrap(), &mut line).unwrap();
    let kept = cgroups.ensure(Slot(7), &Limits { pids: 8, ..LIMITS }).unwrap().unwrap();
    assert!(kept.oom_kills() > 0, "a group that somebody is in keeps its counters");
    assert_eq!((value(&dir, "pids.max"), value(&dir, "pids.current")), ("8".into(), "1".into()));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert_eq!(cgroups.ensure(Slot(7), &LIMITS).unwrap().unwrap().oom_kills(), 0);
    assert_eq!(cgroups.list().unwrap(), [Slot(7)]);
    cgroups.remove(Slot(7)).unwrap();
    cgroups.close().unwrap();
    assert!(!dir.parent().unwrap().exists());
}

/// As systemd makes one for a service with `Delegate=yes`, and starts the service in it.
fn groups_below_a_delegated_one() {
    let service = PathBuf::from(ROOT).join("system.service");
    fs::create_dir(&service).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&service, "user.delegate", b"1", flags).unwrap();
    fs::write(service.join("cgroup.procs"), "0").unwrap();

    // Not while somebody else is in it, who would have to be moved.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let refused = Cgroups::open(&Instance::new("service").unwrap(), Mode::Require).unwrap_err();
    assert!(refused.to_string().contains("has processes besides the agent"), "{refused}");
    let without = Cgroups::open(&Instance::new("service").unwrap(), Mode::Auto).unwrap();
    assert_eq!(without.version(), "none");
    assert!(without.reason().contains("version 1: no hierarchy"), "{}", without.reason());
    other.kill().unwrap();
    other.wait().unwrap();

    let cgroups = open("service");
    assert_eq!(own(), "/system.service/agent");
    let group = cgroups.ensure(Slot(0), &LIMITS).unwrap().unwrap();
    assert_eq!(group.dirs(), [service.join("ovenbird-service/0")]);
    assert_eq!(value(&group.dirs()[0], "pids.max"), "7");
    // The next agent of this service, from its leaf.
    let next = open("service");
    assert_eq!(next.find(Slot(0)).unwrap().dirs(), group.dirs());
    // One that is started by hand finds what the service left.
    fs::write(PathBuf::from(ROOT).join("cgroup.procs"), "0").unwrap();
    let by_hand = open("service");
    assert_eq!(by_hand.list().unwrap(), [Slot(0)]);
    by_hand.remove(Slot(0)).unwrap();
    by_hand.close().unwrap();
    assert!(!service.join("ovenbird-service").exists());
}
