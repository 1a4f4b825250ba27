//! One lazily connected channel per host, shared by all calls of the process.
//!
//! A channel connects by itself again after a break; a host that changes its address or its certificate's
//! name gets another one. The number of channels is bounded: the one unused for longest goes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use ovenbird_hostagent::v1::host_agent_service_client::HostAgentServiceClient;
use ovenbird_kit::tls;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{agent::Agent, config::Config, error::Error};

/// Channels kept; one is a socket and a task.
const CHANNELS_MAX: usize = 1_024;
/// HTTP/2 windows: output of several commands flows at once, and one that nobody reads must not stop the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// A host agent's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The name that its certificate must bear.
    pub server_name: String,
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").finish_non_exhaustive()
    }
}

struct Shared {
    config: Arc<Config>,
    authority: Certificate,
    identity: Identity,
    channels: Mutex<HashMap<Target, Pooled>>,
}

struct Pooled {
    channel: Channel,
    used_at: Instant,
}

impl Agents {
    /// Reads the TLS files; connects nowhere yet.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn new(files: &tls::Files, config: Config) -> Result<Self, tls::Error> {
        let pem = files.read()?;
        let identity = Identity::from_pem(pem.cert, pem.key.expose());
        let authority = Certificate::from_pem(pem.ca);
        let shared =
            Shared { config: Arc::new(config), authority, identity, channels: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The agent at `target`. Connects at the first call.
    ///
    /// # Errors
    /// [`Error::BadTarget`]; being away is an error of the calls.
    pub fn at(&self, target: &Target) -> Result<Agent, Error> {
        let channel = self.channel(target)?;
        let limit = self.shared.config.message_bytes_max;
        let client = HostAgentServiceClient::new(channel)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        Ok(Agent::new(client, Arc::clone(&self.shared.config)))
    }

    fn channel(&self, target: &Target) -> Result<Channel, Error> {
        let mut channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pooled) = channels.get_mut(target) {
            pooled.used_at = Instant::now();
            return Ok(pooled.channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            let oldest = channels
                .iter()
                .min_by_key(|(_, pooled)| pooled.used_at)
                .map(|(key, _)| key.clone());
            oldest.and_then(|key| channels.remove(&key));
        }
        let channel = self.shared.connect(target)?;
        let pooled = Pooled { channel: channel.clone(), used_at: Instant::now() };
        channels.insert(target.clone(), pooled);
        Ok(channel)
    }
}

impl Shared {
    fn connect(&self, target: &Target) -> Result<Channel, Error> {
        let bad = |source| Error::BadTarget { address: target.address.clone(), source };
        let tls = ClientTlsConfig::new()
            .ca_certificate(self.authority.clone())
            .identity(self.identity.clone())
            .domain_name(&target.server_name);
        let endpoint = Endpoint::from_shared(format!("https://{}", target.address))
            .map_err(bad)?
            .tls_config(tls)
            .map_err(bad)?
            .connect_timeout(self.config.connect_timeout)
            .http2_keep_alive_interval(self.config.keepalive_interval)
            .keep_alive_timeout(self.config.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        Ok(endpoint.connect_lazy())
    }
}
