//! Sandboxes that give their memory back and get it again: by a call, and by being idle.

use std::time::Duration;

use ovenbird_hostagent::v1::{self as host, attach_exec_response as attached};
use ovenbird_testkit::wait_for;
use tonic::Code;

use crate::support::*;

/// Counts into its output and into a file that has no name any more.
pub(crate) const COUNTER: &str = "echo $$ > /root/pid; exec 3<>/root/held; rm /root/held; i=0; \
    while :; do i=$((i+1)); echo $i; echo $i >&3; sleep 0.05; done";
/// Answers each connection.
const SERVER: &str = "exec perl -MIO::Socket -e '$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>5,ReuseAddr=>1) \
    or die; while($c=$s->accept){print $c \"hello\\n\"; close $c}'";

async fn answer_of(host_ip: &str) -> String {
    let address = format!("{host_ip}:8080");
    wait_for("the guest's server", PATIENCE, || async {
        let mut socket = tokio::net::TcpStream::connect(&address).await.ok()?;
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut text).await.ok()?;
        Some(text)
    })
    .await
    .unwrap()
}

/// Reads a counter's output from its start until it has passed a number, and checks that none is missing.
pub(crate) async fn counted_past(host: &Host, id: &str, past: u64) -> u64 {
    let request = host::AttachExecRequest {
        sandbox_id: id.into(),
        exec_id: "counter".into(),
        ..Default::default()
    };
    let mut events = host.client.clone().attach_exec(request).await.unwrap().into_inner();
    let (mut text, mut last) = (Vec::new(), 0);
    while last <= past {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap();
        let Some(attached::Event::Output(output)) = event.unwrap().event else {
            panic!("the counter has ended")
        };
        assert_eq!(output.offset, text.len() as u64);
        text.extend(output.data);
        let whole = String::from_utf8_lossy(&text);
        let lines = whole.rsplit_once('\n').map_or("", |(lines, _)| lines);
        last = lines.lines().last().map_or(0, |line| line.parse().unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    for (line, number) in text.lines().zip(1_u64..=last) {
        assert_eq!(line, number.to_string());
    }
    last
}

fn state_bytes(host: &Host, id: &str) -> u64 {
    let path = host.data().join("sandboxes").join(id).join("state");
    std::fs::metadata(path).map_or(0, |state| state.len())
}

#[tokio::test]
async fn paused_sandbox_has_no_process_and_goes_on_with_everything_when_it_is_resumed() {
    let options = Options { capacity: "memory_mb = 300".into(), ..Options::default() };
    let host = Host::start_with(options).await;
    let made = host.create("minimal", "a").await;
    host.start_exec("a", "counter", COUNTER).await;
    host.start_exec("a", "server", SERVER).await;
    assert_eq!(answer_of(&made.host_ip).await, "hello\n");
    let before = counted_past(&host, "a", 5).await;

    // A pause that fails changes nothing: the state's name is taken by something that cannot be replaced.
    let state = host.data().join("sandboxes/a/state");
    std::fs::create_dir(&state).unwrap();
    assert_eq!(host.pause("a").await.unwrap_err().code(), Code::Internal);
    std::fs::remove_dir(&state).unwrap();
    assert_eq!(host.status("a").await.as_deref(), Some("running"));
    let before = counted_past(&host, "a", before).await;

    // A command of a call ends with it.
    let call = host.exec("a", "exec sleep 4242");
    let pause = async {
        wait_for("the command", PATIENCE, || async {
            (host.processes("a", "sleep [4]242").await == 1).then_some(())
        })
        .await
        .unwrap();
        host.pause("a").await.unwrap();
        host.pause("a").await.unwrap();
    };
    let (call, ()) = tokio::join!(call, pause);
    let refused = call.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(host.machines(), Vec::<String>::new());
    assert_eq!(host.status("a").await.as_deref(), Some("paused"));
    assert!((1..1 << 20).contains(&state_bytes(&host, "a")), "{}", state_bytes(&host, "a"));

    let ping = host::PingSandboxRequest { sandbox_id: "a".into() };
    let read = host::ReadFileRequest { sandbox_id: "a".into(), path: "/etc/hostname".into() };
    let refusals = [
        host.exec("a", "true").await.err(),
        host.client.clone().ping_sandbox(ping).await.err(),
        host.client.clone().read_file(read).await.err(),
        host.snapshot("a", "snap").await.err(),
        host.flatten("a", "image").await.err(),
    ];
    for refused in refusals {
        let refused = refused.unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("resume it first"), "{refused}");
    }

    // Its room is another's meanwhile.
    let other = host.create("minimal", "b").await;
    assert_ne!(other.host_ip, made.host_ip);
    let refused = host.resume("a", 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    host.destroy("b").await;
    // A state that cannot be loaded: still paused, and resumed once it can.
    std::fs::rename(&state, state.with_extension("away")).unwrap();
    assert_eq!(host.resume("a", 0).await.unwrap_err().code(), Code::Internal);
    assert_eq!(host.status("a").await.as_deref(), Some("paused"));
    assert_eq!(host.machines(), Vec::<String>::new());
    std::fs::rename(state.with_extension("away"), &state).unwrap();

    assert_eq!(host.resume("a", -1).await.unwrap_err().code(), Code::InvalidArgument);
    let resumed = host.resume("a", 3600).await.unwrap();
    assert_eq!((resumed.status.as_str(), &resumed.host_ip), ("running", &made.host_ip));
    assert_eq!(state_bytes(&host, "a"), 0);
    host.assert_clock("a", 2.0).await;
    let after = counted_past(&host, "a", before + 5).await;
    assert!(after < before + 10_000, "it counts on from {before}, not to {after}");
    assert_eq!(answer_of(&made.host_ip).await, "hello\n");
    let held: u64 = host.shell("a", "tail -n 1 /proc/$(cat /root/pid)/fd/3").await.parse().unwrap();
    assert!(held > before);
    assert_eq!(host.processes("a", "sleep [4]242").await, 0);
    assert_eq!(host.listed("a").await.unwrap().timeout_sec, 3600);
    host.resume("a", 0).await.unwrap();
    assert_eq!(host.listed("a").await.unwrap().timeout_sec, 0);

    host.pause("a").await.unwrap();
    let facts = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert_eq!((facts.sandboxes, facts.allocated_vcpus, facts.allocated_memory_mb), (1, 0, 0));
    host.destroy("a").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn fork_is_paused_whole_at_first_and_cheaply_from_then_on() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.shell("origin", "mkdir -p /run/m; echo shared > /run/m/mark").await;
    host.snapshot("origin", "snap").await.unwrap();
    let made = [host.create("snap", "one").await, host.create("snap", "two").await];
    host.start_exec("one", "counter", COUNTER).await;
    host.shell("one", "echo own >> /run/m/mark").await;
    let before = counted_past(&host, "one", 5).await;
    for id in ["one", "two"] {
        host.pause(id).await.unwrap();
        assert!(state_bytes(&host, id) > 4 << 20, "a fork's memory is in its state");
    }
    assert_eq!(host.machines(), Vec::<String>::new());
    let delete = host::DeleteSnapshotRequest { name: "snap".into(), fence: None };
    host.client.clone().delete_snapshot(delete).await.unwrap();

    let mut random = Vec::new();
    for (id, made) in ["one", "two"].into_iter().zip(made) {
        let resumed = host.resume(id, 0).await.unwrap();
        assert_eq!(resumed.host_ip, made.host_ip);
        random.push(host.shell(id, "head -c 32 /dev/urandom | sha256sum; hostname").await);
    }
    assert_ne!(random[0], random[1]);
    assert_eq!(host.shell("one", "cat /run/m/mark").await, "shared\nown");
    assert_eq!(host.shell("two", "cat /run/m/mark").await, "shared");
    let before = counted_past(&host, "one", before + 5).await;
    host.pause("one").await.unwrap();
    assert!((1..1 << 20).contains(&state_bytes(&host, "one")));
    host.resume("one", 0).await.unwrap();
    counted_past(&host, "one", before + 5).await;
    // Its memory is its own by now, and makes a snapshot like any other.
    host.snapshot("one", "again").await.unwrap();
    host.create("again", "three").await;
    assert_eq!(host.shell("three", "cat /run/m/mark").await, "shared\nown");

    let (pausing, destroyed) = tokio::join!(host.pause("two"), async {
        host.runs_no_more("two").await;
        host.destroy("two").await;
    });
    let ((), ()) = (pausing.unwrap(), destroyed);
    host.destroy("three").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn idle_sandbox_is_paused_and_told_once_but_not_while_it_is_used() {
    let host = Host::start().await;
    tokio::join!(host.create("minimal", "idle"), host.create("minimal", "endless"));
    // The limit begins while a command runs that lasts longer.
    let used =
        host.exec("idle", "touch /run/begun; for i in 1 2 3 4 5 6; do sleep 1; done; echo end");
    let limit = async {
        wait_for("the command", PATIENCE, || async {
            host.exec("idle", "test -e /run/begun")
                .await
                .is_ok_and(|a| a.exit_code == 0)
                .then_some(())
        })
        .await
        .unwrap();
        host.resume("idle", 2).await.unwrap();
    };
    let (used, ()) = tokio::join!(used, limit);
    assert_eq!(used.unwrap().stdout, b"end\n");

    let mut told = Vec::new();
    let list = || async {
        host.client
            .clone()
            .list_sandboxes(host::ListSandboxesRequest::default())
            .await
            .unwrap()
            .into_inner()
    };
    // Who only looks at the states takes the ids from nobody.
    wait_for("the idle sandbox to be paused", PATIENCE, || async {
        let request = host::ListSandboxesRequest { keep_auto_paused: true };
        let listed = host.client.clone().list_sandboxes(request).await.unwrap().into_inner();
        assert_eq!(listed.auto_paused_sandbox_ids, Vec::<String>::new());
        let is_idle = |s: &host::SandboxInfo| s.sandbox_id == "idle" && s.status == "paused";
        listed.sandboxes.iter().any(is_idle).then_some(())
    })
    .await
    .unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while told.is_empty() {
        assert!(std::time::Instant::now() < deadline, "{}", host.log_text());
        told.extend(list().await.auto_paused_sandbox_ids);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told, ["idle"]);
    let listed = list().await;
    assert_eq!(listed.auto_paused_sandbox_ids, Vec::<String>::new());
    let states: Vec<_> = listed.sandboxes.iter().map(|s| (&*s.sandbox_id, &*s.status)).collect();
    assert_eq!(states, [("endless", "running"), ("idle", "paused")]);
    host.resume("idle", 0).await.unwrap();
    assert_eq!(host.shell("idle", "cat /run/begun; echo on").await, "on");
    host.stop().await;
}
