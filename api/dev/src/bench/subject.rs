//! The agent, as its callers see it: every call over mTLS, as a runner makes it.

use std::time::Duration;

use fs_err as fs;
use ovenbird_hostagent::v1::{self as host, host_agent_service_client::HostAgentServiceClient};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::platform::record::Agent;

/// Of every sandbox.
pub(super) const MEMORY_MB: i32 = 256;
const CALL: Duration = Duration::from_secs(180);
/// What one message of an uploaded file holds.
const CHUNK: usize = 1024 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    client: HostAgentServiceClient<Channel>,
}

/// The outcome of a call that this agent may not know yet.
fn served<T>(outcome: Result<T, Status>) -> anyhow::Result<Option<T>> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status.into()),
    }
}

impl Subject {
    pub(super) async fn connect(agent: &Agent) -> anyhow::Result<Self> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(&agent.ca)?))
            .identity(Identity::from_pem(fs::read(&agent.cert)?, fs::read(&agent.key)?))
            .domain_name(&agent.server_name);
        let channel = Endpoint::from_shared(format!("https://{}", agent.address))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL)
            .tls_config(tls)?
            .connect()
            .await?;
        Ok(Self { client: HostAgentServiceClient::new(channel) })
    }

    fn client(&self) -> HostAgentServiceClient<Channel> {
        self.client.clone()
    }

    /// What it says of itself.
    pub(super) async fn host(&self) -> anyhow::Result<host::GetHostResponse> {
        Ok(self.client().get_host(host::GetHostRequest {}).await?.into_inner())
    }

    /// Makes a sandbox; the answer comes when its guest has answered.
    pub(super) async fn create(&self, template: &str, id: &str) -> anyhow::Result<()> {
        let request = host::CreateSandboxRequest {
            template: template.to_owned(),
            vcpus: 1,
            memory_mb: MEMORY_MB,
            sandbox_id: id.to_owned(),
            ..Default::default()
        };
        self.client().create_sandbox(request).await?;
        Ok(())
    }

    pub(super) async fn destroy(&self, id: &str) -> anyhow::Result<()> {
        let request = host::DestroySandboxRequest { sandbox_id: id.to_owned(), fence: None };
        self.client().destroy_sandbox(request).await?;
        Ok(())
    }

    /// Runs a program to its end.
    pub(super) async fn exec(&self, id: &str, cmd: &str, args: &[&str]) -> anyhow::Result<()> {
        let request = host::ExecRequest {
            sandbox_id: id.to_owned(),
            cmd: cmd.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Default::default()
        };
        let answer = self.client().exec(request).await?.into_inner();
        anyhow::ensure!(answer.exit_code == 0, "{cmd} ended with {}", answer.exit_code);
        Ok(())
    }

    /// Its memory goes to the disk.
    pub(super) async fn pause(&self, id: &str) -> anyhow::Result<Option<()>> {
        let request = host::PauseSandboxRequest { sandbox_id: id.to_owned() };
        Ok(served(self.client().pause_sandbox(request).await)?.map(drop))
    }

    pub(super) async fn resume(&self, id: &str) -> anyhow::Result<Option<()>> {
        let request = host::ResumeSandboxRequest { sandbox_id: id.to_owned(), timeout_sec: 0 };
        Ok(served(self.client().resume_sandbox(request).await)?.map(drop))
    }

    /// Makes a template of it; the sandbox is gone.
    pub(super) async fn snapshot(&self, id: &str, name: &str) -> anyhow::Result<()> {
        let request = host::CreateSnapshotRequest {
            sandbox_id: id.to_owned(),
            name: name.to_owned(),
            fence: None,
        };
        self.client().create_snapshot(request).await?;
        Ok(())
    }

    /// Removes a template, where that is served.
    pub(super) async fn delete_snapshot(&self, name: &str) -> anyhow::Result<Option<()>> {
        let request = host::DeleteSnapshotRequest { name: name.to_owned(), fence: None };
        Ok(served(self.client().delete_snapshot(request).await)?.map(drop))
    }

    /// Makes an image of its disk; the sandbox is gone.
    pub(super) async fn flatten(&self, id: &str, name: &str) -> anyhow::Result<()> {
        let request = host::FlattenRootfsRequest {
            sandbox_id: id.to_owned(),
            name: name.to_owned(),
            fence: None,
        };
        self.client().flatten_rootfs(request).await?;
        Ok(())
    }

    /// Writes a file of `bytes`.
    pub(super) async fn write(
        &self,
        id: &str,
        path: &str,
        bytes: usize,
    ) -> anyhow::Result<Option<()>> {
        use host::write_file_stream_request::Content;
        let meta = host::WriteFileStreamMeta {
            sandbox_id: id.to_owned(),
            path: path.to_owned(),
            fence: None,
            unpack: None,
        };
        let chunk = bytes::Bytes::from(super::noise(CHUNK));
        let chunks =
            super::chunks(bytes, CHUNK).map(move |length| Content::Chunk(chunk.slice(..length)));
        let messages = std::iter::once(Content::Meta(meta))
            .chain(chunks)
            .map(|content| host::WriteFileStreamRequest { content: Some(content) });
        let answer = self.client().write_file_stream(tokio_stream::iter(messages)).await;
        Ok(served(answer)?.map(drop))
    }

    /// Reads a file of `bytes`.
    pub(super) async fn read(
        &self,
        id: &str,
        path: &str,
        bytes: usize,
    ) -> anyhow::Result<Option<()>> {
        let request = host::ReadFileStreamRequest {
            sandbox_id: id.to_owned(),
            path: path.to_owned(),
            ..Default::default()
        };
        let Some(answer) = served(self.client().read_file_stream(request).await)? else {
            return Ok(None);
        };
        let (mut messages, mut read) = (answer.into_inner(), 0);
        while let Some(message) = messages.message().await? {
            read += message.chunk.len();
        }
        anyhow::ensure!(read == bytes, "{path} was read in part: {read} bytes");
        Ok(Some(()))
    }

    /// Destroys every sandbox and ends the agent.
    pub(super) async fn terminate(&self) -> anyhow::Result<()> {
        self.client().terminate(host::TerminateRequest {}).await?;
        Ok(())
    }
}
