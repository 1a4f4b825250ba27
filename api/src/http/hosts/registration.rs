//! `/v1/hosts`: agents register with a token and renew with their key. Nobody else calls these, and no API key is needed.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_kit::Secret;
use poem::Request;
use poem_openapi::{Object, OpenApi, payload::Json};

use super::super::{Tag, body::Submitted, code::Code, error::Failure};
use crate::app::{App, audit::Deed, registration::Certified};

/// The resource.
#[derive(Debug, Clone)]
pub struct RegistrationRoutes {
    app: Arc<App>,
}

impl RegistrationRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// What an agent registers with. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct HostRegister {
    /// The token of the host's announcement.
    #[oai(validator(pattern = "^ovr_[A-Za-z0-9_-]{43}$"))]
    pub token: String,
    /// A certificate signing request, PEM, for an ECDSA key on P-256. Only its key counts.
    #[oai(validator(min_length = 1, max_length = 8192))]
    pub csr: String,
    /// Where the agent is reached, as `host:port`; an IPv6 address in brackets.
    #[oai(validator(
        max_length = 261,
        pattern = "^([A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]{2,45}\\]):[1-9][0-9]{0,4}$"
    ))]
    pub address: String,
}

/// What an agent renews with. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct HostRenew {
    /// A certificate signing request, PEM, for the key that the agent registered with, and signed by it.
    #[oai(validator(min_length = 1, max_length = 8192))]
    pub csr: String,
}

/// A certificate for an agent.
#[derive(Debug, Object)]
pub struct HostCertificate {
    /// The host.
    pub host_id: String,
    /// The only name in the certificate.
    pub server_name: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// The authority that signed it, and whose clients may call the agent, PEM.
    pub ca: String,
    /// When it was signed.
    pub issued_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

impl From<Certified> for HostCertificate {
    fn from(certified: Certified) -> Self {
        Self {
            host_id: certified.id.to_string(),
            server_name: certified.server_name,
            certificate: certified.certificate,
            ca: certified.ca,
            issued_at: certified.issued_at,
            expires_at: certified.expires_at,
        }
    }
}

#[OpenApi(prefix_path = "/v1/hosts", tag = "Tag::Hosts")]
impl RegistrationRoutes {
    /// Register a host's agent
    ///
    /// Called by the agent, without an API key: the token says who it is. The private key stays with the agent. An agent
    /// that does not get the answer renews.
    #[oai(path = "/register", method = "post", operation_id = "host_register")]
    async fn register(
        &self,
        request: &Request,
        body: Submitted<HostRegister>,
    ) -> Result<Json<HostCertificate>, Failure> {
        let HostRegister { token, csr, address } = body.accepted()?;
        let token = Secret::new(token);
        let certified = self.app.host_register(&token, &csr, &address, deed(request)?).await?;
        Ok(Json(certified.into()))
    }

    /// Renew an agent's certificate
    ///
    /// Called by the agent, without an API key: the signature of the request shows that it has the key that it
    /// registered with. Not for a host that was deleted, nor once the certificate has ended; such an agent registers
    /// again, with another token.
    #[oai(path = "/renew", method = "post", operation_id = "host_renew")]
    async fn renew(
        &self,
        request: &Request,
        body: Submitted<HostRenew>,
    ) -> Result<Json<HostCertificate>, Failure> {
        let HostRenew { csr } = body.accepted()?;
        Ok(Json(self.app.host_renew(&csr, deed(request)?).await?.into()))
    }
}

/// What the guard knows of the request.
fn deed(request: &Request) -> Result<&Deed, Failure> {
    request.data::<Deed>().ok_or_else(|| {
        tracing::error!("a change without a key came past the guard");
        Failure::new(Code::Internal)
    })
}
