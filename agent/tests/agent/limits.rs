//! What a machine is on its host: nobody's process, in nobody else's files, within its limits; and what the host says
//! when it has given out everything.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ovenbird_hostagent::v1 as host;
use tonic::Code;

use crate::support::*;

/// Lines of a process's status.
fn status(pid: &str) -> impl Fn(&str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    }
}

/// The machine that works in a sandbox's folder.
pub(crate) fn machine(host: &Host, id: &str) -> String {
    let dir = host.data().join("sandboxes").join(id).canonicalize().unwrap();
    let works_there =
        |pid: &String| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir);
    let mut machines: Vec<String> = host.machines().into_iter().filter(works_there).collect();
    assert_eq!(machines.len(), 1, "{id}: {machines:?}");
    machines.remove(0)
}

/// The control groups of a process that bear the agent's name.
pub(crate) fn groups(host: &Host, pid: &str) -> Vec<PathBuf> {
    let homes = control_groups(&format!("ovenbird-{}", host.instance));
    let dirs = homes.iter().flat_map(|home| std::fs::read_dir(home).unwrap().flatten());
    let holds = |dir: &PathBuf| {
        std::fs::read_to_string(dir.join("cgroup.procs"))
            .is_ok_and(|text| text.lines().any(|line| line == pid))
    };
    dirs.map(|entry| entry.path()).filter(holds).collect()
}

/// A file of a process's groups.
pub(crate) fn limit(groups: &[PathBuf], names: [&str; 2]) -> String {
    let mut paths = groups.iter().flat_map(|dir| names.map(|name| dir.join(name)));
    let path = paths.find(|path| path.is_file()).unwrap_or_else(|| panic!("{names:?} {groups:?}"));
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// What a user can read of a folder, also when somebody with root's powers has put him into it, and whether he can
/// list it.
fn readable(user: &str, dir: &Path, within: &Path) -> Vec<String> {
    let script = "cd $0 && ls . && echo listed; for f in memory state disk qemu.log qmp.sock guest.sock vmlinux initrd \
        rootfs.ext4; do head -c 1 $0/$f >/dev/null && echo $f; done; cat ../*/qemu.log && echo others";
    let output = Command::new("setpriv")
        .args(["--reuid", user, "--regid", user, "--clear-groups", "sh", "-c", script])
        .arg(dir)
        .current_dir(within)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn machine_is_a_user_of_its_own_without_powers_and_within_its_groups() {
    let host = Host::start().await;
    let larger = host::CreateSandboxRequest { vcpus: 2, ..sandbox("minimal", "b") };
    host.create("minimal", "a").await;
    host.client.clone().create_sandbox(larger).await.unwrap();
    let machines = ["a", "b"].map(|id| machine(&host, id));
    let mut users = Vec::new();
    for (id, pid) in ["a", "b"].into_iter().zip(&machines) {
        let status = status(pid);
        let ids: Vec<String> = status("Uid").split_whitespace().map(str::to_owned).collect();
        assert!(ids.iter().all(|uid| *uid == ids[0] && *uid != "0"), "{ids:?}");
        assert_eq!(status("Gid").split_whitespace().next(), Some(ids[0].as_str()));
        assert_eq!(status("Groups"), "");
        for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(capabilities), "0000000000000000", "{id} {capabilities}");
        }
        assert_eq!((status("NoNewPrivs").as_str(), status("Seccomp").as_str()), ("1", "2"));
        // The filters are those of QEMU's groups of system calls, of which spawning is one.
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        assert!(arguments.contains("elevateprivileges=deny,spawn=deny,resourcecontrol=deny"));
        users.push(ids[0].clone());
    }
    assert_ne!(users[0], users[1]);

    for (number, pid) in machines.iter().enumerate() {
        let groups = groups(&host, pid);
        let memory = limit(&groups, ["memory.limit_in_bytes", "memory.max"]);
        assert_eq!(memory, ((256 + 164) << 20).to_string());
        let vcpus = number as u64 + 1;
        match limit(&groups, ["cpu.cfs_quota_us", "cpu.max"]).split_once(' ') {
            None => {
                assert_eq!(limit(&groups, ["cpu.cfs_quota_us", ""]), (vcpus * 100_000).to_string())
            }
            Some((quota, _)) => assert_eq!(quota, (vcpus * 100_000).to_string()),
        }
        let most: u64 = limit(&groups, ["pids.max", ""]).parse().unwrap();
        let now: u64 = limit(&groups, ["pids.current", ""]).parse().unwrap();
        println!("threads of {vcpus} vcpus: {now} of {most}");
        assert!(now > vcpus && now * 2 < most, "{now} of {most}");
    }

    // Neither the other's files, nor the templates, nor the names in its own folder.
    let dirs = ["a", "b"].map(|id| host.data().join("sandboxes").join(id));
    assert_eq!(readable(&users[0], Path::new("."), &dirs[1]), Vec::<String>::new());
    assert_eq!(readable(&users[1], Path::new("."), &dirs[0]), Vec::<String>::new());
    for closed in ["images/minimal", "sandboxes/b", "kernels"] {
        let closed = host.data().join(closed);
        assert_eq!(readable(&users[0], &closed, Path::new("/")), Vec::<String>::new());
    }
    let own = readable(&users[0], Path::new("."), &dirs[0]);
    // A cold machine's kernel and initramfs are everybody's, its memory and disk are its own.
    assert_eq!(own, ["memory", "disk", "qemu.log", "vmlinux", "initrd"]);

    let told = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert!(["v1", "v2"].contains(&told.cgroups.as_str()), "{}", told.cgroups);
    host.destroy("a").await;
    assert_eq!(groups(&host, &machines[0]), Vec::<PathBuf>::new());
    host.pause("b").await.unwrap();
    host.resume("b", 0).await.unwrap();
    assert!(!groups(&host, &machine(&host, "b")).is_empty(), "a resumed machine is limited, too");
    host.destroy("b").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn agent_that_finds_groups_of_a_killed_one_keeps_those_of_its_machines_and_removes_the_rest()
{
    let mut host = Host::start_with(Options { keep: true, ..Options::default() }).await;
    host.create("minimal", "a").await;
    let before = groups(&host, &machine(&host, "a"));
    assert!(!before.is_empty());
    host.kill_agent();
    // Of a slot that nobody has.
    let strays: Vec<PathBuf> = before.iter().map(|dir| dir.with_file_name("777")).collect();
    strays.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    host.start_agent().await;
    let left: Vec<_> = strays.iter().filter(|dir| dir.exists()).collect();
    assert!(left.is_empty(), "{left:?}\n{}", host.log_text());
    assert_eq!(groups(&host, &machine(&host, "a")), before, "{}", host.log_text());
    assert_eq!(host.shell("a", "echo well").await, "well");
    host.terminate().await;
}

#[tokio::test]
async fn machine_beyond_its_memory_is_stopped_and_says_so_and_the_next_one_is_not_touched() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.snapshot("origin", "snap").await.unwrap();
    host.create("snap", "a").await;
    host.create("snap", "b").await;
    // A fork's own pages are memory that cannot be written anywhere else.
    let groups = groups(&host, &machine(&host, "a"));
    let used: u64 = limit(&groups, ["memory.usage_in_bytes", "memory.current"]).parse().unwrap();
    let lower = used + (24 << 20);
    for dir in &groups {
        for name in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"] {
            if dir.join(name).is_file() {
                std::fs::write(dir.join(name), lower.to_string()).unwrap();
            }
        }
    }
    let call = host
        .exec(
            "a",
            "mount -t tmpfs -o size=200m tmpfs /mnt; head -c 150000000 /dev/urandom > /mnt/f",
        )
        .await;
    let refused = call.unwrap_err();
    assert!([Code::Unavailable, Code::FailedPrecondition].contains(&refused.code()), "{refused}");
    host.wait_for_status("a", "stopped").await;
    let refused = host.exec("a", "true").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let expected = "sandbox a is stopped, not running: its QEMU was killed, for it needed more than its memory limit of \
                    420 MiB";
    assert_eq!(refused.message(), expected);
    assert_eq!(host.shell("b", "echo well").await, "well");
    host.destroy("a").await;
    host.destroy("b").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn overcommit_bounds_what_is_promised_and_is_shown_and_named() {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib = memory.lines().next().unwrap().split_whitespace().nth(1).unwrap();
    let total_mb = kib.parse::<f64>().unwrap() / 1024.0;
    let cpus = std::thread::available_parallelism().unwrap().get();
    // One processor, and memory for one sandbox.
    let capacity = format!(
        "cpu_overcommit = {}\nmemory_overcommit = 0.75\nmemory_mb = 300",
        1.0 / cpus as f64
    );
    let options =
        Options { capacity, settings: "cgroups = 'require'".into(), ..Options::default() };
    let host = Host::start_with(options).await;
    let told = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (told.vcpus, told.memory_mb, told.host_vcpus),
        (1, 300, i32::try_from(cpus).unwrap())
    );
    assert!((f64::from(told.host_memory_mb) - total_mb).abs() < 2.0);
    assert!((told.memory_overcommit - 0.75).abs() < f64::EPSILON);

    let wish = host::CreateSandboxRequest { vcpus: 2, ..sandbox("minimal", "a") };
    let refused = host.client.clone().create_sandbox(wish).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        refused.message().contains("vcpus 0 of 1 are in use, 1 are free and 2 more"),
        "{refused}"
    );
    assert!(refused.message().contains("capacity.cpu_overcommit"), "{refused}");
    let wish = host::CreateSandboxRequest { memory_mb: 512, ..sandbox("minimal", "a") };
    let refused = host.client.clone().create_sandbox(wish).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("300 are free and 512 more"), "{refused}");
    assert!(refused.message().contains("a smaller memory_mb"), "{refused}");
    host.create("minimal", "a").await;
    host.stop().await;
}
