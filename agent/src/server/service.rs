//! The calls of `hostagent.v1`: arguments checked, fence passed, then on to the sandbox or its guest.
//!
//! Nothing is decided here about sandboxes; see `crate::sandbox`.

use std::sync::Arc;

use ovenbird_guest_protocol::v1 as guest;
use ovenbird_hostagent::v1::{self as host, host_agent_service_server::HostAgentService};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    directories, egress,
    exec::{self, Answers, Command, ask},
    fence::Fences,
    file_streams::{FileStreams, Target, Written},
    files, metrics, status,
};
use crate::{
    name::{Invalid, SandboxId, TemplateName},
    sandbox::{InUse, Info, Manager, Shape, Wish},
    template::Kind,
};

/// Room in a message besides a file's content or a command's output, in bytes.
const ENVELOPE: usize = 64 * 1024;
const VCPUS_DEFAULT: u32 = 1;
const MEMORY_MB_DEFAULT: u32 = 512;

/// What the host is, besides its sandboxes.
#[derive(Debug, Clone)]
pub(super) struct HostFacts {
    pub(super) qemu_version: String,
    pub(super) accelerator: String,
    pub(super) accelerator_reason: String,
    pub(super) cgroups: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) manager: Manager,
    pub(super) fences: Arc<Fences>,
    pub(super) facts: HostFacts,
    pub(super) message_max: usize,
    pub(super) file_streams: FileStreams,
    /// Ends the process.
    pub(super) shutdown: CancellationToken,
    /// Says that no sandbox is to be left then.
    pub(super) terminate: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

fn invalid(error: Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

fn sandbox_id(text: &str) -> Result<SandboxId, Status> {
    SandboxId::new(text).map_err(invalid)
}

fn template_name(text: &str) -> Result<TemplateName, Status> {
    TemplateName::new(text).map_err(invalid)
}

/// A number of a request; 0 means the default.
fn number(name: &str, value: i32, default: u32) -> Result<u32, Status> {
    match u32::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) => Ok(value),
        Err(_) => Err(Status::invalid_argument(format!("{name} is negative"))),
    }
}

fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn signed_long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn info(info: Info) -> host::SandboxInfo {
    host::SandboxInfo {
        sandbox_id: info.id.to_string(),
        status: info.state.name().to_owned(),
        template: info.template.to_string(),
        vcpus: signed(info.shape.vcpus),
        memory_mb: signed(info.shape.memory_mb),
        host_ip: info.host_ip.to_string(),
        created_at_unix: info.created_at_unix,
        last_active_at_unix: info.last_active_at_unix,
        timeout_sec: info.timeout_sec,
        build_id: info.build_id,
    }
}

fn pass(fences: &Fences, fence: Option<&host::Fence>) -> Result<(), Status> {
    let Some(fence) = fence else { return Ok(()) };
    let span = tracing::Span::current();
    span.record("build.id", &fence.build_id).record("attempt", fence.attempt);
    if fence.build_id.is_empty() || fence.build_id.len() > 128 {
        return Err(Status::invalid_argument("fence.build_id must be 1 to 128 bytes"));
    }
    fences
        .pass(&fence.build_id, fence.attempt)
        .map_err(|stale| Status::failed_precondition(stale.to_string()))
}

impl Service {
    fn pass(&self, fence: Option<&host::Fence>) -> Result<(), Status> {
        pass(&self.fences, fence)
    }

    fn guest(&self, id: &str) -> Result<InUse, Status> {
        self.manager.guest(&sandbox_id(id)?).map_err(|error| status::of(&error))
    }

    fn content_max(&self) -> usize {
        self.message_max - ENVELOPE
    }

    async fn save(&self, id: &str, kind: Kind, name: &str) -> Result<u64, Status> {
        let (id, name) = (sandbox_id(id)?, template_name(name)?);
        self.manager.save(&id, kind, &name).await.map_err(|error| status::of(&error))
    }

    fn describe_host(&self) -> Result<host::GetHostResponse, Status> {
        let manager = &self.manager;
        let settings = manager.settings();
        let used = manager.used();
        let listed = manager.templates().list().map_err(|error| status::of(&error.into()))?;
        let templates = listed.into_iter().map(|template| host::HostTemplate {
            name: template.name,
            r#type: template.kind.name().to_owned(),
            size_bytes: signed_long(template.bytes),
        });
        let disk_free = rustix::fs::statvfs(manager.sandboxes_dir())
            .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        Ok(host::GetHostResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            qemu_version: self.facts.qemu_version.clone(),
            kernel: manager.kernel().digest().to_owned(),
            accelerator: self.facts.accelerator.clone(),
            accelerator_reason: self.facts.accelerator_reason.clone(),
            vcpus: signed(settings.limits.total.vcpus),
            memory_mb: signed(settings.limits.total.memory_mb),
            disk_free_bytes: signed_long(disk_free),
            sandboxes: i32::try_from(manager.list().len()).unwrap_or(i32::MAX),
            allocated_vcpus: signed(used.vcpus),
            allocated_memory_mb: signed(used.memory_mb),
            templates: templates.collect(),
            storage_driver: manager.storage_driver().to_owned(),
            max_sandbox_vcpus: signed(settings.largest.vcpus),
            max_sandbox_memory_mb: signed(settings.largest.memory_mb),
            host_vcpus: signed(settings.host.vcpus),
            host_memory_mb: signed(settings.host.memory_mb),
            cpu_overcommit: settings.overcommit.0,
            memory_overcommit: settings.overcommit.1,
            cgroups: self.facts.cgroups.clone(),
        })
    }
}

#[tonic::async_trait]
impl HostAgentService for Service {
    async fn create_sandbox(
        &self,
        request: Request<host::CreateSandboxRequest>,
    ) -> Answer<host::CreateSandboxResponse> {
        let request = request.into_inner();
        let id = match request.sandbox_id.as_str() {
            "" => SandboxId::generate(),
            text => sandbox_id(text)?,
        };
        let wish = Wish {
            id,
            template: template_name(&request.template)?,
            shape: Shape {
                vcpus: number("vcpus", request.vcpus, VCPUS_DEFAULT)?,
                memory_mb: number("memory_mb", request.memory_mb, MEMORY_MB_DEFAULT)?,
            },
            disk_mb: number("disk_mb", request.disk_mb, 0)?,
            timeout_sec: signed(number("timeout_sec", request.timeout_sec, 0)?),
            policy: egress::policy(&request, self.manager.settings())?,
            build_id: request.fence.as_ref().map(|f| f.build_id.clone()).unwrap_or_default(),
        };
        self.pass(request.fence.as_ref())?;
        let made = self.manager.create(wish).await.map_err(|error| status::of(&error))?;
        let made = info(made);
        answer(host::CreateSandboxResponse {
            sandbox_id: made.sandbox_id,
            status: made.status,
            host_ip: made.host_ip,
        })
    }

    async fn destroy_sandbox(
        &self,
        request: Request<host::DestroySandboxRequest>,
    ) -> Answer<host::DestroySandboxResponse> {
        let request = request.into_inner();
        let id = sandbox_id(&request.sandbox_id)?;
        self.pass(request.fence.as_ref())?;
        self.manager.destroy(&id).await.map_err(|error| status::of(&error))?;
        answer(host::DestroySandboxResponse {})
    }

    async fn pause_sandbox(
        &self,
        request: Request<host::PauseSandboxRequest>,
    ) -> Answer<host::PauseSandboxResponse> {
        let id = sandbox_id(&request.into_inner().sandbox_id)?;
        self.manager.pause(&id).await.map_err(|error| status::of(&error))?;
        answer(host::PauseSandboxResponse {})
    }

    async fn resume_sandbox(
        &self,
        request: Request<host::ResumeSandboxRequest>,
    ) -> Answer<host::ResumeSandboxResponse> {
        let host::ResumeSandboxRequest { sandbox_id: id, timeout_sec } = request.into_inner();
        let id = sandbox_id(&id)?;
        number("timeout_sec", timeout_sec, 0)?;
        let resumed = self.manager.resume(&id, timeout_sec).await;
        let info = resumed.map_err(|error| status::of(&error))?;
        answer(host::ResumeSandboxResponse {
            sandbox_id: info.id.to_string(),
            status: info.state.name().to_owned(),
            host_ip: info.host_ip.to_string(),
        })
    }

    async fn exec(&self, request: Request<host::ExecRequest>) -> Answer<host::ExecResponse> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let guest = self.guest(&request.sandbox_id)?;
        let command = Command {
            cmd: request.cmd,
            args: request.args,
            timeout_sec: request.timeout_sec,
            context: request.context,
        };
        answer(exec::run(&self.manager, guest, command, self.content_max()).await?)
    }

    async fn list_sandboxes(
        &self,
        request: Request<host::ListSandboxesRequest>,
    ) -> Answer<host::ListSandboxesResponse> {
        let auto_paused = match request.into_inner().keep_auto_paused {
            true => Vec::new(),
            false => self.manager.take_auto_paused(),
        };
        answer(host::ListSandboxesResponse {
            sandboxes: self.manager.list().into_iter().map(info).collect(),
            auto_paused_sandbox_ids: auto_paused.into_iter().map(|id| id.to_string()).collect(),
        })
    }

    async fn write_file(
        &self,
        request: Request<host::WriteFileRequest>,
    ) -> Answer<host::WriteFileResponse> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let guest = self.guest(&request.sandbox_id)?;
        let bytes = self.manager.counted().file_bytes_in();
        files::write(guest, request.path, request.content, &bytes).await?;
        answer(host::WriteFileResponse {})
    }

    async fn read_file(
        &self,
        request: Request<host::ReadFileRequest>,
    ) -> Answer<host::ReadFileResponse> {
        let request = request.into_inner();
        let guest = self.guest(&request.sandbox_id)?;
        let content = files::read(guest, request.path, self.content_max()).await?;
        self.manager.counted().file_bytes_out().inc_by(content.len() as u64);
        answer(host::ReadFileResponse { content })
    }

    async fn create_snapshot(
        &self,
        request: Request<host::CreateSnapshotRequest>,
    ) -> Answer<host::CreateSnapshotResponse> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let bytes = self.save(&request.sandbox_id, Kind::Snapshot, &request.name).await?;
        let size_bytes = signed_long(bytes);
        answer(host::CreateSnapshotResponse { name: request.name, size_bytes })
    }

    async fn delete_snapshot(
        &self,
        request: Request<host::DeleteSnapshotRequest>,
    ) -> Answer<host::DeleteSnapshotResponse> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let name = template_name(&request.name)?;
        let templates = self.manager.templates().clone();
        let deleted = tokio::task::spawn_blocking(move || templates.delete(&name)).await;
        deleted
            .map_err(|_| Status::internal("the host agent failed inside"))?
            .map_err(|error| status::of(&error.into()))?;
        answer(host::DeleteSnapshotResponse {})
    }

    type ExecStreamStream = Answers<host::ExecStreamResponse>;

    async fn exec_stream(
        &self,
        request: Request<host::ExecStreamRequest>,
    ) -> Answer<Self::ExecStreamStream> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let guest = self.guest(&request.sandbox_id)?;
        let command = Command {
            cmd: request.cmd,
            args: request.args,
            timeout_sec: request.timeout_sec,
            context: request.context,
        };
        answer(exec::stream(&self.manager, guest, command).await?)
    }

    async fn write_file_stream(
        &self,
        request: Request<Streaming<host::WriteFileStreamRequest>>,
    ) -> Answer<host::WriteFileStreamResponse> {
        let mut messages = request.into_inner();
        let meta = self.file_streams.meta(&mut messages).await?;
        self.pass(meta.fence.as_ref())?;
        let stream = self.file_streams.open(self.guest(&meta.sandbox_id)?)?;
        stream.write(&self.manager, Target::File(meta.path), messages, || Ok(())).await?;
        answer(host::WriteFileStreamResponse {})
    }

    async fn unpack_stream(
        &self,
        request: Request<Streaming<host::WriteFileStreamRequest>>,
    ) -> Answer<host::UnpackStreamResponse> {
        let mut messages = request.into_inner();
        let meta = self.file_streams.meta(&mut messages).await?;
        self.pass(meta.fence.as_ref())?;
        let guest = self.guest(&meta.sandbox_id)?;
        let Some(unpack) = meta.unpack else {
            return Err(Status::invalid_argument("the meta has no unpack"));
        };
        let stream = self.file_streams.open(guest)?;
        let (fences, fence) = (Arc::clone(&self.fences), meta.fence);
        // What comes of an attempt that is over must not be among what the next one makes.
        let may_go_on = move || pass(&fences, fence.as_ref());
        let target = Target::Tree(meta.path, unpack);
        let Written { entries, bytes } =
            stream.write(&self.manager, target, messages, may_go_on).await?;
        answer(host::UnpackStreamResponse { entries, bytes })
    }

    type ReadFileStreamStream = Answers<host::ReadFileStreamResponse>;

    async fn read_file_stream(
        &self,
        request: Request<host::ReadFileStreamRequest>,
    ) -> Answer<Self::ReadFileStreamStream> {
        let request = request.into_inner();
        let stream = self.file_streams.open(self.guest(&request.sandbox_id)?)?;
        answer(stream.read(&self.manager, request).await?)
    }

    async fn ping_sandbox(
        &self,
        request: Request<host::PingSandboxRequest>,
    ) -> Answer<host::PingSandboxResponse> {
        let id = sandbox_id(&request.into_inner().sandbox_id)?;
        self.manager.ping(&id).map_err(|error| status::of(&error))?;
        answer(host::PingSandboxResponse {})
    }

    async fn terminate(
        &self,
        _: Request<host::TerminateRequest>,
    ) -> Answer<host::TerminateResponse> {
        tracing::info!("Terminate was called: destroying every sandbox, then exiting");
        self.terminate.cancel();
        self.shutdown.cancel();
        self.manager.close().await;
        answer(host::TerminateResponse {})
    }

    async fn get_sandbox_metrics(
        &self,
        request: Request<host::GetSandboxMetricsRequest>,
    ) -> Answer<host::GetSandboxMetricsResponse> {
        let host::GetSandboxMetricsRequest { sandbox_id: id, range } = request.into_inner();
        let (id, range) = (sandbox_id(&id)?, metrics::range(&range)?);
        let points = self.manager.metrics(&id, range).map_err(|error| status::of(&error))?;
        answer(host::GetSandboxMetricsResponse { points: metrics::points(points) })
    }

    async fn flush_sandbox_metrics(
        &self,
        request: Request<host::FlushSandboxMetricsRequest>,
    ) -> Answer<host::FlushSandboxMetricsResponse> {
        let id = sandbox_id(&request.into_inner().sandbox_id)?;
        let flushed = self.manager.flush_metrics(&id).map_err(|error| status::of(&error))?;
        let [points_10m, points_2h, points_24h] = flushed.map(metrics::points);
        answer(host::FlushSandboxMetricsResponse { points_10m, points_2h, points_24h })
    }

    async fn flatten_rootfs(
        &self,
        request: Request<host::FlattenRootfsRequest>,
    ) -> Answer<host::FlattenRootfsResponse> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let bytes = self.save(&request.sandbox_id, Kind::Image, &request.name).await?;
        answer(host::FlattenRootfsResponse { size_bytes: signed_long(bytes) })
    }

    async fn start_exec(
        &self,
        request: Request<host::StartExecRequest>,
    ) -> Answer<host::StartExecResponse> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let mut guest = self.guest(&request.sandbox_id)?;
        let started = ask(guest.start_exec(exec::start_request(request))).await?;
        if !started.already_started {
            self.manager.counted().detached_exec_started();
        }
        answer(host::StartExecResponse {
            pid: started.pid,
            already_started: started.already_started,
        })
    }

    type AttachExecStream = Answers<host::AttachExecResponse>;

    async fn attach_exec(
        &self,
        request: Request<host::AttachExecRequest>,
    ) -> Answer<Self::AttachExecStream> {
        let request = request.into_inner();
        self.pass(request.fence.as_ref())?;
        let guest = self.guest(&request.sandbox_id)?;
        answer(exec::attach(guest, request.exec_id, request.from_offset).await?)
    }

    async fn ack_exec(
        &self,
        request: Request<host::AckExecRequest>,
    ) -> Answer<host::AckExecResponse> {
        let host::AckExecRequest { sandbox_id, exec_id, offset, fence } = request.into_inner();
        self.pass(fence.as_ref())?;
        let mut guest = self.guest(&sandbox_id)?;
        ask(guest.ack_exec(guest::AckExecRequest { exec_id, offset })).await?;
        answer(host::AckExecResponse {})
    }

    async fn signal_exec(
        &self,
        request: Request<host::SignalExecRequest>,
    ) -> Answer<host::SignalExecResponse> {
        let host::SignalExecRequest { sandbox_id, exec_id, signal, fence } = request.into_inner();
        self.pass(fence.as_ref())?;
        let mut guest = self.guest(&sandbox_id)?;
        ask(guest.signal_exec(guest::SignalExecRequest { exec_id, signal })).await?;
        answer(host::SignalExecResponse {})
    }

    async fn checkpoint(
        &self,
        request: Request<host::CheckpointRequest>,
    ) -> Answer<host::CheckpointResponse> {
        let host::CheckpointRequest { sandbox_id: id, name, fence } = request.into_inner();
        let id = sandbox_id(&id)?;
        self.pass(fence.as_ref())?;
        let kept = self.manager.checkpoint(&id, &name).await;
        let size_bytes = signed_long(kept.map_err(|error| status::of(&error))?);
        answer(host::CheckpointResponse { size_bytes })
    }

    async fn restore_checkpoint(
        &self,
        request: Request<host::RestoreCheckpointRequest>,
    ) -> Answer<host::RestoreCheckpointResponse> {
        let host::RestoreCheckpointRequest { sandbox_id: id, name, fence } = request.into_inner();
        let id = sandbox_id(&id)?;
        self.pass(fence.as_ref())?;
        let restored = self.manager.restore_checkpoint(&id, &name).await;
        let info = restored.map_err(|error| status::of(&error))?;
        answer(host::RestoreCheckpointResponse {
            status: info.state.name().to_owned(),
            host_ip: info.host_ip.to_string(),
        })
    }

    async fn list_directory(
        &self,
        request: Request<host::ListDirectoryRequest>,
    ) -> Answer<host::ListDirectoryResponse> {
        let request = request.into_inner();
        let guest = self.guest(&request.sandbox_id)?;
        answer(directories::list(guest, request).await?)
    }

    async fn make_directory(
        &self,
        request: Request<host::MakeDirectoryRequest>,
    ) -> Answer<host::MakeDirectoryResponse> {
        let request = request.into_inner();
        let guest = self.guest(&request.sandbox_id)?;
        answer(directories::make(guest, request).await?)
    }

    async fn remove_path(
        &self,
        request: Request<host::RemovePathRequest>,
    ) -> Answer<host::RemovePathResponse> {
        let request = request.into_inner();
        let guest = self.guest(&request.sandbox_id)?;
        directories::remove(guest, request).await?;
        answer(host::RemovePathResponse {})
    }

    async fn get_host(&self, _: Request<host::GetHostRequest>) -> Answer<host::GetHostResponse> {
        answer(self.describe_host()?)
    }
}
