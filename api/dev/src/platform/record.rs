//! `.ovenbird/up.json`: where everything of a running platform is, for scripts.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use fs_err as fs;
use ovenbird_contract::nats_access::Role;
use serde::{Deserialize, Serialize};

use crate::cache::write_whole;

/// Where everything is. Holds secrets: the file is its owner's alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Base URL of the REST API.
    pub api: String,
    /// A key for it, of scope `admin`.
    pub admin_key: String,
    /// NATS: an API key as token opens the logs and events that the key reads.
    pub nats: String,
    /// The same for browsers.
    pub nats_websocket: String,
    /// The seed with which tools may do everything with builds there.
    pub nats_seed: std::path::PathBuf,
    /// Redis.
    pub redis: String,
    /// Postgres, with the password.
    pub database: String,
    /// The host agents.
    pub agents: Vec<Agent>,
    /// Process ids by kind: api, bridge, runner, agent, nats, redis, postgres.
    pub pids: BTreeMap<String, Vec<u32>>,
    /// The folder of the log files.
    pub logs: std::path::PathBuf,
}

/// A host agent, and what a client needs to call it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agent {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// The authority of its certificate, and of the client's.
    pub ca: std::path::PathBuf,
    /// A client's certificate.
    pub cert: std::path::PathBuf,
    /// Its key.
    pub key: std::path::PathBuf,
}

impl Record {
    /// Writes it, whole, readable by the owner only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_whole(path, &serde_json::to_vec_pretty(self)?)
    }

    /// A client of NATS that may do everything with builds.
    ///
    /// # Errors
    /// When NATS does not take it.
    pub async fn nats_client(&self) -> anyhow::Result<async_nats::Client> {
        let seed = fs::read_to_string(&self.nats_seed)?.trim().to_owned();
        async_nats::ConnectOptions::with_nkey(seed)
            .custom_inbox_prefix(Role::Tools.inbox_prefix())
            .connect(&self.nats)
            .await
            .with_context(|| format!("connect to {}", self.nats))
    }
}
