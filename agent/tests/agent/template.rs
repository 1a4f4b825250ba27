//! Templates made of sandboxes: snapshots and their forks, images.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ovenbird_hostagent::v1 as host;
use tonic::Code;

use crate::support::*;

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[tokio::test]
async fn forks_of_a_snapshot_go_on_differ_and_have_the_right_clock() {
    let host = Host::start().await;
    let started = Instant::now();
    host.create("minimal", "origin").await;
    host.shell("origin", "true").await;
    let cold = started.elapsed();
    host.shell("origin", "echo kept > /root/mark; sleep 1000 >/dev/null 2>&1 & echo ok").await;
    let size = host.snapshot("origin", "snap").await.unwrap();
    assert!(size > 0);
    assert_eq!(host.status("origin").await, None);
    assert_eq!(host.left(), Vec::<String>::new());

    let started = Instant::now();
    host.create("snap", "one").await;
    assert_eq!(host.shell("one", "cat /root/mark").await, "kept");
    let fork = started.elapsed();
    println!("cold create to first exec: {cold:?}; fork to first exec: {fork:?}");
    host.create("snap", "two").await;
    let (mut random, mut names) = (Vec::new(), Vec::new());
    for id in ["one", "two"] {
        assert_eq!(host.shell(id, "pidof sleep | wc -w").await, "1", "the process goes on");
        random.push(host.shell(id, "head -c 32 /dev/urandom | sha256sum").await);
        names.push(host.shell(id, "hostname").await);
        let clock: f64 = host.shell(id, "date +%s.%N").await.parse().unwrap();
        let off = (unix_now().as_secs_f64() - clock).abs();
        assert!(off < 2.0, "the clock of {id} is off by {off} s");
    }
    assert_ne!(random[0], random[1]);
    assert_eq!(names, ["one", "two"]);
    host.shell("one", "echo changed > /root/mark").await;
    assert_eq!(host.shell("two", "cat /root/mark").await, "kept");

    // Deleted under its forks: they go on, and its room is free when they end.
    let delete = host::DeleteSnapshotRequest { name: "snap".into() };
    host.client.clone().delete_snapshot(delete.clone()).await.unwrap();
    assert_eq!(host.shell("two", "cat /root/mark").await, "kept");
    let gone = host.client.clone().delete_snapshot(delete).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let gone = host.client.clone().create_sandbox(sandbox("snap", "three")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    host.stop().await;
}

#[tokio::test]
async fn snapshot_of_a_fork_has_the_forks_memory_and_disk() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.shell("origin", "mkdir -p /run/memory; echo one > /run/memory/mark").await;
    host.snapshot("origin", "first").await.unwrap();
    host.create("first", "fork").await;
    host.shell("fork", "echo two >> /run/memory/mark; echo disk > /root/mark").await;
    host.snapshot("fork", "second").await.unwrap();
    host.create("second", "again").await;
    let marks = host.shell("again", "cat /run/memory/mark /root/mark").await;
    assert_eq!(marks, "one\ntwo\ndisk");
    host.create("first", "other").await;
    assert_eq!(host.shell("other", "cat /run/memory/mark").await, "one");
    host.stop().await;
}

#[tokio::test]
async fn flattened_image_boots_with_what_was_written_and_a_larger_disk_and_more_processors() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.shell("origin", "echo built > /etc/mark; head -c 3000000 /dev/urandom > /root/data").await;
    let sum = host.shell("origin", "sha256sum < /root/data").await;
    let size = host.flatten("origin", "built").await.unwrap();
    assert!(size > 3_000_000);
    assert_eq!(host.left(), Vec::<String>::new());
    let image = host.data().join("images/built/rootfs.ext4");
    let checked = std::process::Command::new("e2fsck").args(["-fn"]).arg(&image).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    let request =
        host::CreateSandboxRequest { disk_mb: 3000, vcpus: 2, ..sandbox("built", "next") };
    host.client.clone().create_sandbox(request).await.unwrap();
    assert_eq!(host.shell("next", "nproc").await, "2");
    assert_eq!(host.shell("next", "cat /etc/mark").await, "built");
    assert_eq!(host.shell("next", "sha256sum < /root/data").await, sum);
    let megabytes: u32 =
        host.shell("next", "df -m / | tail -1 | awk '{print $2}'").await.parse().unwrap();
    assert!(megabytes > 2500, "{megabytes} MiB");
    let facts = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    let names: Vec<_> =
        facts.templates.iter().map(|t| (t.name.as_str(), t.r#type.as_str())).collect();
    assert_eq!(names, [("built", "image"), ("minimal", "image")]);
    host.stop().await;
}

#[tokio::test]
async fn taken_or_bad_name_stops_nothing() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    for name in ["minimal", "", "../x", "a/b", ".hidden", "nul\0"] {
        let code = if name == "minimal" { Code::AlreadyExists } else { Code::InvalidArgument };
        assert_eq!(host.snapshot("a", name).await.unwrap_err().code(), code, "{name:?}");
        assert_eq!(host.flatten("a", name).await.unwrap_err().code(), code, "{name:?}");
    }
    assert_eq!(host.status("a").await.as_deref(), Some("running"));
    assert_eq!(host.shell("a", "echo still here").await, "still here");
    // Two at once: one of them gets the sandbox, the other changes nothing.
    let (first, second) = tokio::join!(host.flatten("a", "x"), host.snapshot("a", "y"));
    assert_eq!([first.is_ok(), second.is_ok()].iter().filter(|ok| **ok).count(), 1);
    host.stop().await;
}
