//! Files in and out of a sandbox: in one message, and as streams of any size.

use std::time::Duration;

use bytes::Bytes;
use ovenbird_hostagent::v1::{self as host, write_file_stream_request::Content};
use ovenbird_testkit::wait_for;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::support::*;

const MIB: usize = 1 << 20;
/// Memory that a transfer may cost the agent, its runtime included, and the guest's program.
const AGENT_GROWTH_KIB: u64 = 12 * 1024;
const GUEST_GROWTH_KIB: u64 = 4 * 1024;

fn meta(id: &str, path: &str) -> host::WriteFileStreamRequest {
    let meta = host::WriteFileStreamMeta { sandbox_id: id.into(), path: path.into(), fence: None };
    host::WriteFileStreamRequest { content: Some(Content::Meta(meta)) }
}

fn chunk(bytes: impl Into<Bytes>) -> host::WriteFileStreamRequest {
    host::WriteFileStreamRequest { content: Some(Content::Chunk(bytes.into())) }
}

fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).unwrap();
    random
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

async fn write(host: &Host, id: &str, path: &str, content: &[u8]) -> Result<(), Status> {
    let request = host::WriteFileRequest {
        sandbox_id: id.into(),
        path: path.into(),
        content: content.into(),
        fence: None,
    };
    host.client.clone().write_file(request).await.map(drop)
}

async fn read(host: &Host, id: &str, path: &str) -> Result<Vec<u8>, Status> {
    let request = host::ReadFileRequest { sandbox_id: id.into(), path: path.into() };
    Ok(host.client.clone().read_file(request).await?.into_inner().content)
}

async fn send(host: &Host, messages: Vec<host::WriteFileStreamRequest>) -> Result<(), Status> {
    host.client.clone().write_file_stream(tokio_stream::iter(messages)).await.map(drop)
}

async fn upload(host: &Host, id: &str, path: &str, content: &[u8]) -> Result<(), Status> {
    let chunks = content.chunks(MIB).map(|bytes| chunk(bytes.to_vec()));
    send(host, std::iter::once(meta(id, path)).chain(chunks).collect()).await
}

async fn download(host: &Host, id: &str, path: &str) -> Result<Vec<u8>, Status> {
    let request = host::ReadFileStreamRequest { sandbox_id: id.into(), path: path.into() };
    let mut messages = host.client.clone().read_file_stream(request).await?.into_inner();
    let mut content = Vec::new();
    while let Some(message) = messages.message().await? {
        content.extend(message.chunk);
    }
    Ok(content)
}

/// An upload that is as far as its test lets it be.
struct Open {
    messages: mpsc::Sender<host::WriteFileStreamRequest>,
    call: JoinHandle<Result<(), Status>>,
}

impl Open {
    /// Begins one, and returns once the guest has a temporary file with something in it.
    async fn begin(host: &Host, mut client: Client, id: &str, path: &str) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        let call = tokio::spawn(async move {
            client.write_file_stream(ReceiverStream::new(receiver)).await.map(drop)
        });
        messages.send(meta(id, path)).await.unwrap();
        messages.send(chunk(random(3 * MIB))).await.unwrap();
        let find = "find / -xdev -name '.ovenbird-*.tmp' -size +1024k";
        wait_for("the upload to arrive", PATIENCE, || async {
            (!host.shell(id, find).await.is_empty()).then_some(())
        })
        .await
        .unwrap();
        Self { messages, call }
    }
}

/// Waits until nothing of an upload is in the guest.
async fn forgotten(host: &Host, id: &str) {
    wait_for("the guest to forget the upload", PATIENCE, || async {
        host.shell(id, "find / -xdev -name '.ovenbird-*.tmp'").await.is_empty().then_some(())
    })
    .await
    .unwrap();
}

/// A line of a `/proc/<pid>/status`, in KiB.
fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn file_of_one_message_comes_back_and_what_it_replaces_keeps_mode_and_owner() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let content: Vec<u8> = (0..=255).cycle().take(3 * MIB + 7).collect();
    write(&host, "a", "/srv/new/folder/file", &content).await.unwrap();
    assert!(read(&host, "a", "/srv/new/folder/file").await.unwrap() == content);
    let stat = "stat -c '%a %u:%g' /srv/new /srv/new/folder /srv/new/folder/file";
    assert_eq!(host.shell("a", stat).await, "755 0:0\n755 0:0\n644 0:0");

    host.shell("a", "cd /srv/new/folder; chmod 4750 file; chown 7:8 file; chmod u+s file").await;
    for (replacing, content) in [(true, &b"one"[..]), (false, &b"two"[..])] {
        if replacing {
            write(&host, "a", "/srv/new/folder/file", content).await.unwrap();
        } else {
            upload(&host, "a", "/srv/new/folder/file", content).await.unwrap();
        }
        assert_eq!(read(&host, "a", "/srv/new/folder/file").await.unwrap(), content);
        let kept = host.shell("a", "stat -c '%a %u:%g' /srv/new/folder/file").await;
        assert_eq!(kept, "4750 7:8");
    }

    // A link is replaced, and what it points to stays.
    host.shell("a", "ln -s /srv/new/folder/file /srv/link").await;
    write(&host, "a", "/srv/link", b"new").await.unwrap();
    let shown = host.shell("a", "stat -c %F /srv/link; cat /srv/link /srv/new/folder/file").await;
    assert_eq!(shown, "regular file\nnewtwo");

    write(&host, "a", "/srv/empty", b"").await.unwrap();
    assert_eq!(read(&host, "a", "/srv/empty").await.unwrap(), b"");
    host.shell("a", "truncate -s 20M /srv/large").await;
    let refused = read(&host, "a", "/srv/large").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("use ReadFileStream"), "{refused}");
    host.stop().await;
}

#[tokio::test]
async fn stream_of_64_mib_comes_back_as_it_went_in_and_needs_little_memory() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let content = random(64 * MIB);
    let digest = sha256(&content);
    // The first transfer pays for what is made once.
    upload(&host, "a", "/root/small", &content[..4 * MIB]).await.unwrap();
    assert!(download(&host, "a", "/root/small").await.unwrap() == content[..4 * MIB]);
    let guest = "cat /proc/1/status";
    let before = (kib(&host.agent_status(), "VmHWM"), kib(&host.shell("a", guest).await, "VmHWM"));

    upload(&host, "a", "/root/large", &content).await.unwrap();
    let summed = host.shell("a", "sha256sum < /root/large; stat -c '%a %u %s' /root/large").await;
    assert_eq!(summed, format!("{digest}  -\n644 0 {}", content.len()));
    assert_eq!(sha256(&download(&host, "a", "/root/large").await.unwrap()), digest);

    let after = (kib(&host.agent_status(), "VmHWM"), kib(&host.shell("a", guest).await, "VmHWM"));
    let (agent, guest) = (after.0 - before.0, after.1 - before.1);
    println!("64 MiB in and out: {agent} KiB more in the agent, {guest} KiB more in the guest");
    assert!(agent < AGENT_GROWTH_KIB, "{agent} KiB");
    assert!(guest < GUEST_GROWTH_KIB, "{guest} KiB");

    // Any size of chunk up to the bound, and no content at all.
    let odd = [&content[..1], &content[1..2], &[], &content[2..4 * MIB - 100]];
    let chunks = odd.into_iter().map(|bytes| chunk(bytes.to_vec()));
    let messages = std::iter::once(meta("a", "/root/odd")).chain(chunks).collect();
    send(&host, messages).await.unwrap();
    assert!(download(&host, "a", "/root/odd").await.unwrap() == content[..4 * MIB - 100]);
    upload(&host, "a", "/root/empty", b"").await.unwrap();
    assert_eq!(download(&host, "a", "/root/empty").await.unwrap(), b"");
    // A file of the kernel says that it is empty, and is not.
    assert!(!download(&host, "a", "/proc/cpuinfo").await.unwrap().is_empty());
    assert_eq!(host.shell("a", "ls -A /root | grep ovenbird; true").await, "");
    host.stop().await;
}

#[tokio::test]
async fn upload_that_is_cut_leaves_the_guest_as_it_was() {
    let options = Options { settings: "file_idle_timeout = '5s'".into(), ..Options::default() };
    let host = Host::start_with(options).await;
    host.create("minimal", "a").await;
    let old = "echo old > /srv/old; chown 7:8 /srv/old";
    let state = "stat -c '%n %a %u:%g' /srv/*; cat /srv/old; ls -A /srv";
    host.shell("a", old).await;
    let before = host.shell("a", state).await;
    for path in ["/srv/old", "/srv/new/folder/file"] {
        // The connection goes away in the middle.
        let proxy = host.proxy().await;
        let client = host.client_at(proxy.port);
        let open = Open::begin(&host, client, "a", path).await;
        drop(proxy);
        open.call.await.unwrap().unwrap_err();
        forgotten(&host, "a").await;

        // The caller cancels the call; other clients than this one end their stream then, too.
        let open = Open::begin(&host, host.client.clone(), "a", path).await;
        open.call.abort();
        forgotten(&host, "a").await;

        // The caller gives up by a message that cannot follow.
        let open = Open::begin(&host, host.client.clone(), "a", path).await;
        open.messages.send(meta("a", path)).await.unwrap();
        let refused = open.call.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("second meta"), "{refused}");
        forgotten(&host, "a").await;

        // The caller falls silent.
        let open = Open::begin(&host, host.client.clone(), "a", path).await;
        let refused = open.call.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
        forgotten(&host, "a").await;
        assert_eq!(host.shell("a", state).await, before);
    }

    // What was never right from the first message on.
    let wrong = [
        vec![chunk("x"), meta("a", "/srv/x")],
        vec![],
        vec![host::WriteFileStreamRequest { content: None }],
        vec![meta("a", "/srv/x"), meta("a", "/srv/y"), chunk("x")],
        vec![meta("a", "/srv/x"), chunk("x"), host::WriteFileStreamRequest { content: None }],
        vec![meta("a", "/srv/x"), chunk(random(4 * MIB + 1))],
        vec![meta("a/b", "/srv/x"), chunk("x")],
    ];
    for messages in wrong {
        let refused = send(&host, messages).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    forgotten(&host, "a").await;
    assert_eq!(host.shell("a", state).await, before);
    host.stop().await;
}

#[tokio::test]
async fn upload_ends_with_a_pause_and_a_copied_disk_loses_the_leftover_at_the_next_write() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let open = Open::begin(&host, host.client.clone(), "a", "/srv/file").await;
    host.pause("a").await.unwrap();
    let refused = open.call.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for refused in [
        upload(&host, "a", "/srv/file", b"x").await.unwrap_err(),
        download(&host, "a", "/etc/passwd").await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("resume it first"), "{refused}");
    }
    host.resume("a", 0).await.unwrap();
    forgotten(&host, "a").await;

    let open = Open::begin(&host, host.client.clone(), "a", "/srv/file").await;
    let name = "middle".to_owned();
    let keep = host::CheckpointRequest { sandbox_id: "a".into(), name, fence: None };
    host.client.clone().checkpoint(keep).await.unwrap();
    // An upload survives that.
    open.messages.send(chunk("end")).await.unwrap();
    drop(open.messages);
    open.call.await.unwrap().unwrap();
    assert_eq!(host.shell("a", "tail -c 3 /srv/file; ls -A /srv").await, "endfile");
    let name = "middle".to_owned();
    let back = host::RestoreCheckpointRequest { sandbox_id: "a".into(), name, fence: None };
    host.client.clone().restore_checkpoint(back).await.unwrap();
    let left = host.shell("a", "ls -A /srv").await;
    assert!(left.starts_with(".ovenbird-") && left.ends_with(".tmp"), "{left}");
    upload(&host, "a", "/srv/other", b"x").await.unwrap();
    assert_eq!(host.shell("a", "ls -A /srv").await, "other");
    host.stop().await;
}

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
        settings: "file_idle_timeout = '10s'\nfile_streams = 2".into(),
        ..Options::default()
    };
    let host = Host::start_with(options).await;
    host.create("minimal", "a").await;
    // In memory, so that the whole of it could come at once.
    host.shell("a", "head -c 64M /dev/urandom > /dev/shm/large").await;
    download(&host, "a", "/etc/passwd").await.unwrap();
    let before = kib(&host.agent_status(), "VmHWM");
    let request =
        || host::ReadFileStreamRequest { sandbox_id: "a".into(), path: "/dev/shm/large".into() };
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

#[tokio::test]
async fn open_stream_is_use_and_a_stale_fence_writes_nothing() {
    let host = Host::start().await;
    let request = host::CreateSandboxRequest { timeout_sec: 2, ..sandbox("minimal", "a") };
    host.client.clone().create_sandbox(request).await.unwrap();
    let open = Open::begin(&host, host.client.clone(), "a", "/srv/file").await;
    let begun = std::time::Instant::now();
    wait_for("three idle limits", PATIENCE, || async {
        (begun.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(host.status("a").await.as_deref(), Some("running"));
    drop(open.messages);
    open.call.await.unwrap().unwrap();
    host.wait_for_status("a", "paused").await;
    host.resume("a", 0).await.unwrap();
    assert_eq!(host.shell("a", "stat -c %s /srv/file").await, (3 * MIB).to_string());

    let fenced = |attempt, content: &'static str| {
        let fence = Some(host::Fence { build_id: "bld_1".into(), attempt });
        let meta =
            host::WriteFileStreamMeta { sandbox_id: "a".into(), path: "/srv/by".into(), fence };
        let meta = host::WriteFileStreamRequest { content: Some(Content::Meta(meta)) };
        vec![meta, chunk(content)]
    };
    send(&host, fenced(2, "two")).await.unwrap();
    let stale = send(&host, fenced(1, "one")).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    assert!(stale.message().contains("has called since"), "{stale}");
    assert_eq!(download(&host, "a", "/srv/by").await.unwrap(), b"two");
    host.stop().await;
}
