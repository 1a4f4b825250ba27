//! Commands that cannot be run, by each of the three ways to run one.

use std::collections::HashMap;

use ovenbird_hostagent::v1::{
    self as host, attach_exec_response as attached, exec_stream_response as streamed,
};
use ovenbird_testkit::wait_for;
use tonic::{Code, Status};

use crate::support::*;

/// What is wanted of a command.
#[derive(Clone, Default)]
struct Wanted {
    cmd: &'static str,
    args: Vec<String>,
    env: HashMap<String, String>,
    workdir: &'static str,
    user: &'static str,
}

impl Wanted {
    fn context(&self) -> Option<host::ExecContext> {
        let (workdir, user) = (self.workdir.into(), self.user.into());
        Some(host::ExecContext { env: self.env.clone(), workdir, user })
    }
}

/// The exit code and what was said, by each way.
async fn ends(host: &Host, wanted: &Wanted, exec_id: &str) -> [Result<(i32, String), Status>; 3] {
    [
        of_exec(host, wanted).await,
        of_stream(host, wanted).await,
        of_detached(host, wanted, exec_id).await,
    ]
}

async fn of_exec(host: &Host, wanted: &Wanted) -> Result<(i32, String), Status> {
    let request = host::ExecRequest {
        sandbox_id: "a".into(),
        cmd: wanted.cmd.into(),
        args: wanted.args.clone(),
        context: wanted.context(),
        ..Default::default()
    };
    let answer = host.client.clone().exec(request).await?.into_inner();
    assert_eq!(answer.stdout, b"");
    Ok((answer.exit_code, String::from_utf8(answer.stderr).unwrap()))
}

async fn of_stream(host: &Host, wanted: &Wanted) -> Result<(i32, String), Status> {
    let request = host::ExecStreamRequest {
        sandbox_id: "a".into(),
        cmd: wanted.cmd.into(),
        args: wanted.args.clone(),
        context: wanted.context(),
        ..Default::default()
    };
    let mut events = host.client.clone().exec_stream(request).await?.into_inner();
    let event = events.message().await?.unwrap().event;
    let Some(streamed::Event::End(end)) = event else { panic!("not an end first, but {event:?}") };
    assert!(events.message().await?.is_none());
    Ok((end.exit_code, end.error))
}

async fn of_detached(host: &Host, wanted: &Wanted, exec_id: &str) -> Result<(i32, String), Status> {
    let request = host::StartExecRequest {
        sandbox_id: "a".into(),
        exec_id: exec_id.into(),
        cmd: wanted.cmd.into(),
        args: wanted.args.clone(),
        context: wanted.context(),
        ..Default::default()
    };
    let started = host.client.clone().start_exec(request).await?.into_inner();
    assert_eq!((started.pid, started.already_started), (0, false));
    let mut events = attach(host, exec_id, 0).await?;
    let event = events.message().await?.unwrap().event;
    let Some(attached::Event::End(end)) = event else { panic!("not an end first, but {event:?}") };
    assert_eq!((end.timed_out, end.end_offset), (false, 0));
    Ok((end.exit_code, end.error))
}

async fn attach(
    host: &Host,
    exec_id: &str,
    from_offset: u64,
) -> Result<tonic::Streaming<host::AttachExecResponse>, Status> {
    let request = host::AttachExecRequest {
        sandbox_id: "a".into(),
        exec_id: exec_id.into(),
        from_offset,
        fence: None,
    };
    Ok(host.client.clone().attach_exec(request).await?.into_inner())
}

async fn ack(host: &Host, exec_id: &str, offset: u64) -> Result<(), Status> {
    let (sandbox_id, exec_id) = ("a".into(), exec_id.into());
    let request = host::AckExecRequest { sandbox_id, exec_id, offset, fence: None };
    host.client.clone().ack_exec(request).await.map(drop)
}

async fn signal(host: &Host, exec_id: &str, signal: i32) -> Result<(), Status> {
    let (sandbox_id, exec_id) = ("a".into(), exec_id.into());
    let request = host::SignalExecRequest { sandbox_id, exec_id, signal, fence: None };
    host.client.clone().signal_exec(request).await.map(drop)
}

#[tokio::test]
async fn command_that_cannot_be_run_ends_as_in_a_shell_and_a_senseless_one_is_refused() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let command = |cmd| Wanted { cmd, ..Wanted::default() };
    let long = Wanted { args: vec!["x".repeat(200_000)], ..command("true") };
    let not_run = [
        (command("no-such-program"), 127, "No such file"),
        (command("/no/such/program"), 127, "No such file"),
        (command("/etc"), 126, "denied"),
        (command("/etc/passwd"), 126, "denied"),
        (long, 126, "too long"),
        (Wanted { workdir: "/no/such", ..command("true") }, 126, "workdir /no/such"),
        (Wanted { workdir: "/etc/passwd", ..command("true") }, 126, "not a folder"),
        (Wanted { user: "nobody-known", ..command("true") }, 126, "nobody-known"),
    ];
    for (number, (wanted, code, word)) in not_run.into_iter().enumerate() {
        for end in ends(&host, &wanted, &format!("not-run.{number}")).await {
            let (ours, said) = end.unwrap();
            assert_eq!(ours, code, "{}: {said}", wanted.cmd);
            assert!(said.contains(word), "{}: not {word:?} but {said}", wanted.cmd);
        }
    }

    let env = |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
    let senseless = [
        (command(""), "cmd is empty"),
        (command("true\0"), "NUL"),
        (Wanted { args: vec!["\0".into()], ..command("true") }, "NUL"),
        (Wanted { env: env("A=B", "c"), ..command("true") }, "env"),
        (Wanted { env: env("", "c"), ..command("true") }, "env"),
        (Wanted { env: env("A", "\0"), ..command("true") }, "env"),
        (Wanted { workdir: "tmp", ..command("true") }, "not an absolute path"),
        (Wanted { workdir: "/tmp\0", ..command("true") }, "NUL"),
        (Wanted { user: "a:b", ..command("true") }, "user"),
    ];
    for (wanted, word) in senseless {
        for end in ends(&host, &wanted, "senseless").await {
            let status = end.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(word), "not {word:?} but {status}");
        }
    }
    for id in ["", "a b", "../a", "a/b", "a\0", "ä", &"x".repeat(129)] {
        let status = of_detached(&host, &command("true"), id).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{id:?}: {status}");
        assert!(status.message().contains("exec_id is 1 to 128"), "{status}");
    }
    assert_eq!(attach(&host, "senseless", 0).await.unwrap_err().code(), Code::NotFound);
    host.stop().await;
}

#[tokio::test]
async fn detached_command_refuses_offsets_and_signals_that_it_cannot_have() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    for unknown in ["none", "", "../a"] {
        let refusals = [attach(&host, unknown, 0).await.map(drop), ack(&host, unknown, 0).await, {
            signal(&host, unknown, 15).await
        }];
        for refused in refusals {
            let status = refused.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{unknown:?}: {status}");
            assert!(status.message().contains("no exec"), "{status}");
        }
    }
    host.start_exec("a", "held", "echo 123; exec sleep 1000").await;
    let mut events = attach(&host, "held", 0).await.unwrap();
    let event = events.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(event, attached::Event::Output(output) if output.data == b"123\n"));
    for refused in [attach(&host, "held", 5).await.map(drop), ack(&host, "held", u64::MAX).await] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        assert!(status.message().contains("ends at 4"), "{status}");
    }
    ack(&host, "held", 4).await.unwrap();
    let status = attach(&host, "held", 0).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("begins at 4"), "{status}");
    for bad in [0, -1, 32, 64, i32::MAX] {
        let status = signal(&host, "held", bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}: {status}");
        assert!(status.message().contains("1 to 31"), "{status}");
    }
    assert_eq!(host.shell("a", "pidof sleep | wc -w").await, "1");
    signal(&host, "held", 15).await.unwrap();
    let event = events.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(event, attached::Event::End(end) if end.exit_code == 143));
    let status = signal(&host, "held", 15).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("has ended"), "{status}");
    host.stop().await;
}

#[tokio::test]
async fn caller_who_does_not_read_holds_up_no_end() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let script = |name: &str| {
        let line = "while :; do head -c 65536 /dev/zero; echo >>/root/";
        vec!["-c".to_owned(), format!("{line}{name}; done")]
    };
    let request = host::ExecStreamRequest {
        sandbox_id: "a".into(),
        cmd: "/bin/sh".into(),
        args: script("streamed"),
        timeout_sec: 3600,
        ..Default::default()
    };
    let mut streamed = host.client.clone().exec_stream(request).await.unwrap().into_inner();
    streamed.message().await.unwrap().unwrap();
    let request = host::StartExecRequest {
        sandbox_id: "a".into(),
        exec_id: "attached".into(),
        cmd: "/bin/sh".into(),
        args: script("attached"),
        ..Default::default()
    };
    host.client.clone().start_exec(request).await.unwrap();
    let mut attached = attach(&host, "attached", 0).await.unwrap();
    attached.message().await.unwrap().unwrap();
    // Until everything between the command and its caller is full.
    let stands =
        "cd /root; a=$(wc -c <streamed); sleep 2; b=$(wc -c <streamed); test $a -gt 0 -a $a = $b";
    wait_for("the output to stand", PATIENCE, || async {
        let answer = host.exec("a", stands).await.unwrap();
        (answer.exit_code == 0).then_some(())
    })
    .await
    .unwrap();
    host.client.clone().terminate(host::TerminateRequest {}).await.unwrap();
    let log = host.log_text();
    assert!(!log.contains("something does not end with its sandbox"), "{log}");
    host.ended().await;
    drop((streamed, attached));
}
