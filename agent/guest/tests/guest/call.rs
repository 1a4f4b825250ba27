//! Calls that most tests make, in one line each.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use ovenbird_agent::guest_link::GuestClient;
use ovenbird_guest_protocol::v1::{
    AttachExecRequest, AttachExecResponse, ExecContext, ExecEnd, ExecOutputStream, InfoRequest,
    InfoResponse, StartExecRequest, attach_exec_response::Event,
};
use tonic::{Status, Streaming};

/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Everything that a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) end: ExecEnd,
}

pub(crate) fn exec(id: &str, cmd: &str, args: &[&str]) -> StartExecRequest {
    StartExecRequest {
        exec_id: id.into(),
        cmd: cmd.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        context: Some(ExecContext::default()),
        timeout_ms: 0,
    }
}

pub(crate) fn new_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A shell script under an id of its own.
pub(crate) fn script(script: &str) -> StartExecRequest {
    exec(&new_id(), "/bin/sh", &["-c", script])
}

pub(crate) fn attach_request(id: &str, from_offset: u64, auto_ack: bool) -> AttachExecRequest {
    AttachExecRequest { exec_id: id.into(), from_offset, auto_ack }
}

pub(crate) async fn attach(
    client: &GuestClient,
    id: &str,
    from_offset: u64,
) -> Result<Streaming<AttachExecResponse>, Status> {
    let response = client.clone().attach_exec(attach_request(id, from_offset, false)).await?;
    Ok(response.into_inner())
}

/// The next event, which must come.
pub(crate) async fn next(stream: &mut Streaming<AttachExecResponse>) -> Event {
    let message = tokio::time::timeout(WITHIN, stream.message()).await.expect("an event in time");
    message.unwrap().expect("an end before the stream's").event.unwrap()
}

/// Runs a command to its end.
pub(crate) async fn run(client: &GuestClient, request: StartExecRequest) -> Outcome {
    let id = request.exec_id.clone();
    client.clone().start_exec(request).await.unwrap();
    let response = client.clone().attach_exec(attach_request(&id, 0, true)).await.unwrap();
    let mut stream = response.into_inner();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match next(&mut stream).await {
            Event::Output(output) if output.stream == ExecOutputStream::Stdout as i32 => {
                stdout.extend(output.data);
            }
            Event::Output(output) => stderr.extend(output.data),
            Event::End(end) => {
                assert!(stream.message().await.unwrap().is_none(), "the end is the last message");
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return Outcome { stdout: text(stdout), stderr: text(stderr), end };
            }
        }
    }
}

/// What a script prints.
pub(crate) async fn print(client: &GuestClient, text: &str) -> String {
    let outcome = run(client, script(text)).await;
    assert_eq!((outcome.end.exit_code, outcome.stderr.as_str()), (0, ""), "{text}");
    outcome.stdout
}

/// Its clock is the host's, give or take `most_ms`.
pub(crate) async fn assert_clock(client: &GuestClient, most_ms: i64) {
    let now = || i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let asked = now();
    let clock = info(client).await.clock_unix_ms;
    let right = asked - most_ms..now() + most_ms;
    assert!(right.contains(&clock), "the clock says {clock}, not {right:?}");
}

pub(crate) async fn info(client: &GuestClient) -> InfoResponse {
    let info = async { client.clone().info(InfoRequest {}).await.unwrap().into_inner() };
    tokio::time::timeout(WITHIN, info).await.expect("an answer in time")
}

/// Asks again until it is so.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
