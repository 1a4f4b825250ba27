//! The gRPC face: takes requests apart, asks the part that knows, and turns errors into statuses.

use std::{
    fs, io,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::Stream;
use nix::{
    sys::statvfs::statvfs,
    unistd::{sethostname, sync},
};
use ovenbird_guest_protocol::{
    PROTOCOL,
    v1::{
        AckExecRequest, AckExecResponse, AttachExecRequest, AttachExecResponse, ConfigureRequest,
        ConfigureResponse, FreezeRequest, FreezeResponse, InfoRequest, InfoResponse,
        ListDirectoryRequest, ListDirectoryResponse, MakeDirectoryRequest, MakeDirectoryResponse,
        ReadFileRequest, ReadFileResponse, RemovePathRequest, RemovePathResponse, ShutdownRequest,
        ShutdownResponse, SignalExecRequest, SignalExecResponse, StartExecRequest,
        StartExecResponse, SyncRequest, SyncResponse, ThawRequest, ThawResponse,
        UnfollowExecsRequest, UnfollowExecsResponse, UnpackResponse, WriteFileRequest,
        WriteFileResponse, guest_service_server::GuestService,
    },
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    boot::Facts, clock, error::Error, exec::Execs, files, freeze::Freezer, link::Link, power::Power,
};

/// Serves one machine. Clones are the same.
#[derive(Clone)]
pub(crate) struct Service {
    execs: Arc<Execs>,
    power: Arc<Power>,
    freezer: Arc<Freezer>,
    facts: &'static Facts,
}

impl Service {
    pub(crate) fn new(execs: Arc<Execs>, power: Arc<Power>, facts: &'static Facts) -> Self {
        Self { execs, power, freezer: Arc::default(), facts }
    }

    fn info(&self) -> Result<InfoResponse, Error> {
        let disk = statvfs("/").map_err(|errno| Error::system("asking the disk")(errno.into()))?;
        let meminfo = fs::read_to_string("/proc/meminfo").map_err(Error::system("meminfo"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL.into(),
            boot_id: self.facts.boot_id.to_vec().into(),
            uptime_ms: u64::try_from(clock::uptime().as_millis()).unwrap_or(u64::MAX),
            timer_check_us: u64::try_from(self.facts.timer.slept.as_micros()).unwrap_or(u64::MAX),
            clock_event_device: self.facts.timer.device.clone(),
            hellos: Link::hellos(),
            clock_unix_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            memory_total_bytes: memory(&meminfo, "MemTotal:"),
            memory_available_bytes: memory(&meminfo, "MemAvailable:"),
            disk_total_bytes: disk.blocks() * disk.fragment_size(),
            disk_free_bytes: disk.blocks_available() * disk.fragment_size(),
            execs_running: u32::try_from(self.execs.running()).unwrap_or(u32::MAX),
        })
    }
}

/// A line of /proc/meminfo, in bytes.
pub(crate) fn memory(meminfo: &str, name: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
        .map_or(0, |kilobytes: u64| kilobytes * 1024)
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl GuestService for Service {
    type AttachExecStream = Messages<AttachExecResponse>;
    type ReadFileStream = Messages<ReadFileResponse>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(Self::info(self)?))
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let name = request.into_inner().hostname;
        if !name.is_empty() {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if name.len() > 63 || name.starts_with('-') || !name.bytes().all(allowed) {
                return Err(Error::argument("hostname", "is 1 to 63 of [A-Za-z0-9-]").into());
            }
            sethostname(&name)
                .map_err(|errno| Error::system("setting the host name")(errno.into()))?;
        }
        Ok(Response::new(ConfigureResponse {}))
    }

    async fn start_exec(
        &self,
        request: Request<StartExecRequest>,
    ) -> Result<Response<StartExecResponse>, Status> {
        Ok(Response::new(self.execs.start(request.get_ref())?))
    }

    async fn attach_exec(
        &self,
        request: Request<AttachExecRequest>,
    ) -> Result<Response<Self::AttachExecStream>, Status> {
        Ok(Response::new(Box::pin(self.execs.attach(request.get_ref())?)))
    }

    async fn ack_exec(
        &self,
        request: Request<AckExecRequest>,
    ) -> Result<Response<AckExecResponse>, Status> {
        self.execs.ack(request.get_ref())?;
        Ok(Response::new(AckExecResponse {}))
    }

    async fn signal_exec(
        &self,
        request: Request<SignalExecRequest>,
    ) -> Result<Response<SignalExecResponse>, Status> {
        self.execs.signal(request.get_ref())?;
        Ok(Response::new(SignalExecResponse {}))
    }

    async fn write_file(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        let size = files::write(request.into_inner()).await?;
        Ok(Response::new(WriteFileResponse { size }))
    }

    async fn unpack(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<UnpackResponse>, Status> {
        Ok(Response::new(files::unpack::unpack(request.into_inner()).await?))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<Self::ReadFileStream>, Status> {
        Ok(Response::new(Box::pin(files::read(request.into_inner()).await?)))
    }

    async fn list_directory(
        &self,
        request: Request<ListDirectoryRequest>,
    ) -> Result<Response<ListDirectoryResponse>, Status> {
        Ok(Response::new(files::directory::list(request.into_inner()).await?))
    }

    async fn make_directory(
        &self,
        request: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        Ok(Response::new(files::directory::make(request.into_inner()).await?))
    }

    async fn remove_path(
        &self,
        request: Request<RemovePathRequest>,
    ) -> Result<Response<RemovePathResponse>, Status> {
        files::directory::remove(request.into_inner()).await?;
        Ok(Response::new(RemovePathResponse {}))
    }

    async fn unfollow_execs(
        &self,
        _: Request<UnfollowExecsRequest>,
    ) -> Result<Response<UnfollowExecsResponse>, Status> {
        self.execs.unfollow();
        Ok(Response::new(UnfollowExecsResponse {}))
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        tokio::task::spawn_blocking(sync)
            .await
            .map_err(|error| Error::system("sync")(io::Error::other(error)))?;
        Ok(Response::new(SyncResponse {}))
    }

    async fn freeze(
        &self,
        request: Request<FreezeRequest>,
    ) -> Result<Response<FreezeResponse>, Status> {
        self.freezer.freeze(Duration::from_millis(request.into_inner().hold_ms)).await?;
        Ok(Response::new(FreezeResponse {}))
    }

    async fn thaw(&self, request: Request<ThawRequest>) -> Result<Response<ThawResponse>, Status> {
        let set = match request.into_inner().unix_nanos {
            0 => Ok(()),
            nanos => clock::set(Duration::from_nanos(nanos)),
        };
        let was_frozen = self.freezer.thaw()?;
        set.map_err(|errno| Error::system("setting the clock")(errno.into()))?;
        Ok(Response::new(ThawResponse { was_frozen }))
    }

    async fn shutdown(
        &self,
        request: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        self.power.shut_down(Duration::from_millis(request.into_inner().grace_ms)).await;
        Ok(Response::new(ShutdownResponse {}))
    }
}
