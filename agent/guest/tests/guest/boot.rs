//! From power on to ready, and to power off.

use std::os::unix::fs::FileExt;

use ovenbird_guest_protocol::v1::{ConfigureRequest, ShutdownRequest};

use crate::{
    call::{assert_clock, exec, info, print},
    vm::Vm,
};

#[tokio::test]
async fn boot_ends_ready_with_timers_the_hosts_clock_and_the_whole_disk() {
    let vm = Vm::boot().await;
    let info = info(&vm.client).await;
    assert_eq!(info.boot_id.len(), 16);
    assert!(!info.clock_event_device.is_empty(), "{info:?}");
    assert!(info.timer_check_us >= 1000, "{info:?}");
    assert_clock(&vm.client, 2000).await;
    // The image is smaller than the disk it lies on: the file system has grown.
    assert!(info.disk_total_bytes > 900 << 20, "{info:?}");
    assert!(info.memory_total_bytes > 180 << 20, "{info:?}");
    eprintln!("ready {} ms after the kernel's start", info.uptime_ms);
}

#[tokio::test]
async fn userland_finds_what_it_expects_of_a_running_system() {
    let vm = Vm::boot().await;
    let mounts = print(&vm.client, "cut -d' ' -f2 /proc/mounts").await;
    for path in ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/sys/fs/cgroup"] {
        assert!(mounts.lines().any(|mount| mount == path), "{path} in {mounts}");
    }
    assert_eq!(print(&vm.client, "ls -A /init /modules 2>/dev/null || echo gone").await, "gone\n");
    assert_eq!(print(&vm.client, "echo through > /dev/fd/1").await, "through\n");
    assert_eq!(print(&vm.client, "grep -c nameserver /etc/resolv.conf").await.trim(), "2");
    assert_eq!(print(&vm.client, "cat /sys/class/net/lo/operstate").await, "unknown\n");
    // Destination, gateway, mask: the default route over 172.16.0.1, and the /30 itself.
    let routes = print(&vm.client, "grep eth0 /proc/net/route | cut -f2,3,8").await;
    assert_eq!(routes, "00000000\t010010AC\t00000000\n000010AC\t00000000\tFCFFFFFF\n");
    assert!(print(&vm.client, "cat /proc/net/fib_trie").await.contains("172.16.0.2"));
    assert_eq!(print(&vm.client, "ulimit -n").await, "65536\n");
    assert_eq!(print(&vm.client, "umask").await, "0022\n");
    let configured = ConfigureRequest { hostname: "sbx-7".into() };
    vm.client.clone().configure(configured).await.unwrap();
    assert_eq!(print(&vm.client, "cat /proc/sys/kernel/hostname").await, "sbx-7\n");
    let refused = ConfigureRequest { hostname: "a b".into() };
    let refused = vm.client.clone().configure(refused).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[test]
fn machine_without_a_token_ends_at_once_and_says_why() {
    let console = Vm::boot_to_its_end("");
    assert!(console.contains("the kernel command line has no ovenbird.token="), "{console}");
}

#[tokio::test]
async fn shutdown_ends_every_process_and_leaves_the_file_system_clean() {
    let mut vm = Vm::boot().await;
    // One that ignores SIGTERM and keeps a file open.
    let stubborn = "trap '' TERM; exec 3>/root/open; echo kept >&3; while :; do sleep 1; done";
    let stubborn = exec("stubborn", "/bin/sh", &["-c", stubborn]);
    vm.client.clone().start_exec(stubborn).await.unwrap();
    crate::call::eventually("the file is written", || async {
        (print(&vm.client, "cat /root/open 2>/dev/null; :").await == "kept\n").then_some(())
    })
    .await;
    vm.client.clone().shutdown(ShutdownRequest { grace_ms: 100 }).await.unwrap();
    vm.wait_for_end();
    let mut state = [0; 2];
    let disk = std::fs::File::open(vm.path("disk")).unwrap();
    // s_state of the superblock: 1 is clean, without errors.
    disk.read_exact_at(&mut state, 1024 + 0x3a).unwrap();
    assert_eq!(u16::from_le_bytes(state), 1);
}
