//! A host agent that is a script of faults: guests that do not become ready, streams that break, commands
//! that never end. It has no sandbox in it; a command's script says what it is to do:
//!
//! `print N` writes N lines; `loud N` writes N lines and ends with 3; `exit N` ends with N; `hang` never ends; `break` loses the connection once in
//! the middle of its output; `pass N` is a healthcheck that passes at its N-th attempt; `gate` writes and ends
//! when the test says so, and has forgotten what was acknowledged; `twice` fails at the first try and is a gate at the
//! second; `poweroff` turns its machine off. A fence that was passed by a higher attempt refuses the lower one, and a command that is
//! known is not started again.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt as _, stream};
use ovenbird_hostagent::v1::{
    attach_exec_response::Event,
    host_agent_service_server::{HostAgentService, HostAgentServiceServer},
    *,
};
use ovenbird_kit::tls::Files;
use ovenbird_testkit::{Authority, Folder};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// The script, and what was asked.
#[derive(Clone, Default)]
pub(crate) struct Agent {
    pub(crate) seen: Arc<Mutex<Seen>>,
    alive: Arc<watch::Sender<usize>>,
    gate: Arc<watch::Sender<Gate>>,
    /// Templates are not written while it is true.
    pub(crate) writes_wait: Arc<watch::Sender<bool>>,
    /// No connection lives while it is true.
    cut: Arc<watch::Sender<bool>>,
    /// No more of an archive than its first message is taken while it is true.
    pub(crate) unpacks_wait: Arc<watch::Sender<bool>>,
}

/// Paths, each with its content.
type Entries = Vec<(String, Vec<u8>)>;

/// What `gate` has written, and how it ended.
#[derive(Debug, Clone, Default)]
struct Gate {
    output: Vec<u8>,
    exit_code: Option<i32>,
    /// Whoever listens hears no more, and nothing of an end.
    broken: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Creations that are still to fail.
    pub(crate) not_ready: u32,
    /// Creations that are still to be refused, as by an agent that is about to end.
    pub(crate) closing: u32,
    /// Sandboxes are made, and nobody is told.
    pub(crate) hang_creates: bool,
    /// Destructions that are still to be begun and never to end.
    pub(crate) hang_destroys: u32,
    /// Destructions that were begun.
    pub(crate) destroys: usize,
    /// Connections that were tried while none lived.
    pub(crate) knocks: usize,
    /// Destructions that are still to be refused, as while a sandbox is being saved.
    pub(crate) undestroyed: u32,
    /// Templates are never written to the end.
    pub(crate) hang_saves: bool,
    /// The sandbox is not running any more, as when its agent was killed while it was saved.
    pub(crate) asleep: bool,
    /// It stays so.
    pub(crate) state_is_lost: bool,
    /// Saves that were begun.
    pub(crate) saves: u32,
    pub(crate) created: Vec<String>,
    pub(crate) destroyed: Vec<String>,
    pub(crate) started: Vec<StartExecRequest>,
    pub(crate) attached: Vec<(String, u64)>,
    pub(crate) acked: Vec<(String, u64)>,
    pub(crate) written: Vec<(String, &'static str)>,
    /// What was unpacked: where, as whose, and each path with its content. Without the last one as long as it goes on.
    pub(crate) unpacked: Vec<(String, Unpack, Entries)>,
    /// Archives whose unpacking was begun.
    pub(crate) unpackings: usize,
    /// Calls of UnpackStream that are still to be refused, with this.
    pub(crate) unpack_refusals: Vec<Status>,
    /// Templates whose writing was begun.
    pub(crate) writing: HashSet<String>,
    pub(crate) deleted: Vec<String>,
    pub(crate) fences: HashSet<(String, u32)>,
    pub(crate) refused: Vec<&'static str>,
    /// The sandbox and all that it knew went away.
    pub(crate) gone: bool,
    away: bool,
    broken: HashSet<String>,
}

impl Seen {
    /// One that was made again after its destruction is left, too.
    fn left(&self) -> Vec<String> {
        let times = |all: &[String], id: &String| all.iter().filter(|known| *known == id).count();
        let left = |id: &&String| times(&self.created, id) > times(&self.destroyed, id);
        self.created.iter().filter(left).cloned().collect()
    }
}

impl Agent {
    /// `gate` writes a line.
    pub(crate) fn gate_writes(&self, line: &str) {
        self.gate.send_modify(|gate| gate.output.extend(format!("{line}\n").into_bytes()));
    }

    /// The host answers nobody any more.
    pub(crate) fn goes_away(&self) {
        self.seen.lock().unwrap().away = true;
        self.gate.send_modify(|gate| gate.broken = true);
    }

    /// Whoever follows `gate` hears no more, and the same when it attaches again; until it is mended.
    pub(crate) fn gate_breaks(&self, broken: bool) {
        self.gate.send_modify(|gate| gate.broken = broken);
    }

    /// As while the host agent is started again: connections break, and no new one is taken.
    pub(crate) fn cut_off(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// `gate` ends.
    pub(crate) fn gate_ends(&self, exit_code: i32) {
        self.gate.send_modify(|gate| gate.exit_code = Some(exit_code));
    }

    /// Serves with mutual TLS; answers its address and a client's files.
    pub(crate) async fn start(&self, folder: &Folder) -> (String, Files, JoinHandle<()>) {
        let authority = Authority::new().unwrap();
        let server = authority.server(&["agent.test"]).unwrap();
        let client = authority.client("runner").unwrap();
        let files = authority.write(&client, &folder.join("tls"), "runner").unwrap();
        let files = Files { ca: files.ca, cert: files.cert, key: files.key };
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&server.certificate, &server.key))
            .client_ca_root(Certificate::from_pem(authority.certificate()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = HostAgentServiceServer::new(self.clone());
        let (cut, seen) = (Arc::clone(&self.cut), Arc::clone(&self.seen));
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = inner.local_addr().unwrap();
            tasks.spawn(async move {
                let serving = Server::builder().tls_config(tls).unwrap().add_service(service);
                serving.serve_with_incoming(TcpListenerStream::new(inner)).await.unwrap();
            });
            // Its connections would outlive the server: these break with this task.
            loop {
                let (mut outside, _) = listener.accept().await.unwrap();
                let mut cut = cut.subscribe();
                if *cut.borrow_and_update() {
                    seen.lock().unwrap().knocks += 1;
                    continue;
                }
                tasks.spawn(async move {
                    let mut inside = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut outside, &mut inside) => {}
                        _ = cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        (address, files, task)
    }

    /// Sandboxes that were made and not destroyed.
    pub(crate) fn left(&self) -> Vec<String> {
        self.seen.lock().unwrap().left()
    }

    /// Waits until `count` commands were started.
    pub(crate) async fn until_started(&self, count: usize) {
        let mut alive = self.alive.subscribe();
        let started = alive.wait_for(|started| *started >= count);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), started).await;
        waited.expect("commands are started").unwrap();
    }

    fn fence(&self, fence: Option<Fence>, call: &'static str) -> Result<(), Status> {
        let fence = fence.expect("every call is fenced");
        let mut seen = self.seen.lock().unwrap();
        let higher = |(build, attempt): &&(String, u32)| {
            *build == fence.build_id && *attempt > fence.attempt
        };
        if seen.fences.iter().find(higher).is_some() {
            seen.refused.push(call);
            return Err(Status::failed_precondition("attempt 2 has called since"));
        }
        seen.fences.insert((fence.build_id, fence.attempt));
        Ok(())
    }

    /// Writes a template to the end, also when nobody waits for it, and once.
    async fn write(
        &self,
        fence: Option<Fence>,
        name: &str,
        sandbox_id: String,
        kind: &'static str,
    ) -> Result<(), Status> {
        self.fence(fence, kind)?;
        self.here()?;
        let hangs = {
            let mut seen = self.seen.lock().unwrap();
            if seen.asleep {
                return Err(Status::failed_precondition("sandbox sbx is paused, not running"));
            }
            seen.saves += 1;
            seen.hang_saves
        };
        if hangs {
            return std::future::pending().await;
        }
        {
            let mut seen = self.seen.lock().unwrap();
            if seen.written.iter().any(|written| written.0 == name)
                || !seen.writing.insert(name.to_owned())
            {
                return Err(Status::already_exists("a template of this name exists already"));
            }
        }
        let (agent, name) = (self.clone(), name.to_owned());
        let writing = tokio::spawn(async move {
            let _ = agent.writes_wait.subscribe().wait_for(|wait| !wait).await;
            let mut seen = agent.seen.lock().unwrap();
            seen.written.push((name, kind));
            seen.destroyed.push(sandbox_id);
        });
        writing.await.map_err(|_| Status::internal("broken"))
    }

    fn here(&self) -> Result<(), Status> {
        let seen = self.seen.lock().unwrap();
        if seen.away {
            return Err(Status::unavailable("the host is away"));
        }
        match seen.gone {
            true => Err(Status::not_found("there is no such sandbox on this host")),
            false => Ok(()),
        }
    }

    /// What the gate writes from `offset` on, to its end.
    fn through_gate(&self, offset: u64) -> Streamed<AttachExecResponse> {
        let state = (self.gate.subscribe(), offset, false);
        let events = stream::unfold(state, |(mut gate, offset, over)| async move {
            if over {
                return None;
            }
            let from = usize::try_from(offset).unwrap();
            let news =
                |gate: &Gate| gate.output.len() > from || gate.exit_code.is_some() || gate.broken;
            let now = gate.wait_for(news).await.ok()?.clone();
            if now.broken {
                return None;
            }
            let end_offset = now.output.len() as u64;
            let (event, over) = match now.exit_code {
                Some(exit_code) if now.output.len() <= from => {
                    let end = ExecEnd { exit_code, end_offset, ..ExecEnd::default() };
                    (Event::End(end), true)
                }
                _ => {
                    let (stream, data) =
                        (ExecOutputStream::Stdout.into(), now.output[from..].to_vec());
                    (Event::Output(ExecOutput { offset, stream, data }), false)
                }
            };
            let answer = Ok(AttachExecResponse { event: Some(event) });
            Some((answer, (gate, end_offset, over)))
        });
        events.boxed()
    }

    /// Up to where a command's output was acknowledged.
    pub(crate) fn acked(&self, exec_id: &str) -> u64 {
        let seen = self.seen.lock().unwrap();
        let of = seen.acked.iter().filter(|(acked, _)| acked == exec_id);
        of.map(|(_, upto)| *upto).max().unwrap_or(0)
    }

    fn script(&self, exec_id: &str) -> String {
        let seen = self.seen.lock().unwrap();
        let started = seen.started.iter().find(|started| started.exec_id == exec_id);
        started.map(|started| started.args[1].clone()).unwrap_or_default()
    }
}

fn output(script: &str) -> Vec<u8> {
    let lines = match script.split_once(' ') {
        Some(("print" | "loud", count)) => count.parse().unwrap(),
        _ if script == "break" => 100,
        _ => 1,
    };
    (1..=lines).map(|n| format!("{script}: line {n}\n")).collect::<String>().into_bytes()
}

fn exit_code(script: &str, exec_id: &str) -> i32 {
    let nth = exec_id.rsplit('.').next().and_then(|nth| nth.parse::<i32>().ok()).unwrap_or(1);
    match script.split_once(' ') {
        Some(("exit", code)) => code.parse().unwrap(),
        Some(("loud", _)) => 3,
        None if script == "twice" => 1,
        Some(("pass", at)) => i32::from(nth < at.parse().unwrap()),
        _ => 0,
    }
}

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! not_scripted {
    ($($name:ident($request:ty) -> $response:ty;)+) => {
        $(fn $name<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Reply<$response>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })+
    };
}

#[tonic::async_trait]
impl HostAgentService for Agent {
    type ExecStreamStream = Streamed<ExecStreamResponse>;
    type ReadFileStreamStream = Streamed<ReadFileStreamResponse>;
    type AttachExecStream = Streamed<AttachExecResponse>;

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Reply<CreateSandboxResponse> {
        let request = request.into_inner();
        self.fence(request.fence, "create")?;
        let hangs = {
            let mut seen = self.seen.lock().unwrap();
            if seen.closing > 0 {
                seen.closing -= 1;
                return Err(Status::unavailable("this host agent is shutting down"));
            }
            if seen.not_ready > 0 {
                seen.not_ready -= 1;
                return Err(Status::unavailable(
                    "the guest was not ready in time; console:\npanic",
                ));
            }
            if seen.left().contains(&request.sandbox_id) {
                return Err(Status::already_exists("a sandbox of this id exists already"));
            }
            seen.created.push(request.sandbox_id.clone());
            seen.hang_creates
        };
        if hangs {
            return std::future::pending().await;
        }
        Ok(Response::new(CreateSandboxResponse {
            sandbox_id: request.sandbox_id,
            status: "running".into(),
            host_ip: "10.0.0.1".into(),
        }))
    }

    async fn destroy_sandbox(
        &self,
        request: Request<DestroySandboxRequest>,
    ) -> Reply<DestroySandboxResponse> {
        let request = request.into_inner();
        self.fence(request.fence, "destroy")?;
        let hangs = {
            let mut seen = self.seen.lock().unwrap();
            if seen.undestroyed > 0 {
                seen.undestroyed -= 1;
                return Err(Status::failed_precondition("the sandbox is saving"));
            }
            seen.destroys += 1;
            let hangs = seen.hang_destroys > 0;
            seen.hang_destroys = seen.hang_destroys.saturating_sub(1);
            hangs
        };
        if hangs {
            return std::future::pending().await;
        }
        self.seen.lock().unwrap().destroyed.push(request.sandbox_id);
        Ok(Response::new(DestroySandboxResponse {}))
    }

    async fn resume_sandbox(
        &self,
        request: Request<ResumeSandboxRequest>,
    ) -> Reply<ResumeSandboxResponse> {
        self.here()?;
        let mut seen = self.seen.lock().unwrap();
        if seen.state_is_lost {
            return Err(Status::failed_precondition("its saved state is gone"));
        }
        seen.asleep = false;
        Ok(Response::new(ResumeSandboxResponse {
            sandbox_id: request.into_inner().sandbox_id,
            status: "running".into(),
            host_ip: "10.0.0.1".into(),
        }))
    }

    async fn start_exec(&self, request: Request<StartExecRequest>) -> Reply<StartExecResponse> {
        let request = request.into_inner();
        self.fence(request.fence.clone(), "start")?;
        self.here()?;
        let (started, already_started) = {
            let mut seen = self.seen.lock().unwrap();
            let known = seen.started.iter().any(|known| known.exec_id == request.exec_id);
            if !known {
                seen.started.push(request);
            }
            (seen.started.len(), known)
        };
        self.alive.send_replace(started);
        Ok(Response::new(StartExecResponse { pid: 7, already_started }))
    }

    async fn attach_exec(
        &self,
        request: Request<AttachExecRequest>,
    ) -> Reply<Self::AttachExecStream> {
        let request = request.into_inner();
        self.fence(request.fence.clone(), "attach")?;
        self.here()?;
        let script = self.script(&request.exec_id);
        if script == "gate" || script == "twice" && request.exec_id.ends_with(".2") {
            let forgotten = self.acked(&request.exec_id);
            self.seen.lock().unwrap().attached.push((request.exec_id, request.from_offset));
            return Ok(Response::new(self.through_gate(request.from_offset.max(forgotten))));
        }
        if script == "poweroff" {
            let message = "sandbox sbx is stopped, not running: its guest turned itself off";
            return Err(Status::failed_precondition(message));
        }
        let whole = output(&script);
        let breaks = {
            let mut seen = self.seen.lock().unwrap();
            seen.attached.push((request.exec_id.clone(), request.from_offset));
            script == "break" && seen.broken.insert(request.exec_id.clone())
        };
        let from = usize::try_from(request.from_offset).unwrap();
        let upto = if breaks { whole.len() / 2 } else { whole.len() };
        let mut events: Vec<Result<AttachExecResponse, Status>> = whole[from.min(upto)..upto]
            .chunks(1000)
            .zip((request.from_offset..).step_by(1000))
            .map(|(data, offset)| ExecOutput {
                offset,
                stream: ExecOutputStream::Stdout.into(),
                data: data.to_vec(),
            })
            .map(|output| Ok(AttachExecResponse { event: Some(Event::Output(output)) }))
            .collect();
        if !breaks && script != "hang" {
            let end = ExecEnd {
                exit_code: exit_code(&script, &request.exec_id),
                timed_out: script == "slow",
                error: String::new(),
                end_offset: whole.len() as u64,
                elapsed_ms: 5,
            };
            events.push(Ok(AttachExecResponse { event: Some(Event::End(end)) }));
        }
        let events = stream::iter(events);
        Ok(Response::new(match script.as_str() {
            "hang" => events.chain(stream::pending()).boxed(),
            _ => events.boxed(),
        }))
    }

    async fn ack_exec(&self, request: Request<AckExecRequest>) -> Reply<AckExecResponse> {
        let request = request.into_inner();
        self.seen.lock().unwrap().acked.push((request.exec_id, request.offset));
        Ok(Response::new(AckExecResponse {}))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Reply<CreateSnapshotResponse> {
        let request = request.into_inner();
        self.write(request.fence, &request.name, request.sandbox_id, "snapshot").await?;
        Ok(Response::new(CreateSnapshotResponse { name: request.name, size_bytes: 4096 }))
    }

    async fn flatten_rootfs(
        &self,
        request: Request<FlattenRootfsRequest>,
    ) -> Reply<FlattenRootfsResponse> {
        let request = request.into_inner();
        self.write(request.fence, &request.name, request.sandbox_id, "image").await?;
        Ok(Response::new(FlattenRootfsResponse { size_bytes: 4096 }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Reply<DeleteSnapshotResponse> {
        let request = request.into_inner();
        self.fence(request.fence, "delete")?;
        self.seen.lock().unwrap().deleted.push(request.name);
        Ok(Response::new(DeleteSnapshotResponse {}))
    }

    async fn get_host(&self, _: Request<GetHostRequest>) -> Reply<GetHostResponse> {
        let seen = self.seen.lock().unwrap();
        let templates = seen.written.iter().map(|(name, kind)| HostTemplate {
            name: name.clone(),
            r#type: (*kind).to_owned(),
            size_bytes: 4096,
        });
        let templates = templates.collect();
        Ok(Response::new(GetHostResponse { templates, ..GetHostResponse::default() }))
    }

    async fn list_sandboxes(
        &self,
        _: Request<ListSandboxesRequest>,
    ) -> Reply<ListSandboxesResponse> {
        let info = |sandbox_id| SandboxInfo {
            sandbox_id,
            status: "running".into(),
            ..SandboxInfo::default()
        };
        let sandboxes = self.left().into_iter().map(info).collect();
        Ok(Response::new(ListSandboxesResponse { sandboxes, ..ListSandboxesResponse::default() }))
    }

    async fn unpack_stream(
        &self,
        request: Request<Streaming<WriteFileStreamRequest>>,
    ) -> Reply<UnpackStreamResponse> {
        use write_file_stream_request::Content;
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|first| first.content);
        let Some(Content::Meta(meta)) = first else { panic!("no meta") };
        self.fence(meta.fence.clone(), "unpack")?;
        self.here()?;
        {
            let mut seen = self.seen.lock().unwrap();
            if let Some(refusal) = seen.unpack_refusals.pop() {
                return Err(refusal);
            }
            seen.unpackings += 1;
        }
        let _ = self.unpacks_wait.subscribe().wait_for(|wait| !wait).await;
        let mut bytes = Vec::new();
        while let Some(message) = messages.message().await? {
            self.fence(meta.fence.clone(), "unpack")?;
            match message.content {
                Some(Content::Chunk(chunk)) => bytes.extend(chunk),
                _ => return Err(Status::invalid_argument("it broke off")),
            }
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content)?;
            files.push((entry.path()?.to_string_lossy().into_owned(), content));
        }
        let unpack = meta.unpack.expect("what to unpack as");
        let entries = files.len() as u64;
        self.seen.lock().unwrap().unpacked.push((meta.path, unpack, files));
        Ok(Response::new(UnpackStreamResponse { entries, bytes: 0 }))
    }

    not_scripted! {
        pause_sandbox(PauseSandboxRequest) -> PauseSandboxResponse;
        exec(ExecRequest) -> ExecResponse;
        write_file(WriteFileRequest) -> WriteFileResponse;
        read_file(ReadFileRequest) -> ReadFileResponse;
        exec_stream(ExecStreamRequest) -> Self::ExecStreamStream;
        write_file_stream(Streaming<WriteFileStreamRequest>) -> WriteFileStreamResponse;
        read_file_stream(ReadFileStreamRequest) -> Self::ReadFileStreamStream;
        ping_sandbox(PingSandboxRequest) -> PingSandboxResponse;
        terminate(TerminateRequest) -> TerminateResponse;
        get_sandbox_metrics(GetSandboxMetricsRequest) -> GetSandboxMetricsResponse;
        flush_sandbox_metrics(FlushSandboxMetricsRequest) -> FlushSandboxMetricsResponse;
        signal_exec(SignalExecRequest) -> SignalExecResponse;
        checkpoint(CheckpointRequest) -> CheckpointResponse;
        restore_checkpoint(RestoreCheckpointRequest) -> RestoreCheckpointResponse;
        list_directory(ListDirectoryRequest) -> ListDirectoryResponse;
        make_directory(MakeDirectoryRequest) -> MakeDirectoryResponse;
        remove_path(RemovePathRequest) -> RemovePathResponse;
    }
}
