//! A client of a host agent, for the demo and the end-to-end tests that look at a host itself.

use std::time::{Duration, Instant};

use anyhow::Context;
use fs_err as fs;
use ovenbird_hostagent::v1::{
    CreateSandboxRequest, DestroySandboxRequest, ExecRequest, ExecResponse, GetHostRequest,
    ListSandboxesRequest, SandboxInfo, host_agent_service_client::HostAgentServiceClient,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::platform::record::Agent;

const CALL: Duration = Duration::from_secs(180);

/// A connected host agent.
#[derive(Debug, Clone)]
pub struct Host {
    client: HostAgentServiceClient<Channel>,
}

/// A sandbox that answered its first command, and how long that took from the request on.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its id.
    pub id: String,
    /// The address under which this host reaches it.
    pub host_ip: String,
    /// From the request for it to the end of its first command.
    pub first_exec: Duration,
}

impl Host {
    /// Connects with mTLS.
    ///
    /// # Errors
    /// When a file cannot be read or nobody answers.
    pub async fn connect(agent: &Agent) -> anyhow::Result<Self> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(&agent.ca)?))
            .identity(Identity::from_pem(fs::read(&agent.cert)?, fs::read(&agent.key)?))
            .domain_name(&agent.server_name);
        let channel = Endpoint::from_shared(format!("https://{}", agent.address))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL)
            .tls_config(tls)?
            .connect()
            .await
            .with_context(|| format!("connect to the agent at {}", agent.address))?;
        Ok(Self { client: HostAgentServiceClient::new(channel) })
    }

    /// Starts a sandbox from `template` and runs `true` in it.
    ///
    /// # Errors
    /// Those of the agent.
    pub async fn start(&self, template: &str, memory_mb: i32) -> anyhow::Result<Started> {
        let started = Instant::now();
        let request = CreateSandboxRequest {
            template: template.into(),
            vcpus: 1,
            memory_mb,
            ..Default::default()
        };
        let made = self.client.clone().create_sandbox(request).await?.into_inner();
        let answer = self.exec(&made.sandbox_id, "true").await;
        let first_exec = started.elapsed();
        match answer {
            Ok(answer) if answer.exit_code == 0 => {
                Ok(Started { id: made.sandbox_id, host_ip: made.host_ip, first_exec })
            }
            other => {
                self.destroy(&made.sandbox_id).await?;
                anyhow::bail!("the first command in a sandbox from {template} failed: {other:?}")
            }
        }
    }

    /// Runs a shell command in a sandbox.
    ///
    /// # Errors
    /// Those of the agent; a command that ends with another code than 0 is none.
    pub async fn exec(&self, sandbox: &str, script: &str) -> anyhow::Result<ExecResponse> {
        self.exec_within(sandbox, script, 0).await
    }

    /// As [`Host::exec`], for at most `seconds`; 0 means the agent's default.
    ///
    /// # Errors
    /// Those of the agent: DEADLINE_EXCEEDED when the time was over.
    pub async fn exec_within(
        &self,
        sandbox: &str,
        script: &str,
        seconds: i32,
    ) -> anyhow::Result<ExecResponse> {
        let request = ExecRequest {
            sandbox_id: sandbox.into(),
            cmd: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            timeout_sec: seconds,
            ..Default::default()
        };
        Ok(self.client.clone().exec(request).await?.into_inner())
    }

    /// Destroys a sandbox.
    ///
    /// # Errors
    /// Those of the agent.
    pub async fn destroy(&self, sandbox: &str) -> anyhow::Result<()> {
        let request = DestroySandboxRequest { sandbox_id: sandbox.into(), ..Default::default() };
        self.client.clone().destroy_sandbox(request).await?;
        Ok(())
    }

    /// The sandboxes on the host.
    ///
    /// # Errors
    /// Those of the agent.
    pub async fn sandboxes(&self) -> anyhow::Result<Vec<SandboxInfo>> {
        let request = ListSandboxesRequest::default();
        Ok(self.client.clone().list_sandboxes(request).await?.into_inner().sandboxes)
    }

    /// The names of the templates on the host.
    ///
    /// # Errors
    /// Those of the agent.
    pub async fn templates(&self) -> anyhow::Result<Vec<String>> {
        let host = self.client.clone().get_host(GetHostRequest {}).await?.into_inner();
        Ok(host.templates.into_iter().map(|template| template.name).collect())
    }
}
