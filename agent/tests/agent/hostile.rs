//! Guests that take all they can get, each beside one that only wants to go on: it does, and whoever drives the hostile
//! one is told what happened.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ovenbird_hostagent::v1::{
    self as host, attach_exec_response as attached, exec_stream_data,
    exec_stream_response as stream,
};
use ovenbird_testkit::wait_for;
use tonic::Code;

use crate::{
    limits::{groups, limit, machine},
    support::*,
};

/// A hostile and an innocent sandbox; the innocent one is used all the time.
struct Neighbours {
    host: Host,
    answers: Arc<AtomicU64>,
    user: tokio::task::JoinHandle<()>,
}

impl Neighbours {
    async fn start() -> Self {
        let host = Host::start().await;
        host.create("minimal", "innocent").await;
        host.create("minimal", "hostile").await;
        let answers = Arc::new(AtomicU64::new(0));
        let (client, counted) = (host.client.clone(), answers.clone());
        let user = tokio::spawn(async move {
            loop {
                let request = host::ExecRequest {
                    sandbox_id: "innocent".into(),
                    cmd: "echo".into(),
                    args: vec!["well".into()],
                    ..Default::default()
                };
                let answer = client.clone().exec(request).await.unwrap().into_inner();
                assert_eq!((answer.exit_code, &*answer.stdout), (0, &b"well\n"[..]));
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { host, answers, user }
    }

    /// The innocent one answers again and again from here on.
    async fn innocent_answers(&self) {
        let until = self.answers.load(Ordering::Relaxed) + 3;
        wait_for("the innocent sandbox", PATIENCE, || async {
            assert!(!self.user.is_finished(), "the innocent sandbox failed");
            (self.answers.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await
        .unwrap();
    }

    /// The hostile one can be used again, too, and nothing of both stays.
    async fn end(self) {
        self.innocent_answers().await;
        assert_eq!(self.host.shell("hostile", "echo again").await, "again");
        // Whatever it did, the host gave it no more than this.
        let groups = groups(&self.host, &machine(&self.host, "hostile"));
        let most = limit(&groups, ["memory.max_usage_in_bytes", "memory.peak"]);
        assert!((1..=420 << 20).contains(&most.parse::<u64>().unwrap()), "{most}");
        assert!(!self.user.is_finished(), "the innocent sandbox failed");
        self.user.abort();
        assert!(self.user.await.unwrap_err().is_cancelled());
        for id in ["hostile", "innocent"] {
            assert_eq!(self.host.status(id).await.as_deref(), Some("running"));
            self.host.destroy(id).await;
        }
        assert_eq!(self.host.left(), Vec::<String>::new());
        self.host.stop().await;
    }

    async fn exec(
        &self,
        script: &str,
        timeout_sec: i32,
    ) -> Result<host::ExecResponse, tonic::Status> {
        let request = host::ExecRequest {
            sandbox_id: "hostile".into(),
            cmd: "sh".into(),
            args: vec!["-c".into(), script.into()],
            timeout_sec,
            ..Default::default()
        };
        Ok(self.host.client.clone().exec(request).await?.into_inner())
    }

    async fn stream(&self, script: &str) -> tonic::Streaming<host::ExecStreamResponse> {
        let request = host::ExecStreamRequest {
            sandbox_id: "hostile".into(),
            cmd: "sh".into(),
            args: vec!["-c".into(), script.into()],
            timeout_sec: 600,
            ..Default::default()
        };
        self.host.client.clone().exec_stream(request).await.unwrap().into_inner()
    }

    /// The end of a detached command, whose output is read and acknowledged.
    async fn end_of(&self, exec_id: &str) -> host::ExecEnd {
        let request = host::AttachExecRequest {
            sandbox_id: "hostile".into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        let mut events = self.host.client.clone().attach_exec(request).await.unwrap().into_inner();
        loop {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
            match event.unwrap().unwrap().event.unwrap() {
                attached::Event::End(end) => return end,
                attached::Event::Output(output) => {
                    let ack = host::AckExecRequest {
                        sandbox_id: "hostile".into(),
                        exec_id: exec_id.into(),
                        offset: output.offset + output.data.len() as u64,
                        fence: None,
                    };
                    self.host.client.clone().ack_exec(ack).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn fork_bomb_ends_with_its_command_and_its_caller_is_told() {
    let neighbours = Neighbours::start().await;
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000";
    // An emulated processor that others keep busy may need longer to come to 256.
    for seconds in [10, 60, 240] {
        let killed = neighbours.exec(bomb, seconds);
        let (refused, ()) = tokio::join!(killed, neighbours.innocent_answers());
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
        assert_eq!(neighbours.host.processes("hostile", "[b]omb").await, 0);
        let killed = format!("killed with its children after {seconds} s");
        let why = "it could start no more processes (256 at once; use a larger memory_mb for more)";
        if refused.message() == format!("{killed}: {why}") {
            break;
        }
        assert_eq!(refused.message(), killed);
        assert_ne!(seconds, 240, "it never came to 256 processes");
    }

    // A command that gives up by itself is told the same.
    let some = "for i in $(seq 400); do sleep 1000 & done; exit 7";
    let answer = neighbours.exec(some, 300).await.unwrap();
    let stderr = String::from_utf8_lossy(&answer.stderr);
    assert_ne!(answer.exit_code, 0);
    assert!(stderr.contains("it could start no more processes (256 at once"), "{stderr}");
    // What it left is in its own group: others start all the same.
    assert_eq!(neighbours.host.shell("hostile", "echo still").await, "still");
    neighbours.host.shell("hostile", "kill $(pidof sleep)").await;
    neighbours.end().await;
}

#[tokio::test]
async fn command_that_uses_up_the_memory_is_killed_and_every_caller_is_told() {
    let neighbours = Neighbours::start().await;
    let hog = "exec perl -e '$x .= \"a\" x 1000000 while 1'";
    let told = "killed: out of memory (commands of this guest can use ";
    let (answer, ()) = tokio::join!(neighbours.exec(hog, 120), neighbours.innocent_answers());
    let answer = answer.unwrap();
    let stderr = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.exit_code, 137, "{stderr}");
    assert!(stderr.contains(told) && stderr.contains("use a larger memory_mb"), "{stderr}");

    let mut events = neighbours.stream(hog).await;
    let end = loop {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
        if let Some(stream::Event::End(end)) = event.unwrap().unwrap().event {
            break end;
        }
    };
    assert_eq!(end.exit_code, 137);
    assert!(end.error.starts_with(told), "{}", end.error);
    neighbours.host.start_exec("hostile", "hog", hog).await;
    let end = neighbours.end_of("hog").await;
    assert_eq!((end.exit_code, end.timed_out), (137, false));
    assert!(end.error.starts_with(told), "{}", end.error);

    // Memory that belongs to no process, and a shell that outlives what it started.
    let answer = neighbours
        .exec("cat /dev/zero > /dev/shm/f; perl -e '$x .= \"a\" x 1000000 while 1'; exit 5", 120);
    let answer = answer.await.unwrap();
    let stderr = String::from_utf8_lossy(&answer.stderr);
    assert!(stderr.contains("out of memory"), "{} {stderr}", answer.exit_code);
    neighbours.host.shell("hostile", "rm /dev/shm/f").await;
    // What fails for another reason is not blamed on memory.
    let answer = neighbours.exec("exit 3", 30).await.unwrap();
    assert_eq!((answer.exit_code, &*answer.stderr), (3, &b""[..]));
    neighbours.end().await;
}

#[tokio::test]
async fn ten_gigabytes_of_output_are_refused_streamed_or_held_back_in_bounded_memory() {
    let neighbours = Neighbours::start().await;
    let flood = "exec head -c 10000000000 /dev/zero";
    let gone = async || {
        wait_for("the flood to end", PATIENCE, || async {
            (neighbours.host.processes("hostile", "head -c [1]0000").await == 0).then_some(())
        })
        .await
        .unwrap();
    };
    let (refused, ()) = tokio::join!(neighbours.exec(flood, 300), neighbours.innocent_answers());
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("use ExecStream"), "{refused}");
    gone().await;
    let before = neighbours.host.agent_bytes();

    // A detached one that nobody follows, and a stream whose reader is slow.
    neighbours.host.start_exec("hostile", "flood", flood).await;
    let mut events = neighbours.stream(flood).await;
    let mut read = 0;
    let mut most = 0;
    while read < 64 << 20 {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
        if let Some(stream::Event::Data(data)) = event.unwrap().unwrap().event
            && let Some(exec_stream_data::Output::Stdout(bytes)) = data.output
        {
            read += bytes.len();
        }
        if read % (1 << 20) < 32 << 10 {
            most = most.max(neighbours.host.agent_bytes());
        }
    }
    neighbours.innocent_answers().await;
    most = most.max(neighbours.host.agent_bytes());
    println!("the agent has {before} bytes before, {most} at most");
    assert!(most < before + (24 << 20), "the agent grew from {before} to {most} bytes");
    assert_eq!(neighbours.host.processes("hostile", "head -c [1]0000").await, 2);
    drop(events);
    let kill = host::SignalExecRequest {
        sandbox_id: "hostile".into(),
        exec_id: "flood".into(),
        signal: 9,
        fence: None,
    };
    neighbours.host.client.clone().signal_exec(kill).await.unwrap();
    gone().await;
    assert_eq!(neighbours.end_of("flood").await.exit_code, 137);
    neighbours.end().await;
}

#[tokio::test]
async fn full_disk_is_the_commands_own_trouble_and_files_are_refused_with_its_name() {
    let neighbours = Neighbours::start().await;
    let host = &neighbours.host;
    // All but a little, without the time that writing would take.
    let fill = "fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - 4000000)) /big";
    host.shell("hostile", fill).await;
    let (answer, ()) =
        tokio::join!(neighbours.exec("cat /dev/zero > /rest", 120), neighbours.innocent_answers());
    let answer = answer.unwrap();
    let stderr = String::from_utf8_lossy(&answer.stderr);
    assert_ne!(answer.exit_code, 0);
    assert!(stderr.contains("No space left on device"), "{stderr}");

    let write = || host::WriteFileRequest {
        sandbox_id: "hostile".into(),
        path: "/srv/file".into(),
        content: vec![7; 3 << 20],
        fence: None,
    };
    let refused = host.client.clone().write_file(write()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let message = refused.message();
    assert!(message.contains("/srv/file") && message.contains("No space left"), "{refused}");
    assert_eq!(host.shell("hostile", "ls -A /srv | wc -l; echo well > /dev/shm/f").await, "0");
    host.shell("hostile", "rm /big /rest").await;
    host.client.clone().write_file(write()).await.unwrap();
    assert_eq!(host.shell("hostile", "stat -c %s /srv/file").await, (3 << 20).to_string());
    neighbours.end().await;
}
