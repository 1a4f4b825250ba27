//! Files in and out.

use ovenbird_agent::guest_link::GuestClient;
use ovenbird_guest_protocol::v1::{
    ReadFileRequest, WriteFileMeta, WriteFileRequest, read_file_response,
    write_file_request::Content,
};
use tokio_stream::iter;
use tonic::{Code, Status};

use crate::{call::print, vm::Vm};

fn meta(path: &str) -> WriteFileMeta {
    WriteFileMeta { path: path.into(), ..WriteFileMeta::default() }
}

async fn write(client: &GuestClient, meta: WriteFileMeta, bytes: &[u8]) -> Result<u64, Status> {
    let mut messages = vec![WriteFileRequest { content: Some(Content::Meta(meta)) }];
    messages.extend(
        bytes
            .chunks(256 * 1024)
            .map(|chunk| WriteFileRequest { content: Some(Content::Chunk(chunk.to_vec().into())) }),
    );
    Ok(client.clone().write_file(iter(messages)).await?.into_inner().size)
}

async fn read(client: &GuestClient, path: &str, max_bytes: u64) -> Result<(u32, Vec<u8>), Status> {
    let request = ReadFileRequest { path: path.into(), max_bytes, ..Default::default() };
    let mut stream = client.clone().read_file(request).await?.into_inner();
    let (mut mode, mut bytes) = (None, Vec::new());
    while let Some(message) = stream.message().await? {
        match message.content.unwrap() {
            read_file_response::Content::Info(info) => {
                assert!(mode.replace(info.mode).is_none() && bytes.is_empty(), "once, and first");
            }
            read_file_response::Content::Chunk(chunk) => bytes.extend(chunk),
        }
    }
    Ok((mode.expect("the file's info"), bytes))
}

#[tokio::test]
async fn eight_mebibytes_come_out_as_they_went_in() {
    let vm = Vm::boot().await;
    let mut bytes = vec![0; 8 << 20];
    rand::Rng::fill(&mut rand::rng(), &mut bytes[..]);
    let started = std::time::Instant::now();
    let size = write(&vm.client, WriteFileMeta { sync: true, ..meta("/root/large") }, &bytes).await;
    let written = started.elapsed();
    assert_eq!(size.unwrap(), bytes.len() as u64);
    let (mode, back) = read(&vm.client, "/root/large", 0).await.unwrap();
    eprintln!("8 MiB in {written:?} in, {:?} out", started.elapsed() - written);
    assert_eq!(mode, 0o644);
    assert!(back == bytes, "the same bytes");
    assert_eq!(write(&vm.client, meta("/root/empty"), b"").await.unwrap(), 0);
    assert_eq!(read(&vm.client, "/root/empty", 0).await.unwrap().1, b"");
    // A file of the kernel says it is empty, and is not.
    assert!(!read(&vm.client, "/proc/cpuinfo", 0).await.unwrap().1.is_empty());
}

#[tokio::test]
async fn write_sets_mode_owner_and_parents_and_keeps_the_mode_it_replaces() {
    let vm = Vm::boot().await;
    let asked = WriteFileMeta {
        mode: 0o4750,
        user: "games".into(),
        make_parents: true,
        ..meta("/srv/a/b/tool")
    };
    write(&vm.client, asked, b"one").await.unwrap();
    let show = "stat -c '%a %U %n' /srv/a /srv/a/b /srv/a/b/tool";
    let expected = "755 games /srv/a\n755 games /srv/a/b\n4750 games /srv/a/b/tool\n";
    assert_eq!(print(&vm.client, show).await, expected);
    write(&vm.client, meta("/srv/a/b/tool"), b"two").await.unwrap();
    let (mode, bytes) = read(&vm.client, "/srv/a/b/tool", 3).await.unwrap();
    assert_eq!((mode, bytes.as_slice()), (0o4750, &b"two"[..]));
    assert_eq!(print(&vm.client, "ls -A /srv/a/b").await, "tool\n");
}

#[tokio::test]
async fn upload_that_breaks_off_leaves_what_was_there() {
    let vm = Vm::boot().await;
    write(&vm.client, meta("/root/kept"), b"before").await.unwrap();
    let messages = iter(vec![
        WriteFileRequest { content: Some(Content::Meta(meta("/root/kept"))) },
        WriteFileRequest { content: Some(Content::Chunk(vec![7; 100_000].into())) },
        WriteFileRequest { content: Some(Content::Meta(meta("/root/kept"))) },
    ]);
    let refused = vm.client.clone().write_file(messages).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(read(&vm.client, "/root/kept", 0).await.unwrap().1, b"before");
    assert_eq!(print(&vm.client, "ls -A /root | grep ovenbird; :").await, "");
}

#[tokio::test]
async fn upload_whose_call_is_cancelled_is_not_taken_for_a_whole_one() {
    let vm = Vm::boot().await;
    write(&vm.client, meta("/root/kept"), b"before").await.unwrap();
    for path in ["/root/kept", "/srv/new/file"] {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut client = vm.client.clone();
        let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let call = tokio::spawn(async move { client.write_file(messages).await });
        let send = async |content| {
            sender.send(WriteFileRequest { content: Some(content) }).await.unwrap();
        };
        send(Content::Meta(WriteFileMeta { make_parents: true, ..meta(path) })).await;
        send(Content::Chunk(vec![7; 1 << 20].into())).await;
        send(Content::Chunk(vec![7; 1 << 20].into())).await;
        while print(&vm.client, "find / -xdev -name '.ovenbird-*' -size +1k").await.is_empty() {}
        call.abort();
        while !print(&vm.client, "find / -xdev -name '.ovenbird-*'").await.is_empty() {}
        assert_eq!(print(&vm.client, "cat /root/kept; ls -A /srv").await, "before");
    }
}

#[tokio::test]
async fn owner_is_kept_where_that_is_asked_for_and_full_and_read_only_places_are_named() {
    let vm = Vm::boot().await;
    print(&vm.client, "echo old > /srv/file; chown 7:8 /srv/file; chmod 4711 /srv/file").await;
    write(&vm.client, WriteFileMeta { keep_owner: true, ..meta("/srv/file") }, b"x").await.unwrap();
    assert_eq!(print(&vm.client, "stat -c '%a %u %g' /srv/file").await, "4711 7 8\n");
    write(&vm.client, meta("/srv/file"), b"x").await.unwrap();
    assert_eq!(print(&vm.client, "stat -c '%a %u %g' /srv/file").await, "4711 0 0\n");
    print(&vm.client, "mount -t tmpfs -o size=1m none /mnt; echo old > /mnt/file").await;
    let refused = write(&vm.client, meta("/mnt/file"), &[7; 2 << 20]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("no room"), "{refused}");
    print(&vm.client, "mount -o remount,ro /mnt").await;
    let refused = write(&vm.client, meta("/mnt/file"), b"x").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("read-only"), "{refused}");
    assert_eq!(print(&vm.client, "cat /mnt/file; ls -A /mnt").await, "old\nfile\n");
}

#[tokio::test]
async fn what_is_no_file_is_refused_with_its_own_status() {
    let vm = Vm::boot().await;
    print(&vm.client, "mkfifo /root/fifo; ln -s /root/loop /root/loop").await;
    let long = format!("/{}", "x".repeat(4095));
    let name = format!("/{}", "x".repeat(300));
    for (path, code) in [
        ("relative", Code::InvalidArgument),
        ("", Code::InvalidArgument),
        ("/with\0nul", Code::InvalidArgument),
        (long.as_str(), Code::InvalidArgument),
        (name.as_str(), Code::InvalidArgument),
        ("/none", Code::NotFound),
        ("/none/file", Code::NotFound),
        ("/root", Code::FailedPrecondition),
        ("/root/fifo", Code::FailedPrecondition),
        ("/root/loop", Code::FailedPrecondition),
        ("/dev/null", Code::FailedPrecondition),
        ("/etc/passwd/x", Code::FailedPrecondition),
    ] {
        let refused = read(&vm.client, path, 0).await.unwrap_err();
        assert_eq!(refused.code(), code, "reading {path}: {refused:?}");
        if matches!(path, "/none" | "/root/loop") {
            continue;
        }
        let refused = write(&vm.client, meta(path), b"x").await.unwrap_err();
        assert_eq!(refused.code(), code, "writing {path}: {refused:?}");
    }
    let refused = write(&vm.client, meta("/proc/none"), b"x").await.unwrap_err();
    assert!(matches!(refused.code(), Code::NotFound | Code::PermissionDenied), "{refused:?}");
    let too_long = read(&vm.client, "/etc/passwd", 10).await.unwrap_err();
    assert_eq!(too_long.code(), Code::OutOfRange);
    let full = write(&vm.client, meta("/dev/shm/full"), &vec![0; 200 << 20]).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    assert_eq!(print(&vm.client, "ls -A /dev/shm").await, "");
}
