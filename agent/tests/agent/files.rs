//! Files in and out of a sandbox: in one message, and as streams of any size.

use std::time::Duration;

use bytes::Bytes;
use ovenbird_hostagent::v1::{self as host, write_file_stream_request::Content};
use ovenbird_testkit::wait_for;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::support::*;

pub(crate) const MIB: usize = 1 << 20;
/// Memory that a transfer may cost the agent, its runtime included, and the guest's program.
pub(crate) const AGENT_GROWTH_KIB: u64 = 12 * 1024;
const GUEST_GROWTH_KIB: u64 = 4 * 1024;

fn meta(id: &str, path: &str) -> host::WriteFileStreamRequest {
    let meta = host::WriteFileStreamMeta {
        sandbox_id: id.into(),
        path: path.into(),
        fence: None,
        unpack: None,
    };
    host::WriteFileStreamRequest { content: Some(Content::Meta(meta)) }
}

fn chunk(bytes: impl Into<Bytes>) -> host::WriteFileStreamRequest {
    host::WriteFileStreamRequest { content: Some(Content::Chunk(bytes.into())) }
}

pub(crate) fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).unwrap();
    random
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

pub(crate) async fn write(host: &Host, id: &str, path: &str, content: &[u8]) -> Result<(), Status> {
    let request = host::WriteFileRequest {
        sandbox_id: id.into(),
        path: path.into(),
        content: content.into(),
        fence: None,
    };
    host.client.clone().write_file(request).await.map(drop)
}

pub(crate) async fn read(host: &Host, id: &str, path: &str) -> Result<Vec<u8>, Status> {
    let request = host::ReadFileRequest { sandbox_id: id.into(), path: path.into() };
    Ok(host.client.clone().read_file(request).await?.into_inner().content)
}

async fn send(host: &Host, messages: Vec<host::WriteFileStreamRequest>) -> Result<(), Status> {
    host.client.clone().write_file_stream(tokio_stream::iter(messages)).await.map(drop)
}

pub(crate) async fn upload(
    host: &Host,
    id: &str,
    path: &str,
    content: &[u8],
) -> Result<(), Status> {
    let chunks = content.chunks(MIB).map(|bytes| chunk(bytes.to_vec()));
    send(host, std::iter::once(meta(id, path)).chain(chunks).collect()).await
}

pub(crate) async fn download(host: &Host, id: &str, path: &str) -> Result<Vec<u8>, Status> {
    let request = host::ReadFileStreamRequest {
        sandbox_id: id.into(),
        path: path.into(),
        ..Default::default()
    };
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
        let find = "find /srv -name '.ovenbird-*.tmp' -size +1024k 2>/dev/null; true";
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
        // A folder may go while it is looked at.
        let find = "find / -xdev -name '.ovenbird-*.tmp' 2>/dev/null; true";
        host.shell(id, find).await.is_empty().then_some(())
    })
    .await
    .unwrap();
}

/// A line of a `/proc/<pid>/status`, in KiB.
pub(crate) fn kib(status: &str, name: &str) -> u64 {
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
    let options = Options { settings: "file_idle_timeout = '15s'".into(), ..Options::default() };
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
async fn open_stream_is_use_and_a_stale_fence_writes_nothing() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let open = Open::begin(&host, host.client.clone(), "a", "/srv/file").await;
    // It is running: this sets its idle limit.
    host.resume("a", 2).await.unwrap();
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
        let (sandbox_id, path) = ("a".into(), "/srv/by".into());
        let meta = host::WriteFileStreamMeta { sandbox_id, path, fence, unpack: None };
        let meta = host::WriteFileStreamRequest { content: Some(Content::Meta(meta)) };
        vec![meta, chunk(content)]
    };
    send(&host, fenced(2, "two")).await.unwrap();
    let stale = send(&host, fenced(1, "one")).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    assert!(stale.message().contains("has called since"), "{stale}");
    assert_eq!(download(&host, "a", "/srv/by").await.unwrap(), b"two");
    archive_ends_with_its_attempt(&host).await;
    host.stop().await;
}

/// An archive is unpacked file by file, and ends when a higher attempt has called; that one does it again.
async fn archive_ends_with_its_attempt(host: &Host) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, size) in [("small", 5), ("large", 3 * MIB)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o640);
        builder.append_data(&mut header, name, random(size).as_slice()).unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let meta = |attempt, user: &str| {
        let meta = host::WriteFileStreamMeta {
            sandbox_id: "a".into(),
            path: "/srv/tree".into(),
            fence: Some(host::Fence { build_id: "bld_2".into(), attempt }),
            unpack: Some(host::Unpack { user: user.into(), ..Default::default() }),
        };
        host::WriteFileStreamRequest { content: Some(Content::Meta(meta)) }
    };
    let unpack = async |messages: Vec<host::WriteFileStreamRequest>| {
        let answer = host.client.clone().unpack_stream(tokio_stream::iter(messages)).await;
        answer.map(tonic::Response::into_inner)
    };
    let refused = unpack(vec![meta(1, "nosuchuser"), chunk(archive.clone())]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("no user \"nosuchuser\""), "{refused}");

    let (messages, receiver) = mpsc::channel(1);
    let mut client = host.client.clone();
    let call =
        tokio::spawn(async move { client.unpack_stream(ReceiverStream::new(receiver)).await });
    messages.send(meta(1, "games")).await.unwrap();
    messages.send(chunk(archive[..MIB].to_vec())).await.unwrap();
    wait_for("the first file", PATIENCE, || async {
        host.shell("a", "test -e /srv/tree/small && echo yes || true")
            .await
            .contains("yes")
            .then_some(())
    })
    .await
    .unwrap();
    let done = unpack(vec![meta(2, "games"), chunk(archive.clone())]).await.unwrap();
    assert_eq!((done.entries, done.bytes), (2, 5 + 3 * MIB as u64));
    let _ = messages.send(chunk(archive[MIB..].to_vec())).await;
    drop(messages);
    let stale = call.await.unwrap().unwrap_err();
    assert!(stale.message().contains("has called since"), "{stale}");
    let stat = "stat -c '%n %a %U %s' /srv/tree/*; ls -A /srv/tree | wc -l";
    let expected = format!("/srv/tree/large 640 games {}\n/srv/tree/small 640 games 5\n2", 3 * MIB);
    assert_eq!(host.shell("a", stat).await, expected);
}
