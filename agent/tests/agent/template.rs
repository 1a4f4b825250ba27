//! Templates made of sandboxes: snapshots and their forks, images.

use std::time::Instant;

use ovenbird_hostagent::v1 as host;
use tonic::Code;

use crate::support::*;

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
        host.assert_clock(id, 2.0).await;
    }
    assert_ne!(random[0], random[1]);
    assert_eq!(names, ["one", "two"]);
    host.shell("one", "echo changed > /root/mark").await;
    assert_eq!(host.shell("two", "cat /root/mark").await, "kept");

    // Deleted under its forks: they go on, and its room is free when they end.
    let snapshot = host.data().join("snapshots/snap");
    let memory = std::fs::File::open(snapshot.join("memory")).unwrap();
    let links = || std::os::unix::fs::MetadataExt::nlink(&memory.metadata().unwrap());
    assert_eq!(links(), 3, "all forks have the template's own file");
    let delete = host::DeleteSnapshotRequest { name: "snap".into(), fence: None };
    host.client.clone().delete_snapshot(delete.clone()).await.unwrap();
    assert_eq!(host.shell("two", "cat /root/mark").await, "kept");
    let gone = host.client.clone().delete_snapshot(delete).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let gone = host.client.clone().create_sandbox(sandbox("snap", "three")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    for (id, left) in [("one", 1), ("two", 0)] {
        host.destroy(id).await;
        assert_eq!(links(), left);
    }
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
async fn snapshot_of_another_host_or_with_damage_is_refused_with_the_reason() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.snapshot("origin", "snap").await.unwrap();
    let dir = host.data().join("snapshots/snap");
    let path = dir.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let files: Vec<_> = manifest["files"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(files, ["memory", "rootfs.ext4", "state"]);
    let edits = [
        ("/version", serde_json::json!(99), "newer than this agent"),
        ("/platform/hypervisor", serde_json::json!("qemu 8.2.0"), "qemu 8.2.0"),
        ("/platform/cpu", serde_json::json!("host: another"), "host: another"),
        ("/platform/devices", serde_json::json!("microvm-0"), "microvm-0"),
        ("/platform/tsc_khz", serde_json::json!(1), "time stamp counter"),
        ("/files/memory/bytes", serde_json::json!(4096), "its memory is damaged"),
        ("/files/state/sha256_blocks", serde_json::json!("00"), "its state is damaged"),
    ];
    for (pointer, value, reason) in edits {
        let mut edited = manifest.clone();
        *edited.pointer_mut(pointer).unwrap() = value;
        std::fs::write(&path, edited.to_string()).unwrap();
        let refused = host.client.clone().create_sandbox(sandbox("snap", "fork")).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(reason), "{refused}");
        assert_eq!(host.left(), Vec::<String>::new());
    }
    std::fs::write(&path, text).unwrap();
    host.create("snap", "fork").await;
    // A name that is taken, by whatever: the sandbox goes on.
    host.shell("fork", "mkdir /run/m").await;
    for name in ["snap", "minimal"] {
        assert_eq!(host.snapshot("fork", name).await.unwrap_err().code(), Code::AlreadyExists);
    }
    host.shell("fork", "rmdir /run/m").await;
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
