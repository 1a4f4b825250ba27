//! A sandbox from an image: made, used, listed, destroyed.

use std::time::Instant;

use ovenbird_hostagent::v1::{
    self as host, attach_exec_response as attached, exec_stream_response,
};
use tonic::Code;

use crate::support::*;

#[tokio::test]
async fn sandbox_boots_runs_commands_moves_files_and_leaves_nothing() {
    let host = Host::start().await;
    let started = Instant::now();
    let made = host.create("minimal", "first").await;
    println!("cold create: {:?}", started.elapsed());
    assert_eq!((made.sandbox_id.as_str(), made.status.as_str()), ("first", "running"));
    assert_eq!(host.shell("first", "id -u; pwd").await, "0\n/");
    println!("cold create to first exec: {:?}", started.elapsed());

    let failed = host.exec("first", "echo out; echo err >&2; exit 3").await.unwrap();
    assert_eq!(
        (&*failed.stdout, &*failed.stderr, failed.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 3)
    );

    let mut client = host.client.clone();
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let write = host::WriteFileRequest {
        sandbox_id: "first".into(),
        path: "/srv/new/dir/file".into(),
        content: content.clone(),
        fence: None,
    };
    client.write_file(write).await.unwrap();
    let read =
        host::ReadFileRequest { sandbox_id: "first".into(), path: "/srv/new/dir/file".into() };
    assert!(client.read_file(read).await.unwrap().into_inner().content == content);

    let listed =
        client.list_sandboxes(host::ListSandboxesRequest::default()).await.unwrap().into_inner();
    let sandbox = &listed.sandboxes[0];
    assert_eq!((sandbox.template.as_str(), sandbox.vcpus, sandbox.memory_mb), ("minimal", 1, 256));
    assert_eq!(sandbox.host_ip, made.host_ip);
    let facts = client.get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert_eq!((facts.sandboxes, facts.allocated_vcpus, facts.allocated_memory_mb), (1, 1, 256));
    assert!(!facts.accelerator_reason.is_empty() && facts.templates[0].name == "minimal");

    host.destroy("first").await;
    assert_eq!(host.left(), Vec::<String>::new());
    let again = host::DestroySandboxRequest { sandbox_id: "first".into(), fence: None };
    assert_eq!(client.destroy_sandbox(again).await.unwrap_err().code(), Code::NotFound);
    host.stop().await;
}

#[tokio::test]
async fn commands_stream_detach_resume_and_are_killed() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let mut client = host.client.clone();

    let stream = host::ExecStreamRequest {
        sandbox_id: "a".into(),
        cmd: "sh".into(),
        args: vec!["-c".into(), "echo one; echo two >&2; exit 4".into()],
        ..Default::default()
    };
    let mut events = client.exec_stream(stream).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        seen.push(event.event.unwrap());
    }
    assert!(matches!(&seen[0], exec_stream_response::Event::Start(start) if start.pid > 0));
    let end = host::ExecStreamEnd { exit_code: 4, error: String::new() };
    assert_eq!(seen.last(), Some(&exec_stream_response::Event::End(end)));

    let start = host::StartExecRequest {
        sandbox_id: "a".into(),
        exec_id: "build.1".into(),
        cmd: "sh".into(),
        args: vec!["-c".into(), "seq 1 20000".into()],
        ..Default::default()
    };
    assert!(!client.start_exec(start.clone()).await.unwrap().into_inner().already_started);
    assert!(client.start_exec(start).await.unwrap().into_inner().already_started);
    let (first, _) = follow(&host, "build.1", 0, Some(1)).await;
    let (rest, end) = follow(&host, "build.1", first.len() as u64, None).await;
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8([first, rest].concat()).unwrap(), expected);
    let end = end.unwrap();
    assert_eq!((end.exit_code, end.end_offset), (0, expected.len() as u64));

    let endless = host::StartExecRequest {
        sandbox_id: "a".into(),
        exec_id: "endless".into(),
        cmd: "sleep".into(),
        args: vec!["1000".into()],
        ..Default::default()
    };
    client.start_exec(endless).await.unwrap();
    let kill = host::SignalExecRequest {
        sandbox_id: "a".into(),
        exec_id: "endless".into(),
        signal: 9,
        fence: None,
    };
    client.signal_exec(kill).await.unwrap();
    let (_, end) = follow(&host, "endless", 0, None).await;
    assert_eq!(end.unwrap().exit_code, 137);

    let slow = host::ExecRequest {
        sandbox_id: "a".into(),
        cmd: "sleep".into(),
        args: vec!["77".into()],
        timeout_sec: 1,
        ..Default::default()
    };
    assert_eq!(client.exec(slow).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(host.exec("a", "pidof sleep; exit 0").await.unwrap().stdout, b"");
    let missing = host::ExecRequest {
        sandbox_id: "a".into(),
        cmd: "no-such-program".into(),
        ..Default::default()
    };
    let missing = client.exec(missing).await.unwrap().into_inner();
    assert_eq!(missing.exit_code, 127);
    assert!(!missing.stderr.is_empty());
    host.stop().await;
}

/// Follows a detached command, acknowledging what it read, for a number of messages or to its end.
async fn follow(
    host: &Host,
    exec_id: &str,
    from_offset: u64,
    messages: Option<usize>,
) -> (Vec<u8>, Option<host::ExecEnd>) {
    let mut client = host.client.clone();
    let request = host::AttachExecRequest {
        sandbox_id: "a".into(),
        exec_id: exec_id.into(),
        from_offset,
        fence: None,
    };
    let mut events = client.attach_exec(request).await.unwrap().into_inner();
    let mut data = Vec::new();
    let mut count = 0;
    while let Some(event) = events.message().await.unwrap() {
        match event.event.unwrap() {
            attached::Event::Output(output) => {
                assert_eq!(output.offset, from_offset + data.len() as u64);
                data.extend(output.data);
                let ack = host::AckExecRequest {
                    sandbox_id: "a".into(),
                    exec_id: exec_id.into(),
                    offset: from_offset + data.len() as u64,
                    fence: None,
                };
                client.ack_exec(ack).await.unwrap();
            }
            attached::Event::End(end) => return (data, Some(end)),
        }
        count += 1;
        if messages == Some(count) {
            break;
        }
    }
    (data, None)
}

#[tokio::test]
async fn guest_is_reached_at_its_host_address_and_reaches_neither_host_nor_neighbour() {
    let host = Host::start().await;
    let (a, b) = tokio::join!(host.create("minimal", "a"), host.create("minimal", "b"));
    assert_ne!(a.host_ip, b.host_ip);
    // A server in the guest that answers from the host's side.
    let address = format!("{}:8080", a.host_ip);
    let serve = "perl -MIO::Socket -e '$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>5,ReuseAddr=>1) \
                 or die; while($c=$s->accept){print $c \"hello\\n\"; close $c}'";
    let start = host::StartExecRequest {
        sandbox_id: "a".into(),
        exec_id: "server".into(),
        cmd: "sh".into(),
        args: vec!["-c".into(), serve.into()],
        ..Default::default()
    };
    host.client.clone().start_exec(start).await.unwrap();
    let text = ovenbird_testkit::wait_for("the guest's server", PATIENCE, || async {
        let mut socket = tokio::net::TcpStream::connect(&address).await.ok()?;
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut text).await.ok()?;
        Some(text)
    })
    .await
    .unwrap();
    assert_eq!(text, "hello\n");

    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host_end = {
        let mut parts: Vec<u8> = b.host_ip.split('.').map(|part| part.parse().unwrap()).collect();
        parts[3] -= 1;
        parts.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
    };
    let refused = [
        (host_end.as_str(), port),  // the host
        (a.host_ip.as_str(), 8080), // the neighbour
        ("172.16.0.1", port),       // its own namespace
        ("169.254.169.254", 80),    // metadata
        ("10.0.0.1", 443),          // a private range, on an allowed port
        ("1.1.1.1", 25),            // a public address, on another port
    ];
    for (address, port) in refused {
        let script = format!(
            "perl -MIO::Socket -e 'exit(IO::Socket::INET->new(PeerAddr=>\"{address}:{port}\",Timeout=>2) ? 0 : 9)'"
        );
        let tried = host.exec("b", &script).await.unwrap();
        assert_eq!(tried.exit_code, 9, "{address}:{port} is reachable");
    }
    host.stop().await;
}
