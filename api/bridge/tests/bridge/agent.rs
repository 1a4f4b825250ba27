//! A host agent without a microVM in it: sandboxes and templates are names in lists, fences are real. It can be
//! told not to destroy, and its connections can be broken.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::Stream;
use ovenbird_agent_client::{Agents, Config};
use ovenbird_contract::{
    desk::TemplateKind,
    id::{BuildId, HostId, SandboxId, TemplateId},
};
use ovenbird_db::{
    Store,
    store::host::{Allocated, Capacity, Held, Report, Versions},
};
use ovenbird_hostagent::v1::{
    host_agent_service_server::{HostAgentService, HostAgentServiceServer},
    *,
};
use ovenbird_kit::tls::Files;
use ovenbird_testkit::{Authority, Folder};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// The host, and a client of it.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) address: String,
    pub(crate) agents: Agents,
    state: Agent,
    server: JoinHandle<()>,
    files: (Identity, Certificate),
    _folder: Folder,
}

#[derive(Clone, Default)]
struct Agent(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, String>,
    /// Of those that do not run.
    words: BTreeMap<String, &'static str>,
    templates: BTreeSet<String>,
    fences: HashMap<String, u32>,
    destroys: bool,
    calls: usize,
}

impl Host {
    /// A host that holds `minimal`; builds go there.
    pub(crate) async fn start(store: &Store) -> Self {
        let folder = Folder::new("host").unwrap();
        let authority = Authority::new().unwrap();
        let server = authority.server(&["agent.test"]).unwrap();
        let client = authority.client("bridge").unwrap();
        let written = authority.write(&client, &folder.join("tls"), "bridge").unwrap();
        let tls = Files { ca: written.ca, cert: written.cert, key: written.key };
        let files = (
            Identity::from_pem(&server.certificate, &server.key),
            Certificate::from_pem(authority.certificate()),
        );
        let state = Agent::default();
        state.0.lock().unwrap().destroys = true;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = serve(listener, &files, &state);
        let config = Config { attempts: 1, ..Config::default() };
        let agents = Agents::new(&tls, config).unwrap();
        // Nobody answers at the address of the rig's own host.
        store.host_unreachable("127.0.0.1:1").await.unwrap();
        let id = store.host_report(&report(&address), Duration::ZERO).await.unwrap();
        Self { id, address, agents, state, server, files, _folder: folder }
    }

    /// Its connections break, and it answers no more.
    pub(crate) async fn goes(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    /// It answers again, with what it had.
    pub(crate) async fn comes_back(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.server = serve(listener, &self.files, &self.state);
    }

    pub(crate) fn destroys(&self, destroys: bool) {
        self.state.0.lock().unwrap().destroys = destroys;
    }

    /// A sandbox, as a runner's `CreateSandbox` leaves it.
    pub(crate) fn sandbox(&self, build: BuildId, attempt: u32) -> SandboxId {
        let id = SandboxId::new();
        self.state.create(id, build, attempt).unwrap();
        id
    }

    /// What the host says to a `CreateSandbox` that was on its way for long.
    pub(crate) fn late_create(&self, build: BuildId, attempt: u32) -> Result<(), Status> {
        self.state.create(SandboxId::new(), build, attempt)
    }

    /// A sandbox of a user, as an api's `CreateSandbox` leaves it, of which the host says this word.
    pub(crate) fn users_sandbox(&self, id: SandboxId, word: &'static str) {
        let mut state = self.state.0.lock().unwrap();
        state.sandboxes.insert(id.to_string(), id.to_string());
        state.words.insert(id.to_string(), word);
    }

    /// What the host says to an api's `CreateSandbox` that was on its way for long.
    pub(crate) fn late_users_create(&self, id: SandboxId) -> Result<(), Status> {
        self.state.pass(Some(Fence { build_id: id.to_string(), attempt: 1 }))
    }

    pub(crate) fn foreign_sandbox(&self, id: &str, build: &str) {
        self.state.0.lock().unwrap().sandboxes.insert(id.into(), build.into());
    }

    pub(crate) fn template(&self, id: TemplateId) {
        self.state.0.lock().unwrap().templates.insert(id.to_string());
    }

    pub(crate) fn foreign_template(&self, name: &str) {
        self.state.0.lock().unwrap().templates.insert(name.into());
    }

    pub(crate) fn sandboxes(&self) -> Vec<String> {
        self.state.0.lock().unwrap().sandboxes.keys().cloned().collect()
    }

    pub(crate) fn templates(&self) -> Vec<String> {
        self.state.0.lock().unwrap().templates.iter().cloned().collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn serve(listener: TcpListener, files: &(Identity, Certificate), state: &Agent) -> JoinHandle<()> {
    let (identity, authority) = files.clone();
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority);
    let service = HostAgentServiceServer::new(state.clone());
    tokio::spawn(async move {
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
            tasks.spawn(async move {
                let mut inside = TcpStream::connect(address).await.unwrap();
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    })
}

pub(crate) fn report(address: &str) -> Report {
    Report {
        address: address.into(),
        server_name: "agent.test".into(),
        capacity: Capacity { vcpus: 32, memory_mb: 128 * 1024, ..Capacity::default() },
        allocated: Allocated::default(),
        versions: Versions::default(),
        templates: vec![Held {
            host_name: "minimal".into(),
            kind: TemplateKind::Image,
            size_bytes: 1 << 20,
        }],
    }
}

impl Agent {
    fn create(&self, id: SandboxId, build: BuildId, attempt: u32) -> Result<(), Status> {
        let build = build.to_string();
        self.pass(Some(Fence { build_id: build.clone(), attempt }))?;
        self.0.lock().unwrap().sandboxes.insert(id.to_string(), build);
        Ok(())
    }

    fn pass(&self, fence: Option<Fence>) -> Result<(), Status> {
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        let Some(Fence { build_id, attempt }) = fence else { return Ok(()) };
        let highest = state.fences.entry(build_id).or_insert(attempt);
        if attempt < *highest {
            let message = format!("attempt {attempt} is over: attempt {highest} has called since");
            return Err(Status::failed_precondition(message));
        }
        *highest = attempt;
        Ok(())
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

    async fn destroy_sandbox(
        &self,
        request: Request<DestroySandboxRequest>,
    ) -> Reply<DestroySandboxResponse> {
        let request = request.into_inner();
        self.pass(request.fence)?;
        let mut state = self.0.lock().unwrap();
        if !state.destroys {
            return Err(Status::failed_precondition("the sandbox is saving"));
        }
        match state.sandboxes.remove(&request.sandbox_id) {
            Some(_) => Ok(Response::new(DestroySandboxResponse {})),
            None => Err(Status::not_found(request.sandbox_id)),
        }
    }

    async fn list_sandboxes(
        &self,
        _: Request<ListSandboxesRequest>,
    ) -> Reply<ListSandboxesResponse> {
        self.pass(None)?;
        let (sandboxes, words) = {
            let state = self.0.lock().unwrap();
            (state.sandboxes.clone().into_iter(), state.words.clone())
        };
        let sandboxes = sandboxes.map(|(sandbox_id, build_id)| SandboxInfo {
            status: words.get(&sandbox_id).copied().unwrap_or("running").into(),
            sandbox_id,
            build_id,
            created_at_unix: chrono::Utc::now().timestamp() - 10,
            ..Default::default()
        });
        Ok(Response::new(ListSandboxesResponse {
            sandboxes: sandboxes.collect(),
            auto_paused_sandbox_ids: Vec::new(),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Reply<DeleteSnapshotResponse> {
        self.pass(None)?;
        let name = request.into_inner().name;
        match self.0.lock().unwrap().templates.remove(&name) {
            true => Ok(Response::new(DeleteSnapshotResponse {})),
            false => Err(Status::not_found(name)),
        }
    }

    async fn get_host(&self, _: Request<GetHostRequest>) -> Reply<GetHostResponse> {
        self.pass(None)?;
        let names = self.0.lock().unwrap().templates.clone().into_iter();
        let templates =
            names.map(|name| HostTemplate { name, r#type: "image".into(), size_bytes: 1 });
        Ok(Response::new(GetHostResponse { templates: templates.collect(), ..Default::default() }))
    }

    not_scripted! {
        create_sandbox(CreateSandboxRequest) -> CreateSandboxResponse;
        pause_sandbox(PauseSandboxRequest) -> PauseSandboxResponse;
        resume_sandbox(ResumeSandboxRequest) -> ResumeSandboxResponse;
        exec(ExecRequest) -> ExecResponse;
        write_file(WriteFileRequest) -> WriteFileResponse;
        read_file(ReadFileRequest) -> ReadFileResponse;
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse;
        exec_stream(ExecStreamRequest) -> Self::ExecStreamStream;
        write_file_stream(Streaming<WriteFileStreamRequest>) -> WriteFileStreamResponse;
        unpack_stream(Streaming<WriteFileStreamRequest>) -> UnpackStreamResponse;
        read_file_stream(ReadFileStreamRequest) -> Self::ReadFileStreamStream;
        ping_sandbox(PingSandboxRequest) -> PingSandboxResponse;
        terminate(TerminateRequest) -> TerminateResponse;
        get_sandbox_metrics(GetSandboxMetricsRequest) -> GetSandboxMetricsResponse;
        flush_sandbox_metrics(FlushSandboxMetricsRequest) -> FlushSandboxMetricsResponse;
        flatten_rootfs(FlattenRootfsRequest) -> FlattenRootfsResponse;
        start_exec(StartExecRequest) -> StartExecResponse;
        attach_exec(AttachExecRequest) -> Self::AttachExecStream;
        ack_exec(AckExecRequest) -> AckExecResponse;
        signal_exec(SignalExecRequest) -> SignalExecResponse;
        checkpoint(CheckpointRequest) -> CheckpointResponse;
        restore_checkpoint(RestoreCheckpointRequest) -> RestoreCheckpointResponse;
        list_directory(ListDirectoryRequest) -> ListDirectoryResponse;
        make_directory(MakeDirectoryRequest) -> MakeDirectoryResponse;
        remove_path(RemovePathRequest) -> RemovePathResponse;
    }
}
