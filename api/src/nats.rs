//! The NATS that is connected to, by several connections of different roles.

use std::path::PathBuf;

use async_nats::{Client, ConnectError, ConnectOptions};
use ovenbird_kit::{Secret, config::list, telemetry, tls};

use crate::config::Config;

/// Where NATS is, and whose certificate it must have.
#[derive(Debug, Clone)]
pub struct Server {
    url: Secret<String>,
    authority: Option<PathBuf>,
}

impl Server {
    /// As configured.
    ///
    /// # Errors
    /// When the authority's file is not usable.
    pub fn new(config: &Config) -> Result<Self, tls::Error> {
        if let Some(file) = &config.nats_ca {
            tls::authority("nats_ca", file)?;
        }
        Ok(Self { url: config.nats_url.clone(), authority: config.nats_ca.clone() })
    }

    /// Connects, now or as soon as the server is there; with an authority over TLS alone.
    ///
    /// # Errors
    /// When the URL cannot be read, or as `options` say.
    pub async fn connect(&self, options: ConnectOptions) -> Result<Client, ConnectError> {
        let (servers, mut options) = (list(self.url.expose()), options);
        if let Some(file) = &self.authority {
            options = options.add_root_certificates(file.clone()).require_tls(true);
            // Only the first try says what is wrong with a certificate; those in the background do not.
            match options.clone().connect(&servers[..]).await {
                Ok(client) => return Ok(client),
                Err(error) => {
                    tracing::warn!(error = telemetry::chain(&error), "NATS is not connected yet");
                }
            }
        }
        options.retry_on_initial_connect().connect(&servers[..]).await
    }
}
