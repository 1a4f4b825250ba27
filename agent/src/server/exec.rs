//! Commands: the detached ones passed through, and Exec and ExecStream made of them.
//!
//! Buffers, offsets and idempotence are the guest's. A command of Exec or ExecStream is killed when its caller
//! hangs up; a detached one goes on.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use ovenbird_guest_protocol::v1 as guest;
use ovenbird_hostagent::v1::{self as host, exec_stream_response as event};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Span;

use super::status;
use crate::sandbox::{InUse, Manager};

/// For a guest to answer a short call.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Past a command's own time, which the guest watches over.
const END_GRACE: Duration = Duration::from_secs(15);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Messages of a stream that wait for a slow caller; each holds 32 KiB at most.
const QUEUE: usize = 8;

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A command of Exec or ExecStream.
pub(super) struct Command {
    pub(super) cmd: String,
    pub(super) args: Vec<String>,
    pub(super) timeout_sec: i32,
    pub(super) context: Option<host::ExecContext>,
}

/// One short call to a guest, with its deadline.
pub(super) async fn ask<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(ANSWER_PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status::of_guest(&status)),
        Err(_) => Err(Status::unavailable("the guest does not answer")),
    }
}

fn context(context: Option<host::ExecContext>) -> Option<guest::ExecContext> {
    context.map(|host::ExecContext { env, workdir, user }| guest::ExecContext {
        env,
        workdir,
        user,
    })
}

pub(super) fn start_request(request: host::StartExecRequest) -> guest::StartExecRequest {
    guest::StartExecRequest {
        exec_id: request.exec_id,
        cmd: request.cmd,
        args: request.args,
        context: context(request.context),
        timeout_ms: request.timeout_ms,
    }
}

/// Follows a detached command.
pub(super) async fn attach(
    mut guest: InUse,
    exec_id: String,
    from_offset: u64,
) -> Result<Answers<host::AttachExecResponse>, Status> {
    let request = guest::AttachExecRequest { exec_id, from_offset, auto_ack: false };
    let events = ask(guest.attach_exec(request)).await?;
    let span = Span::current();
    let answers = events.filter_map(move |event| {
        let answer = match event {
            Ok(event) => {
                if let Some(guest::attach_exec_response::Event::End(end)) = &event.event {
                    span.record("exit", end.exit_code);
                }
                attach_response(event).map(Ok)
            }
            Err(status) => Some(Err(status::of_guest(&status))),
        };
        std::future::ready(answer)
    });
    Ok(Box::pin(until_left(answers, guest)))
}

/// The items of a stream, up to the moment when its sandbox is paused or put back; the sandbox is in use until then.
pub(super) fn until_left<T: Send + 'static>(
    items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    in_use: InUse,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let leave = Box::pin(in_use.has_to_leave());
    let state = Some((Box::pin(items), leave, in_use));
    futures::stream::unfold(state, |state| async move {
        let (mut items, mut leave, in_use) = state?;
        tokio::select! {
            biased;
            () = &mut leave => Some((Err(status::of(&in_use.left())), None)),
            item = items.next() => item.map(|item| (item, Some((items, leave, in_use)))),
        }
    })
}

fn attach_response(event: guest::AttachExecResponse) -> Option<host::AttachExecResponse> {
    use guest::attach_exec_response::Event as From;
    use host::attach_exec_response::Event as To;
    let event = match event.event? {
        From::Output(guest::ExecOutput { offset, stream, data }) => {
            To::Output(host::ExecOutput { offset, stream, data: data.into() })
        }
        From::End(end) => To::End(host::ExecEnd {
            exit_code: end.exit_code,
            timed_out: end.timed_out,
            error: end.error,
            end_offset: end.end_offset,
            elapsed_ms: end.elapsed_ms,
        }),
    };
    Some(host::AttachExecResponse { event: Some(event) })
}

/// A command that runs for one call only.
struct Running {
    guest: InUse,
    pid: u32,
    timeout: Duration,
    events: Streaming<guest::AttachExecResponse>,
    end: EndsWithCall,
}

/// Kills a command when it is dropped before the command has ended.
struct EndsWithCall {
    manager: Manager,
    guest: InUse,
    exec_id: String,
    ended: bool,
}

/// What comes from it.
enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    End(guest::ExecEnd),
}

impl Running {
    async fn start(manager: &Manager, mut guest: InUse, command: Command) -> Result<Self, Status> {
        let timeout = match u64::try_from(command.timeout_sec) {
            Ok(0) => TIMEOUT_DEFAULT,
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => return Err(Status::invalid_argument("timeout_sec is negative")),
        };
        if command.cmd.is_empty() {
            return Err(Status::invalid_argument("cmd is empty"));
        }
        let exec_id = format!("call.{}", uuid::Uuid::new_v4().simple());
        let request = guest::StartExecRequest {
            exec_id: exec_id.clone(),
            cmd: command.cmd,
            args: command.args,
            context: context(command.context),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        // From here on, for the caller may hang up while the guest starts it.
        let end = EndsWithCall {
            manager: manager.clone(),
            guest: guest.clone(),
            exec_id: exec_id.clone(),
            ended: false,
        };
        let started = ask(guest.start_exec(request)).await?;
        let request = guest::AttachExecRequest { exec_id, from_offset: 0, auto_ack: true };
        let events = ask(guest.attach_exec(request)).await?;
        manager.counted().exec_started();
        Ok(Self { guest, pid: started.pid, timeout, events, end })
    }

    /// The next piece of output; an error when its time is over.
    async fn next(&mut self) -> Result<Output, Status> {
        loop {
            let event = tokio::select! {
                event = timeout(self.timeout + END_GRACE, self.events.message()) => event,
                () = self.guest.has_to_leave() => return Err(status::of(&self.guest.left())),
            };
            let event = match event {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => {
                    return Err(Status::unavailable("the guest forgot to end the output"));
                }
                Ok(Err(status)) => return Err(status::of_guest(&status)),
                Err(_) => return Err(Status::unavailable("the guest does not answer")),
            };
            match event.event {
                Some(guest::attach_exec_response::Event::Output(output)) => {
                    let is_stderr = output.stream() == guest::ExecOutputStream::Stderr;
                    let wrap = if is_stderr { Output::Stderr } else { Output::Stdout };
                    return Ok(wrap(output.data.into()));
                }
                Some(guest::attach_exec_response::Event::End(end)) => {
                    self.end.ended = true;
                    // Of the call, or of the task that pumps for it.
                    Span::current().record("exit", end.exit_code);
                    if end.timed_out {
                        let seconds = self.timeout.as_secs();
                        let mut message = format!("killed with its children after {seconds} s");
                        if !end.error.is_empty() {
                            message = format!("{message}: {}", end.error);
                        }
                        return Err(Status::deadline_exceeded(message));
                    }
                    return Ok(Output::End(end));
                }
                None => {}
            }
        }
    }
}

impl Drop for EndsWithCall {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (mut guest, exec_id) = (self.guest.clone(), self.exec_id.clone());
        self.manager.in_background(async move {
            let kill = guest::SignalExecRequest { exec_id, signal: 9 };
            // It may just have ended, or the whole guest may have.
            let _ = ask(guest.signal_exec(kill)).await;
        });
    }
}

/// Runs a command and returns all it wrote, up to `bytes_max`.
pub(super) async fn run(
    manager: &Manager,
    guest: InUse,
    command: Command,
    bytes_max: usize,
) -> Result<host::ExecResponse, Status> {
    let mut running = Running::start(manager, guest, command).await?;
    let mut answer = host::ExecResponse::default();
    loop {
        match running.next().await? {
            Output::Stdout(data) => answer.stdout.extend(data),
            Output::Stderr(data) => answer.stderr.extend(data),
            Output::End(end) => {
                answer.stderr.extend(end.error.into_bytes());
                answer.exit_code = end.exit_code;
                return Ok(answer);
            }
        }
        if answer.stdout.len() + answer.stderr.len() > bytes_max {
            let message =
                format!("killed: it wrote more than {bytes_max} bytes; use ExecStream for that");
            return Err(Status::resource_exhausted(message));
        }
    }
}

/// Runs a command and streams what it writes. It is killed when nobody reads any more.
pub(super) async fn stream(
    manager: &Manager,
    guest: InUse,
    command: Command,
) -> Result<Answers<host::ExecStreamResponse>, Status> {
    let running = Running::start(manager, guest, command).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (end, ended) = oneshot::channel();
    // Ends with the command, with the caller's stream, or with the sandbox.
    manager.in_background(async move {
        let _ = end.send(pump(running, sender).await);
    });
    // What cuts it is told after what is in the queue, however long that takes.
    let cut = stream::once(ended).filter_map(async |ended| ended.ok()?.err().map(Err));
    Ok(Box::pin(ReceiverStream::new(receiver).chain(cut)))
}

/// Passes output on. A caller who does not read holds up neither a pause nor a removal, nor the agent's end.
async fn pump(
    mut running: Running,
    sender: mpsc::Sender<Result<host::ExecStreamResponse, Status>>,
) -> Result<(), Status> {
    let wrap = |event| host::ExecStreamResponse { event: Some(event) };
    let data = |output| wrap(event::Event::Data(host::ExecStreamData { output: Some(output) }));
    if running.pid != 0 {
        let start = host::ExecStreamStart { pid: running.pid };
        send(&running, &sender, wrap(event::Event::Start(start))).await?;
    }
    loop {
        let next = tokio::select! {
            next = running.next() => next?,
            () = sender.closed() => return Ok(()),
        };
        let message = match next {
            Output::Stdout(bytes) => data(host::exec_stream_data::Output::Stdout(bytes)),
            Output::Stderr(bytes) => data(host::exec_stream_data::Output::Stderr(bytes)),
            Output::End(guest::ExecEnd { exit_code, error, .. }) => {
                let end = host::ExecStreamEnd { exit_code, error };
                return send(&running, &sender, wrap(event::Event::End(end))).await;
            }
        };
        send(&running, &sender, message).await?;
    }
}

/// Puts a message into the queue, unless its sandbox goes first.
async fn send(
    running: &Running,
    sender: &mpsc::Sender<Result<host::ExecStreamResponse, Status>>,
    message: host::ExecStreamResponse,
) -> Result<(), Status> {
    let guest = &running.guest;
    tokio::select! {
        // A caller who has hung up is noticed where the next output is waited for.
        _ = sender.send(Ok(message)) => Ok(()),
        () = guest.has_to_leave() => Err(status::of(&guest.left())),
        () = guest.is_over() => Err(status::of(&guest.left())),
    }
}
