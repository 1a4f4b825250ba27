//! Root disks that are kept while their sandbox goes on, and put back.

use ovenbird_hostagent::v1::{self as host, attach_exec_response as attached};
use tonic::Code;

use crate::support::*;

async fn keep(host: &Host, id: &str, name: &str) -> Result<i64, tonic::Status> {
    let request = host::CheckpointRequest { sandbox_id: id.into(), name: name.into(), fence: None };
    Ok(host.client.clone().checkpoint(request).await?.into_inner().size_bytes)
}

async fn put_back(
    host: &Host,
    id: &str,
    name: &str,
) -> Result<host::RestoreCheckpointResponse, tonic::Status> {
    let request =
        host::RestoreCheckpointRequest { sandbox_id: id.into(), name: name.into(), fence: None };
    Ok(host.client.clone().restore_checkpoint(request).await?.into_inner())
}

#[tokio::test]
async fn disk_is_kept_whole_under_a_writer_and_put_back_with_the_same_address() {
    let host = Host::start().await;
    let made = host.create("minimal", "a").await;
    host.shell("a", "echo one > /root/mark").await;
    // Writes without end, and tells how far it is.
    let writer = "i=0; while :; do i=$((i+1)); mkdir -p /root/w/$i; echo $i > /root/w/$i/f; \
                  rm -rf /root/w/$((i-20)); echo $i; done";
    host.start_exec("a", "writer", writer).await;
    let request = host::AttachExecRequest {
        sandbox_id: "a".into(),
        exec_id: "writer".into(),
        ..Default::default()
    };
    let mut events = host.client.clone().attach_exec(request).await.unwrap().into_inner();
    let mut offset = 0;
    for _ in 0..3 {
        assert!(keep(&host, "a", "one").await.unwrap() > 1 << 20);
        // The stream goes on where it was.
        let (next, until) = (offset, offset + 10);
        while offset < until {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
            let Some(attached::Event::Output(output)) = event.unwrap().unwrap().event else {
                panic!("the writer has ended after {next}")
            };
            assert_eq!(output.offset, offset);
            offset += output.data.len() as u64;
        }
    }
    drop(events);
    host.assert_clock("a", 1.0).await;
    let disk = host.data().join("sandboxes/a/disk@one");
    let checked = std::process::Command::new("e2fsck").arg("-fn").arg(disk).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    host.shell("a", "echo two > /root/mark; sync").await;
    keep(&host, "a", "two").await.unwrap();
    assert_eq!(put_back(&host, "a", "three").await.unwrap_err().code(), Code::NotFound);
    for name in ["", "../one", "a/b", "Nul\0"] {
        let refused = keep(&host, "a", name).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name:?}: {refused}");
    }
    assert!(host.processes("a", "mkdir -p /root/[w]/").await >= 1);
    for (name, mark) in [("one", "one"), ("two", "two"), ("one", "one")] {
        let back = put_back(&host, "a", name).await.unwrap();
        assert_eq!((back.status.as_str(), &back.host_ip), ("running", &made.host_ip));
        assert_eq!(host.shell("a", "cat /root/mark; echo new > /root/mark").await, mark);
    }
    assert_eq!(host.processes("a", "mkdir -p /root/[w]/").await, 0);

    // One that has turned itself off comes back, too; a paused one has to be resumed.
    let _ = host.exec("a", "echo o > /proc/sysrq-trigger").await;
    host.wait_for_status("a", "stopped").await;
    assert_eq!(keep(&host, "a", "x").await.unwrap_err().code(), Code::FailedPrecondition);
    put_back(&host, "a", "two").await.unwrap();
    assert_eq!(host.shell("a", "cat /root/mark").await, "two");
    host.pause("a").await.unwrap();
    for refused in [keep(&host, "a", "x").await.err(), put_back(&host, "a", "one").await.err()] {
        let refused = refused.unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("resume it first"), "{refused}");
    }
    host.resume("a", 0).await.unwrap();
    assert_eq!(host.shell("a", "cat /root/mark").await, "two");
    host.destroy("a").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn fork_that_is_put_back_boots_from_its_disk_and_can_become_a_snapshot() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.shell("origin", "echo one > /root/mark; mkdir -p /run/m; echo memory > /run/m/mark").await;
    host.snapshot("origin", "snap").await.unwrap();
    let made = host.create("snap", "fork").await;
    assert_eq!(host.shell("fork", "cat /run/m/mark").await, "memory");
    host.shell("fork", "echo two > /root/mark").await;
    keep(&host, "fork", "two").await.unwrap();
    host.shell("fork", "echo three > /root/mark").await;
    let back = put_back(&host, "fork", "two").await.unwrap();
    assert_eq!(back.host_ip, made.host_ip);
    assert_eq!(host.shell("fork", "cat /root/mark; ls /run/m 2>/dev/null | wc -l").await, "two\n0");
    host.shell("fork", "mkdir -p /run/m; echo cold > /run/m/mark").await;
    host.snapshot("fork", "again").await.unwrap();
    host.create("again", "next").await;
    assert_eq!(host.shell("next", "cat /root/mark /run/m/mark").await, "two\ncold");
    host.stop().await;
}
