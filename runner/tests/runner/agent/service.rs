//! What the agent answers, as its script says.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use ovenbird_hostagent::v1::{
    attach_exec_response::Event, host_agent_service_server::HostAgentService, *,
};
use tonic::{Request, Response, Status, Streaming};

use super::Agent;

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
pub(super) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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
