//! Files that cannot be written or read, and readers that do not read.

use std::time::Duration;

use ovenbird_hostagent::v1 as host;
use ovenbird_testkit::wait_for;
use tonic::Code;

use crate::{
    files::{AGENT_GROWTH_KIB, MIB, download, kib, random, read, upload, write},
    support::*,
};

#[tokio::test]
async fn paths_that_name_no_file_are_refused_by_each_call() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    host.shell("a", "mkfifo /srv/fifo; mknod /srv/zero c 1 5; ln -s loop /srv/loop; mkdir /srv/d")
        .await;
    let before = host.shell("a", "ls -lA /srv").await;
    let long = format!("/{}", "x/".repeat(2048));
    let name = format!("/srv/{}", "x".repeat(256));
    let (both, reads) = (true, false);
    let paths = [
        ("", Code::InvalidArgument, both),
        ("relative/file", Code::InvalidArgument, both),
        ("/srv/nul\0", Code::InvalidArgument, both),
        (long.as_str(), Code::InvalidArgument, both),
        (name.as_str(), Code::InvalidArgument, both),
        ("/srv/missing", Code::NotFound, reads),
        ("/srv/missing/file", Code::NotFound, reads),
        ("/srv/d", Code::FailedPrecondition, both),
        ("/", Code::FailedPrecondition, reads),
        ("/srv/fifo", Code::FailedPrecondition, both),
        ("/srv/zero", Code::FailedPrecondition, both),
        ("/srv/loop", Code::FailedPrecondition, reads),
        ("/etc/passwd/file", Code::FailedPrecondition, both),
    ];
    let limit = Duration::from_secs(60);
    for (path, code, writes) in paths {
        let reads = [
            tokio::time::timeout(limit, read(&host, "a", path)).await.expect("no hang").err(),
            tokio::time::timeout(limit, download(&host, "a", path)).await.expect("no hang").err(),
        ];
        for refused in reads {
            let refused = refused.unwrap_or_else(|| panic!("{path:?} was read"));
            assert_eq!(refused.code(), code, "reading {path:?}: {refused}");
        }
        if !writes {
            continue;
        }
        let writes = [
            tokio::time::timeout(limit, write(&host, "a", path, b"x")).await.expect("no hang"),
            tokio::time::timeout(limit, upload(&host, "a", path, b"x")).await.expect("no hang"),
        ];
        for written in writes {
            let refused = written.expect_err(path);
            assert_eq!(refused.code(), code, "writing {path:?}: {refused}");
        }
    }
    for (path, code, words) in [
        ("/srv/d", Code::FailedPrecondition, "name a file in it"),
        ("/srv/d/", Code::InvalidArgument, "name a file in that folder"),
        ("/srv/new/", Code::InvalidArgument, "name a file in that folder"),
        ("/", Code::InvalidArgument, "name a file in that folder"),
        ("/srv/d/..", Code::InvalidArgument, "names no file"),
    ] {
        for written in [write(&host, "a", path, b"x").await, upload(&host, "a", path, b"x").await] {
            let refused = written.unwrap_err();
            assert_eq!(refused.code(), code, "{path}: {refused}");
            assert!(refused.message().contains(words), "{path}: {refused}");
        }
    }
    assert_eq!(host.shell("a", "ls -lA /srv").await, before);
    for id in ["nobody", "a/b"] {
        let code = if id == "nobody" { Code::NotFound } else { Code::InvalidArgument };
        assert_eq!(write(&host, id, "/srv/x", b"x").await.unwrap_err().code(), code);
        assert_eq!(read(&host, id, "/srv/x").await.unwrap_err().code(), code);
        assert_eq!(upload(&host, id, "/srv/x", b"x").await.unwrap_err().code(), code);
        assert_eq!(download(&host, id, "/srv/x").await.unwrap_err().code(), code);
    }
    host.stop().await;
}

#[tokio::test]
async fn full_disk_and_read_only_file_system_are_named_and_the_old_file_stays() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    host.shell("a", "echo old > /srv/old; echo old > /mnt/old").await;
    host.shell("a", "mkdir /srv/ro; mount --bind /mnt /srv/ro; mount -o remount,ro,bind /srv/ro")
        .await;
    for path in ["/srv/ro/old", "/srv/ro/new", "/srv/ro/folder/new"] {
        for written in [write(&host, "a", path, b"x").await, upload(&host, "a", path, b"x").await] {
            let refused = written.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{path}: {refused}");
            assert!(refused.message().contains("read-only"), "{path}: {refused}");
        }
    }
    assert_eq!(download(&host, "a", "/srv/ro/old").await.unwrap(), b"old\n");
    assert_eq!(host.shell("a", "ls -A /mnt").await, "old");

    let fill = "for s in 512 256 128 64 32 16 8 4 2 1; do \
                while fallocate -l ${s}M /var/fill-$s-$(ls /var | wc -l) 2> /dev/null; do :; done; done; \
                dd if=/dev/zero of=/var/fill bs=4k 2> /dev/null; df --output=avail / | tail -n 1";
    assert_eq!(host.shell("a", fill).await.trim(), "0");
    let before = host.shell("a", "ls -lA /srv").await;
    let content = random(8 * MIB);
    for path in ["/srv/old", "/srv/new"] {
        for written in
            [write(&host, "a", path, &content).await, upload(&host, "a", path, &content).await]
        {
            let refused = written.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted, "{path}: {refused}");
            assert!(refused.message().contains("no room"), "{path}: {refused}");
        }
    }
    assert_eq!(read(&host, "a", "/srv/old").await.unwrap(), b"old\n");
    assert_eq!(host.shell("a", "ls -lA /srv").await, before);
    host.shell("a", "rm /var/fill-*").await;
    upload(&host, "a", "/srv/old", &content).await.unwrap();
    assert!(download(&host, "a", "/srv/old").await.unwrap() == content);
    host.stop().await;
}

#[tokio::test]
async fn reader_that_stops_holds_the_guest_back_and_is_ended_after_a_while() {
    let options = Options {
        settings: "file_idle_timeout = '30s'\nfile_streams = 2".into(),
        ..Options::default()
    };
    let host = Host::start_with(options).await;
    host.create("minimal", "a").await;
    // In memory, so that the whole of it could come at once.
    host.shell("a", "head -c 64M /dev/urandom > /dev/shm/large").await;
    download(&host, "a", "/etc/passwd").await.unwrap();
    let before = kib(&host.agent_status(), "VmHWM");
    let request = || host::ReadFileStreamRequest {
        sandbox_id: "a".into(),
        path: "/dev/shm/large".into(),
        ..Default::default()
    };
    let open_files = "ls -l /proc/1/fd | grep -c /dev/shm/large; true";
    let mut stalled = host.client.clone().read_file_stream(request()).await.unwrap().into_inner();
    let mut gone = host.client.clone().read_file_stream(request()).await.unwrap().into_inner();
    for reader in [&mut stalled, &mut gone] {
        assert!(!reader.message().await.unwrap().unwrap().chunk.is_empty());
    }
    assert_eq!(host.shell("a", open_files).await, "2");
    let refused = download(&host, "a", "/etc/passwd").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(gone);
    wait_for("the guest to close the file", PATIENCE, || async {
        (host.shell("a", open_files).await == "1").then_some(())
    })
    .await
    .unwrap();
    wait_for("the guest to close the other file", PATIENCE, || async {
        (host.shell("a", open_files).await == "0").then_some(())
    })
    .await
    .unwrap();
    let mut read = 0;
    let ended = loop {
        match stalled.message().await {
            Ok(message) => read += message.expect("not the whole file").chunk.len(),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended}");
    println!("{} KiB came before the reader was given up", read / 1024);
    assert!(read < 16 * MIB, "{read}");
    let growth = kib(&host.agent_status(), "VmHWM") - before;
    assert!(growth < AGENT_GROWTH_KIB, "{growth} KiB");
    // Its place is another's now, and a sandbox that is destroyed ends a reader that does not read.
    let stalled = host.client.clone().read_file_stream(request()).await.unwrap().into_inner();
    host.destroy("a").await;
    drop(stalled);
    host.stop().await;
}
