//! The calls, one method each; those that stream files stand with what they stream.

use std::{future::Future, sync::Arc, time::Duration};

use ovenbird_hostagent::v1::{self, host_agent_service_client::HostAgentServiceClient};
use ovenbird_kit::telemetry::trace;
use tonic::{Request, Response, Status, metadata::MetadataValue, transport::Channel};

use crate::{
    config::Config,
    error::Error,
    exec::ExecEvents,
    types::{
        Command, ExecOutput, HostInfo, NewSandbox, Sandbox, SandboxInfo, Started, signed,
        unsigned_long,
    },
};

pub(crate) type Client = HostAgentServiceClient<Channel>;

/// The agent is told a little more than the caller waits, so that the caller's deadline decides and the
/// agent gives up soon after a caller that vanished.
const AGENT_DEADLINE_GRACE: Duration = Duration::from_secs(5);

/// One host's agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) client: Client,
    pub(crate) config: Arc<Config>,
    pub(crate) fence: Option<v1::Fence>,
    trace: Option<String>,
}

impl Agent {
    pub(crate) fn new(client: Client, config: Arc<Config>) -> Self {
        Self { client, config, fence: None, trace: None }
    }

    /// The same agent, called for one attempt of a build: when a higher attempt has called, every call
    /// that changes something is refused with [`Error::StaleFence`].
    #[must_use]
    pub fn fenced(mut self, build_id: impl Into<String>, attempt: u32) -> Self {
        self.fence = Some(v1::Fence { build_id: build_id.into(), attempt });
        self
    }

    /// The same agent, called within a trace (a W3C `traceparent`; empty means none) where the caller's own span is in
    /// none.
    #[must_use]
    pub fn traced(mut self, traceparent: &str) -> Self {
        self.trace = Some(traceparent.to_owned()).filter(|text| !text.is_empty());
        self
    }

    /// Makes a sandbox and waits until its guest is ready. Not repeated.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the guest did not become ready (nothing is left of it);
    /// [`Error::NotFound`] for an unknown template; [`Error::NoRoom`]; [`Error::AlreadyExists`].
    pub async fn create_sandbox(&self, new: &NewSandbox) -> Result<Sandbox, Error> {
        let message = v1::CreateSandboxRequest {
            template: new.template.clone(),
            vcpus: signed(new.vcpus),
            memory_mb: signed(new.memory_mb),
            timeout_sec: signed(new.idle_timeout_sec.unwrap_or(0)),
            sandbox_id: new.sandbox_id.clone(),
            fence: self.fence.clone(),
            disk_mb: signed(new.disk_mb.unwrap_or(0)),
            // Egress and bandwidth as the host has them.
            ..Default::default()
        };
        let deadline = self.config.deadlines.create;
        let made = self
            .once(deadline, message, |mut client, request| async move {
                client.create_sandbox(request).await
            })
            .await?;
        Ok(Sandbox { sandbox_id: made.sandbox_id, status: made.status, host_ip: made.host_ip })
    }

    /// Destroys a sandbox. Repeated when the host cannot be reached; one that is already gone is fine.
    ///
    /// # Errors
    /// As every call, but never [`Error::NotFound`].
    pub async fn destroy_sandbox(&self, sandbox_id: &str) -> Result<(), Error> {
        let message = v1::DestroySandboxRequest {
            sandbox_id: sandbox_id.to_owned(),
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.destroy;
        let destroyed = self
            .repeated(deadline, message, |mut client, request| async move {
                client.destroy_sandbox(request).await
            })
            .await;
        match destroyed {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lists the host's sandboxes. Repeated when the host cannot be reached. The ids that were paused by themselves
    /// are left for whoever reads them: who looks at the states needs none.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_sandboxes(&self) -> Result<Vec<SandboxInfo>, Error> {
        let deadline = self.config.deadlines.short;
        let message = v1::ListSandboxesRequest { keep_auto_paused: true };
        let list = self
            .repeated(deadline, message, |mut client, request| async move {
                client.list_sandboxes(request).await
            })
            .await?;
        Ok(list.sandboxes.into_iter().map(SandboxInfo::from).collect())
    }

    /// Runs a short command to its end. Not repeated.
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] when it ran longer than `timeout` (rounded up to seconds); it is killed.
    pub async fn exec(
        &self,
        sandbox_id: &str,
        command: &Command,
        timeout: Duration,
    ) -> Result<ExecOutput, Error> {
        let seconds = timeout.as_millis().div_ceil(1000).max(1);
        let message = v1::ExecRequest {
            sandbox_id: sandbox_id.to_owned(),
            cmd: command.cmd.clone(),
            args: command.args.clone(),
            timeout_sec: i32::try_from(seconds).unwrap_or(i32::MAX),
            fence: self.fence.clone(),
            context: Some(command.context()),
        };
        let deadline = timeout.saturating_add(self.config.deadlines.exec_grace);
        let output =
            self.once(deadline, message, |mut client, request| async move {
                client.exec(request).await
            })
            .await?;
        Ok(ExecOutput { stdout: output.stdout, stderr: output.stderr, exit_code: output.exit_code })
    }

    /// Starts a detached command. Repeated when the host cannot be reached: the exec id makes it harmless.
    ///
    /// # Errors
    /// As every call.
    pub async fn start_exec(
        &self,
        sandbox_id: &str,
        exec_id: &str,
        command: &Command,
        timeout: Option<Duration>,
    ) -> Result<Started, Error> {
        let message = v1::StartExecRequest {
            sandbox_id: sandbox_id.to_owned(),
            exec_id: exec_id.to_owned(),
            cmd: command.cmd.clone(),
            args: command.args.clone(),
            context: Some(command.context()),
            timeout_ms: timeout
                .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.short;
        let started = self
            .repeated(deadline, message, |mut client, request| async move {
                client.start_exec(request).await
            })
            .await?;
        Ok(Started { pid: started.pid, already_started: started.already_started })
    }

    /// Follows a detached command from `from_offset`. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an exec id that was never started.
    pub async fn attach_exec(
        &self,
        sandbox_id: &str,
        exec_id: &str,
        from_offset: u64,
    ) -> Result<ExecEvents, Error> {
        let message = v1::AttachExecRequest {
            sandbox_id: sandbox_id.to_owned(),
            exec_id: exec_id.to_owned(),
            from_offset,
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.short;
        let open = |mut client: Client, mut request: Request<v1::AttachExecRequest>| {
            // The deadline is for the first answer only: the stream may last for as long as the command.
            request.metadata_mut().remove("grpc-timeout");
            async move { client.attach_exec(request).await }
        };
        Ok(ExecEvents::new(self.repeated(deadline, message, open).await?))
    }

    /// Frees a detached command's output up to `offset`. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// As every call.
    pub async fn ack_exec(
        &self,
        sandbox_id: &str,
        exec_id: &str,
        offset: u64,
    ) -> Result<(), Error> {
        let message = v1::AckExecRequest {
            sandbox_id: sandbox_id.to_owned(),
            exec_id: exec_id.to_owned(),
            offset,
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.short;
        self.repeated(deadline, message, |mut client, request| async move {
            client.ack_exec(request).await
        })
        .await
        .map(drop)
    }

    /// Sends `signal` (1 to 31) to a detached command's process group. Repeated when the host cannot be
    /// reached, so it may arrive twice.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an exec id that was never started.
    pub async fn signal_exec(
        &self,
        sandbox_id: &str,
        exec_id: &str,
        signal: i32,
    ) -> Result<(), Error> {
        let message = v1::SignalExecRequest {
            sandbox_id: sandbox_id.to_owned(),
            exec_id: exec_id.to_owned(),
            signal,
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.short;
        self.repeated(deadline, message, |mut client, request| async move {
            client.signal_exec(request).await
        })
        .await
        .map(drop)
    }

    /// Writes a whole file. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that cannot be written.
    pub async fn write_file(
        &self,
        sandbox_id: &str,
        path: &str,
        content: Vec<u8>,
    ) -> Result<(), Error> {
        let message = v1::WriteFileRequest {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            content,
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.file;
        self.repeated(deadline, message, |mut client, request| async move {
            client.write_file(request).await
        })
        .await
        .map(drop)
    }

    /// Reads a whole file, up to the largest message. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a path that does not exist.
    pub async fn read_file(&self, sandbox_id: &str, path: &str) -> Result<Vec<u8>, Error> {
        let message =
            v1::ReadFileRequest { sandbox_id: sandbox_id.to_owned(), path: path.to_owned() };
        let deadline = self.config.deadlines.file;
        let file = self
            .repeated(deadline, message, |mut client, request| async move {
                client.read_file(request).await
            })
            .await?;
        Ok(file.content)
    }

    /// Stores memory and disk as the snapshot template `name` and destroys the sandbox; answers its size in
    /// bytes. Not repeated.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for a name that is taken.
    pub async fn create_snapshot(&self, sandbox_id: &str, name: &str) -> Result<u64, Error> {
        let message = v1::CreateSnapshotRequest {
            sandbox_id: sandbox_id.to_owned(),
            name: name.to_owned(),
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.snapshot;
        let stored = self
            .once(deadline, message, |mut client, request| async move {
                client.create_snapshot(request).await
            })
            .await?;
        Ok(unsigned_long(stored.size_bytes))
    }

    /// Stops the sandbox, stores its root disk as the image template `name` and removes the rest; answers
    /// its size in bytes. Not repeated.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for a name that is taken.
    pub async fn flatten_rootfs(&self, sandbox_id: &str, name: &str) -> Result<u64, Error> {
        let message = v1::FlattenRootfsRequest {
            sandbox_id: sandbox_id.to_owned(),
            name: name.to_owned(),
            fence: self.fence.clone(),
        };
        let deadline = self.config.deadlines.flatten;
        let stored = self
            .once(deadline, message, |mut client, request| async move {
                client.flatten_rootfs(request).await
            })
            .await?;
        Ok(unsigned_long(stored.size_bytes))
    }

    /// Deletes a template from the host. Repeated when the host cannot be reached; one that is already gone
    /// is fine.
    ///
    /// # Errors
    /// As every call, but never [`Error::NotFound`].
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), Error> {
        let message =
            v1::DeleteSnapshotRequest { name: name.to_owned(), fence: self.fence.clone() };
        let deadline = self.config.deadlines.short;
        let deleted = self
            .repeated(deadline, message, |mut client, request| async move {
                client.delete_snapshot(request).await
            })
            .await;
        match deleted {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the host is and has. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// As every call.
    pub async fn get_host(&self) -> Result<HostInfo, Error> {
        let deadline = self.config.deadlines.short;
        let host = self
            .repeated(deadline, v1::GetHostRequest {}, |mut client, request| async move {
                client.get_host(request).await
            })
            .await?;
        Ok(host.into())
    }

    pub(crate) fn trace<Q>(&self, request: &mut Request<Q>) {
        let present = trace::present(self.trace.as_deref().unwrap_or_default());
        if let Some(value) = present.and_then(|text| MetadataValue::try_from(text).ok()) {
            request.metadata_mut().insert(trace::TRACEPARENT, value);
        }
    }

    pub(crate) async fn once<Q, R, F>(
        &self,
        deadline: Duration,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_add(AGENT_DEADLINE_GRACE));
        self.trace(&mut request);
        match tokio::time::timeout(deadline, call(self.client.clone(), request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(status)),
            Err(_) => Err(Error::DeadlineExceeded {
                message: format!("the host agent did not answer for {} s", deadline.as_secs()),
            }),
        }
    }

    pub(crate) async fn repeated<Q, R, F>(
        &self,
        deadline: Duration,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut delay = self.config.retry_delay;
        for _ in 1..self.config.attempts {
            match self.once(deadline, message.clone(), &call).await {
                Err(error) if error.is_unreachable() => {
                    tracing::debug!(
                        error = error.message(),
                        "host agent unreachable, trying again"
                    );
                }
                answer => return answer,
            }
            tokio::time::sleep(delay).await;
            delay = delay.saturating_mul(2);
        }
        self.once(deadline, message, call).await
    }
}
