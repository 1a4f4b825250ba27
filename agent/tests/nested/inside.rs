//! In the machine: a host with one agent.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use nix::{
    mount::{MsFlags, mount},
    unistd::{chdir, chroot},
};
use ovenbird_hostagent::v1 as host;
use ovenbird_testkit::wait_for;

use crate::{
    support::{Host, Options, PATIENCE, sandbox},
    vm::inside,
};

/// What the agent's host has from `cargo dev setup`.
pub(crate) const PROVIDED: &[&str] = &["OVENBIRD_KERNEL", "OVENBIRD_INITRD", "OVENBIRD_IMAGE"];
const MODULES: &[&str] = &[""];

pub(crate) fn run() -> ExitCode {
    inside::run(MODULES, || {
        enter();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(agent_with_dm_snapshots());
        true
    })
}

/// Makes the disk the root of everything.
fn enter() {
    // Not `/tmp`: sandboxes are made there, on a file system as hosts have it.
    for place in ["/dev", "/proc", "/sys"] {
        let target = format!("/data{place}");
        mount(Some(place), target.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    chroot("/data").unwrap();
    chdir("/").unwrap();
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
}

async fn agent_with_dm_snapshots() {
    let mut clock = Clock(Instant::now());
    let host = Host::start_with(Options {
        settings: "storage = 'dm_snapshot'\nstorage_reserve_mb = 64".into(),
        ready_timeout: Some("400s"),
        ..Options::default()
    })
    .await;
    clock.says("agent started");
    let info = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert_eq!(info.storage_driver, "dm_snapshot");

    host.create("minimal", "a").await;
    clock.says("create");
    assert_eq!(devices(&host).len(), 1, "{:?}", devices(&host));
    host.shell("a", "echo kept > /root/note").await;
    clock.says("exec");
    host.flatten("a", "flat").await.unwrap();
    clock.says("flatten");
    assert!(devices(&host).is_empty(), "{:?}", devices(&host));
    let image = host.data().join("images/flat/rootfs.ext4");
    let note = Command::new("debugfs").args(["-R", "cat /root/note"]).arg(image).output().unwrap();
    assert_eq!(note.stdout, b"kept\n");

    // To be ready would take another boot; its disk is there at once.
    let client = host.client.clone();
    let request = sandbox("flat", "b");
    let creating = tokio::spawn(async move { client.clone().create_sandbox(request).await });
    wait_for("the disk of b", PATIENCE, || async { devices(&host).pop() }).await.unwrap();
    host.destroy("b").await;
    let cancelled = creating.await.unwrap().unwrap_err();
    clock.says("create that is destroyed");
    assert!(devices(&host).is_empty(), "{cancelled} {:?}", devices(&host));
    println!("{}", host.log_text());
    host.stop().await;
    clock.says("agent stopped");
}

/// The mapped devices of this agent's sandboxes.
fn devices(host: &Host) -> Vec<String> {
    let prefix = format!("ovb-{}-", host.instance);
    let blocks = std::fs::read_dir("/sys/block").unwrap().flatten();
    let names =
        blocks.filter_map(|block| std::fs::read_to_string(block.path().join("dm/name")).ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Prints what each step took.
struct Clock(Instant);

impl Clock {
    fn says(&mut self, what: &str) {
        println!("{:>7.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}
