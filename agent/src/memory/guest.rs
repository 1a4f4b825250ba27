//! The guest's side of the link without a guest: HELLO, then as much of the service as builds need.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt as _, stream};
use ovenbird_guest_protocol::{
    EXEC_BUFFER, Hello, PROTOCOL, Reply, Search, Token,
    v1::{
        AckExecRequest, AckExecResponse, AttachExecRequest, AttachExecResponse, ConfigureRequest,
        ConfigureResponse, ExecEnd, ExecOutput, ExecOutputStream, FreezeRequest, FreezeResponse,
        InfoRequest, InfoResponse, ListDirectoryRequest, ListDirectoryResponse,
        MakeDirectoryRequest, MakeDirectoryResponse, ReadFileRequest, ReadFileResponse,
        RemovePathRequest, RemovePathResponse, ShutdownRequest, ShutdownResponse,
        SignalExecRequest, SignalExecResponse, StartExecRequest, StartExecResponse, SyncRequest,
        SyncResponse, ThawRequest, ThawResponse, UnfollowExecsRequest, UnfollowExecsResponse,
        UnpackResponse, WriteFileRequest, WriteFileResponse,
        attach_exec_response::Event,
        guest_service_server::{GuestService, GuestServiceServer},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::script::Script;

/// Largest piece of output in one message, as the real guest's.
const PIECE_MAX: usize = 32 * 1024;

/// Answers on `listener` until it is dropped; `off` is cancelled when the guest turns itself off.
pub(super) async fn serve(listener: UnixListener, token: Token, off: CancellationToken) {
    let guest = Guest { execs: Arc::default(), off };
    let mut sessions = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // The last host that dials has the port, as on a real one.
        sessions.abort_all();
        while sessions.try_join_next().is_some() {}
        sessions.spawn(session(socket, token, guest.clone()));
    }
}

async fn session(mut socket: UnixStream, token: Token, guest: Guest) {
    if shake_hands(&mut socket, token).await.is_err() {
        return;
    }
    let incoming = stream::once(async { Ok::<_, io::Error>(socket) }).chain(stream::pending());
    let served = tonic::transport::Server::builder()
        .add_service(GuestServiceServer::new(guest))
        .serve_with_incoming(incoming)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a memory guest's session broke");
    }
}

async fn shake_hands(socket: &mut UnixStream, token: Token) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        if socket.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Search::Found { frame, .. } = Hello::search(&token, &received) {
            let reply = Reply { protocol: PROTOCOL, nonce: frame.nonce, boot_id: [1; 16] };
            return socket.write_all(&reply.encode()).await;
        }
    }
}

#[derive(Debug, Clone)]
struct Guest {
    execs: Arc<Mutex<BTreeMap<String, Arc<Exec>>>>,
    off: CancellationToken,
}

/// One command: its output from `base` on, and its end.
#[derive(Debug)]
struct Exec {
    output: watch::Sender<Output>,
}

#[derive(Debug, Default)]
struct Output {
    base: u64,
    bytes: Vec<u8>,
    ended: Option<i32>,
}

impl Exec {
    fn start(script: Script) -> Arc<Self> {
        let exec = Arc::new(Self { output: watch::Sender::new(Output::default()) });
        if script.lines == 0 {
            exec.end(0);
        } else {
            // Owned by nobody: it ends by itself, or once the exec's last handle is gone.
            tokio::spawn(write(Arc::downgrade(&exec), script, Instant::now()));
        }
        exec
    }

    fn end(&self, code: i32) {
        self.output.send_modify(|output| {
            output.ended.get_or_insert(code);
        });
    }

    /// Frees the output up to an offset.
    fn ack(&self, offset: u64) {
        self.output.send_modify(|output| {
            let freed = offset.clamp(output.base, output.end()) - output.base;
            output.bytes.drain(..usize::try_from(freed).unwrap_or(0));
            output.base += freed;
        });
    }

    /// With `auto_ack`, what has been sent is freed when more is asked for.
    fn follow(
        self: Arc<Self>,
        from: u64,
        auto_ack: bool,
    ) -> impl Stream<Item = Result<AttachExecResponse, Status>> {
        let receiver = self.output.subscribe();
        stream::unfold((self, receiver, Some(from)), move |(exec, mut receiver, at)| async move {
            let from = at?;
            if auto_ack {
                exec.ack(from);
            }
            let (event, next) =
                receiver.wait_for(|output| output.has(from)).await.ok()?.event(from);
            Some((Ok(AttachExecResponse { event: Some(event) }), (exec, receiver, next)))
        })
    }
}

impl Output {
    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn has(&self, from: u64) -> bool {
        from < self.end() || self.ended.is_some()
    }

    /// What comes at `from`, and where to go on after it.
    fn event(&self, from: u64) -> (Event, Option<u64>) {
        let at = usize::try_from(from.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            let end = ExecEnd {
                exit_code: self.ended.unwrap_or_default(),
                end_offset: self.end(),
                ..ExecEnd::default()
            };
            return (Event::End(end), None);
        }
        let data = rest[..rest.len().min(PIECE_MAX)].to_vec();
        let next = from + data.len() as u64;
        let stream = ExecOutputStream::Stdout.into();
        (Event::Output(ExecOutput { offset: from, stream, data: data.into() }), Some(next))
    }
}

/// Each line bears its number and the moment at which it was written, in nanoseconds since 1970.
async fn write(exec: std::sync::Weak<Exec>, script: Script, begun: Instant) {
    for number in 0..script.lines {
        sleep_until(begun + script.pause * number).await;
        let Some(exec) = exec.upgrade() else { return };
        // A full buffer holds the command back.
        let room = exec
            .output
            .subscribe()
            .wait_for(|output| output.bytes.len() < EXEC_BUFFER || output.ended.is_some())
            .await
            .is_ok_and(|output| output.ended.is_none());
        if !room {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{number} {}\n", now.as_nanos());
        exec.output.send_modify(|output| output.bytes.extend_from_slice(line.as_bytes()));
    }
    if let Some(exec) = exec.upgrade() {
        exec.end(0);
    }
}

impl Guest {
    fn exec(&self, id: &str) -> Result<Arc<Exec>, Status> {
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.get(id).cloned().ok_or_else(|| Status::not_found(format!("no exec {id:?}")))
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl GuestService for Guest {
    type AttachExecStream = Messages<AttachExecResponse>;
    type ReadFileStream = Messages<ReadFileResponse>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { protocol: PROTOCOL.into(), ..InfoResponse::default() }))
    }

    async fn configure(
        &self,
        _: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        Ok(Response::new(ConfigureResponse {}))
    }

    async fn start_exec(
        &self,
        request: Request<StartExecRequest>,
    ) -> Result<Response<StartExecResponse>, Status> {
        let request = request.into_inner();
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        let already_started = execs.contains_key(&request.exec_id);
        let script = Script::parse(&request.args);
        execs.entry(request.exec_id).or_insert_with(|| Exec::start(script));
        Ok(Response::new(StartExecResponse { pid: 2, already_started }))
    }

    async fn attach_exec(
        &self,
        request: Request<AttachExecRequest>,
    ) -> Result<Response<Self::AttachExecStream>, Status> {
        let request = request.into_inner();
        let exec = self.exec(&request.exec_id)?;
        Ok(Response::new(Box::pin(exec.follow(request.from_offset, request.auto_ack))))
    }

    async fn ack_exec(
        &self,
        request: Request<AckExecRequest>,
    ) -> Result<Response<AckExecResponse>, Status> {
        let request = request.into_inner();
        self.exec(&request.exec_id)?.ack(request.offset);
        Ok(Response::new(AckExecResponse {}))
    }

    async fn signal_exec(
        &self,
        request: Request<SignalExecRequest>,
    ) -> Result<Response<SignalExecResponse>, Status> {
        let request = request.into_inner();
        self.exec(&request.exec_id)?.end(128 + request.signal);
        Ok(Response::new(SignalExecResponse {}))
    }

    async fn write_file(
        &self,
        _: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        Err(Status::unimplemented("a memory guest has no files"))
    }

    async fn read_file(
        &self,
        _: Request<ReadFileRequest>,
    ) -> Result<Response<Self::ReadFileStream>, Status> {
        Err(Status::unimplemented("a memory guest has no files"))
    }

    async fn unpack(
        &self,
        _: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<UnpackResponse>, Status> {
        Err(Status::unimplemented("a memory guest has no files"))
    }

    async fn list_directory(
        &self,
        _: Request<ListDirectoryRequest>,
    ) -> Result<Response<ListDirectoryResponse>, Status> {
        Err(Status::unimplemented("a memory guest has no directories"))
    }

    async fn make_directory(
        &self,
        _: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        Err(Status::unimplemented("a memory guest has no directories"))
    }

    async fn remove_path(
        &self,
        _: Request<RemovePathRequest>,
    ) -> Result<Response<RemovePathResponse>, Status> {
        Err(Status::unimplemented("a memory guest has no files"))
    }

    async fn unfollow_execs(
        &self,
        _: Request<UnfollowExecsRequest>,
    ) -> Result<Response<UnfollowExecsResponse>, Status> {
        Ok(Response::new(UnfollowExecsResponse {}))
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        Ok(Response::new(SyncResponse {}))
    }

    async fn freeze(&self, _: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        Ok(Response::new(FreezeResponse {}))
    }

    async fn thaw(&self, _: Request<ThawRequest>) -> Result<Response<ThawResponse>, Status> {
        Ok(Response::new(ThawResponse { was_frozen: false }))
    }

    async fn shutdown(
        &self,
        _: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        self.off.cancel();
        Ok(Response::new(ShutdownResponse {}))
    }
}
