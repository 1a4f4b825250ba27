//! The driver against the real QEMU and the guest kernel, without a guest of ours in it.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::{file, *};
use crate::Identity;

const OWNER: Identity = Identity { uid: 61_100, gid: 61_100 };
const MEMORY_MB: u32 = 128;
const PATIENCE: Duration = Duration::from_secs(60);

/// A kernel whose init does not exist: it panics when it has come up.
const PANICS: &str = "rdinit=/no/such/init root=/dev/none";
/// A kernel that waits for its root disk for ever.
const WAITS: &str = "rdinit=/no/such/init root=/dev/none rootwait";

struct Place {
    root: tempfile::TempDir,
    kernel: PathBuf,
}

impl Place {
    fn new() -> Self {
        let kernel = std::env::var_os("OVENBIRD_KERNEL")
            .expect("OVENBIRD_KERNEL names the guest kernel: run this by `cargo dev test`");
        let root = tempfile::tempdir().unwrap();
        let kept = root.path().join("vmlinux");
        std::fs::copy(kernel, &kept).unwrap();
        std::fs::write(root.path().join("initrd"), [0; 4096]).unwrap();
        Self { root, kernel: kept }
    }

    fn directory(&self, name: &str) -> Directory {
        let directory = Directory::create(&self.root.path().join(name), OWNER).unwrap();
        directory.link(&self.kernel, file::KERNEL).unwrap();
        directory.link(&self.root.path().join("initrd"), file::INITRD).unwrap();
        directory
    }

    fn spec(&self, name: &str, arguments: &str) -> MachineSpec {
        let directory = self.directory(name);
        directory.add(file::MEMORY, u64::from(MEMORY_MB) << 20).unwrap();
        MachineSpec {
            name: name.into(),
            directory,
            vcpus: 1,
            memory_mb: MEMORY_MB,
            memory: Memory::Own,
            disk: None,
            nic: None,
            kernel_arguments: arguments.into(),
            cgroup: None,
        }
    }
}

impl Drop for Place {
    /// A test that fails leaves no machine behind either.
    fn drop(&mut self) {
        kill_all_below(self.root.path()).unwrap();
    }
}

async fn qemu() -> Qemu {
    Qemu::open("qemu-system-x86_64", Accelerator::Tcg).await.unwrap()
}

fn status(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

fn gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn panicking_kernel_stays_with_its_console_until_it_is_killed() {
    let place = Place::new();
    let spec = place.spec("panics", PANICS);
    let machine = qemu().await.launch(&spec, Start::Boot).await.unwrap();
    assert_eq!(timeout(PATIENCE, machine.ended()).await.unwrap(), Ending::Guest);
    let console = machine.console_tail(2048).await;
    assert!(console.contains("Kernel panic - not syncing: VFS"), "{console}");
    assert!(console.len() <= 2048);
    machine.kill().await.unwrap();
    machine.kill().await.unwrap();
    assert!(gone(machine.pid()));
}

#[tokio::test]
async fn machine_has_no_powers_left() {
    let place = Place::new();
    let machine = qemu().await.launch(&place.spec("plain", WAITS), Start::Boot).await.unwrap();
    let status = status(machine.pid());
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid"), "61100 61100 61100 61100");
    assert_eq!(field("Gid"), "61100 61100 61100 61100");
    assert_eq!(field("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn no_file_grows_beyond_the_disk_or_what_a_state_needs() {
    let place = Place::new();
    for (name, disk_mb, expected_mb) in [("small", 16, 384), ("large", 1024, 1024)] {
        let mut spec = place.spec(name, WAITS);
        spec.directory.add("disk", disk_mb << 20).unwrap();
        spec.disk = Some("disk".into());
        let machine = qemu().await.launch(&spec, Start::Boot).await.unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", machine.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max file size")).unwrap();
        let limits: Vec<u64> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert_eq!(limits, [expected_mb << 20; 2], "{name}");
        machine.kill().await.unwrap();
    }
}

#[tokio::test]
async fn saved_machine_is_restored_by_two_forks_that_share_its_memory_file() {
    let place = Place::new();
    let qemu = qemu().await;
    let spec = place.spec("origin", WAITS);
    let machine = qemu.launch(&spec, Start::Boot).await.unwrap();
    machine.pause().await.unwrap();
    machine.save(Saved::Devices).await.unwrap();
    machine.kill().await.unwrap();
    let origin = spec.directory.path();
    assert!(std::fs::metadata(origin.join(file::STATE)).unwrap().size() < 1 << 20);

    // As a template's files: root's, read-only for all who have a link.
    for name in [file::MEMORY, file::STATE] {
        let path = origin.join(name);
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        std::fs::set_permissions(&path, read_only).unwrap();
    }
    let before = std::fs::metadata(origin.join(file::MEMORY)).unwrap().mtime_nsec();
    let fork = async |name: &str| {
        let directory = place.directory(name);
        directory.link(&origin.join(file::MEMORY), file::MEMORY).unwrap();
        directory.link(&origin.join(file::STATE), file::STATE).unwrap();
        let spec = MachineSpec {
            name: name.into(),
            directory,
            memory: Memory::CopyOnWrite,
            ..spec.clone()
        };
        let machine = qemu.launch(&spec, Start::Restore(Saved::Devices)).await.unwrap();
        machine.resume().await.unwrap();
        machine
    };
    let (first, second) = (fork("first").await, fork("second").await);
    for machine in [&first, &second] {
        assert!(timeout(Duration::from_millis(200), machine.ended()).await.is_err());
        machine.kill().await.unwrap();
    }
    assert_eq!(std::fs::metadata(origin.join(file::MEMORY)).unwrap().mtime_nsec(), before);
}

#[tokio::test]
async fn machine_that_cannot_start_says_why_and_leaves_no_process() {
    let place = Place::new();
    let mut spec = place.spec("refused", PANICS);
    spec.disk = Some("no-such-disk".into());
    let error = qemu().await.launch(&spec, Start::Boot).await.unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(error.to_string().contains("no-such-disk"), "{error}");
    assert!(kill_all_below(place.root.path()).unwrap().is_empty());
}

#[tokio::test]
async fn state_that_is_none_is_refused() {
    let place = Place::new();
    let spec = place.spec("garbage", PANICS);
    std::fs::write(spec.directory.path().join(file::STATE), "garbage").unwrap();
    let started = qemu().await.launch(&spec, Start::Restore(Saved::Devices)).await;
    assert!(started.is_err());
    assert!(kill_all_below(place.root.path()).unwrap().is_empty());
}

#[tokio::test]
async fn machines_left_behind_are_found_by_their_directory() {
    let place = Place::new();
    let machine = qemu().await.launch(&place.spec("left", WAITS), Start::Boot).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(kill_all_below(elsewhere.path()).unwrap().is_empty());
    assert!(kill_all_of(OWNER.uid + 1).unwrap().is_empty());
    assert_eq!(kill_all_below(place.root.path()).unwrap(), [machine.pid()]);
    assert_eq!(timeout(PATIENCE, machine.ended()).await.unwrap(), Ending::Process);
    assert!(gone(machine.pid()));
}

async fn adopted(spec: &MachineSpec) -> Adopted {
    qemu().await.adopt(spec).await.unwrap().expect("it has a process")
}

#[tokio::test]
async fn machine_whose_agent_has_gone_is_adopted_wherever_that_was() {
    let place = Place::new();
    let spec = place.spec("adopted", WAITS);
    let machine = qemu().await.launch(&spec, Start::Boot).await.unwrap();
    let pid = machine.pid();
    drop(machine);
    let Adopted { machine, is_paused } = adopted(&spec).await;
    assert_eq!((machine.pid(), is_paused), (pid, false));

    machine.pause().await.unwrap();
    drop(machine);
    let Adopted { machine, is_paused } = adopted(&spec).await;
    assert!(is_paused);
    // A state that is complete.
    machine.save(Saved::Devices).await.unwrap();
    drop(machine);
    let Adopted { machine, is_paused } = adopted(&spec).await;
    assert!(is_paused);
    machine.resume().await.unwrap();
    // One that has just begun.
    machine.pause().await.unwrap();
    let writing = async {
        while std::fs::metadata(spec.directory.path().join(file::STATE)).unwrap().len() == 0 {
            tokio::task::yield_now().await;
        }
    };
    spec.directory.add(file::STATE, 0).unwrap();
    tokio::select! {
        saved = machine.save(Saved::DevicesAndMemory) => saved.unwrap(),
        () = writing => {}
    }
    drop(machine);
    let Adopted { machine, is_paused } = adopted(&spec).await;
    assert!(is_paused);
    machine.resume().await.unwrap();
    drop(machine);
    let Adopted { machine, is_paused } = adopted(&spec).await;
    assert_eq!((machine.pid(), is_paused), (pid, false));
    assert!(timeout(Duration::from_millis(200), machine.ended()).await.is_err());

    machine.kill().await.unwrap();
    machine.kill().await.unwrap();
    assert_eq!(timeout(PATIENCE, machine.ended()).await.unwrap(), Ending::Process);
    assert!(qemu().await.adopt(&spec).await.unwrap().is_none());
}

#[tokio::test]
async fn guest_that_turned_itself_off_while_nobody_listened_has_ended() {
    let place = Place::new();
    let spec = place.spec("off", PANICS);
    let machine = qemu().await.launch(&spec, Start::Boot).await.unwrap();
    assert_eq!(timeout(PATIENCE, machine.ended()).await.unwrap(), Ending::Guest);
    drop(machine);
    let Adopted { machine, .. } = adopted(&spec).await;
    assert_eq!(timeout(PATIENCE, machine.ended()).await.unwrap(), Ending::Guest);
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn strays_are_all_but_what_is_kept_also_without_a_directory() {
    let place = Place::new();
    let (kept, stray) = (place.spec("kept", WAITS), place.spec("stray", WAITS));
    let qemu = qemu().await;
    let (one, two) = (qemu.launch(&kept, Start::Boot), qemu.launch(&stray, Start::Boot));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    Directory::remove(stray.directory.path()).unwrap();
    let dir = kept.directory.path();
    let keep = [(dir.to_owned(), OWNER.uid)];
    assert_eq!(kill_strays(place.root.path(), &(0..0), &keep).unwrap(), [two.pid()]);
    assert_eq!(count_in(dir, OWNER.uid).unwrap(), 1);
    assert_eq!(count_in(dir, OWNER.uid + 1).unwrap(), 0);
    one.kill().await.unwrap();
}

#[tokio::test]
async fn probe_boot_tells_a_kernel_that_comes_up_from_one_that_does_not() {
    let place = Place::new();
    let (scratch, initrd) = (place.root.path(), place.root.path().join("initrd"));
    let qemu = qemu().await;
    probe::boots(&qemu, &place.kernel, &initrd, scratch, OWNER, PATIENCE).await.unwrap();
    std::fs::write(scratch.join("no-kernel"), "garbage").unwrap();
    let garbage = scratch.join("no-kernel");
    let refused = probe::boots(&qemu, &garbage, &initrd, scratch, OWNER, PATIENCE).await;
    assert!(refused.is_err());
    assert!(!scratch.join("kvm-probe").exists());
}
