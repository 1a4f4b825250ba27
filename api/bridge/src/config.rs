//! The bridge's settings; `default.toml` documents each one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ovenbird_contract::log::LogCaps;
use ovenbird_kit::{Secret, config, telemetry, tls};
use serde::Deserialize;

const DEFAULTS: &str = include_str!("default.toml");

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Postgres listens; holds a password.
    pub database_url: Secret<String>,
    /// Where Redis listens; may hold a password.
    pub redis_url: Secret<String>,
    /// Where NATS listens; may hold a password.
    pub nats_url: Secret<String>,
    /// The file of the seed with which NATS is told who this is; needed where NATS asks.
    #[serde(default)]
    pub nats_nkey: Option<PathBuf>,
    /// The authority of Postgres' certificate; TLS is demanded then.
    #[serde(default)]
    pub database_ca: Option<PathBuf>,
    /// The authority of Redis' certificate.
    #[serde(default)]
    pub redis_ca: Option<PathBuf>,
    /// The authority of NATS' certificate; TLS is demanded then.
    #[serde(default)]
    pub nats_ca: Option<PathBuf>,
    /// Servers of the NATS cluster on which each stream stands.
    pub nats_replicas: usize,
    /// Connections to Postgres at most.
    pub database_connections: u32,
    /// First word of all subjects and part of all Redis keys.
    pub prefix: String,
    /// How long a lease lasts without renewal.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How often a build may be lost.
    pub attempts_max: u32,
    /// Builds of one API key that run at the same time; 0: no limit.
    pub key_builds_max: u32,
    /// How long a build may take.
    #[serde(with = "humantime_serde")]
    pub build_time_max: Duration,
    /// Head of a step's output that goes into the log.
    pub log_step_bytes: u64,
    /// Output of a build that goes into the log.
    pub log_build_bytes: u64,
    /// Requests answered at the same time.
    pub desk_requests: usize,
    /// How long a finish waits for the ledger.
    #[serde(with = "humantime_serde")]
    pub finish_wait: Duration,
    /// Ids relayed at once.
    pub relay_batch: usize,
    /// How often the sweep runs.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// When a queued build's id is pushed again.
    #[serde(with = "humantime_serde")]
    pub push_after: Duration,
    /// When a queued build's job is looked for.
    #[serde(with = "humantime_serde")]
    pub job_settled: Duration,
    /// When a queued build gets another job in any case.
    #[serde(with = "humantime_serde")]
    pub job_fallback: Duration,
    /// How often hosts are searched for what belongs to nobody.
    #[serde(with = "humantime_serde")]
    pub orphans_interval: Duration,
    /// What is younger is left alone.
    #[serde(with = "humantime_serde")]
    pub orphan_grace: Duration,
    /// How long a cancelled build waits for its host.
    #[serde(with = "humantime_serde")]
    pub cancel_patience: Duration,
    /// How long the audit log goes back.
    #[serde(with = "humantime_serde")]
    pub audit_kept: Duration,
    /// How long a context is kept that nobody uses.
    #[serde(with = "humantime_serde")]
    pub contexts_kept: Duration,
    /// Bytes of all contexts.
    pub contexts_bytes: u64,
    /// How often streams and consumers are looked for.
    #[serde(with = "humantime_serde")]
    pub streams_interval: Duration,
    /// How often a host that answers is asked.
    #[serde(with = "humantime_serde")]
    pub hosts_interval: Duration,
    /// Where metrics are served, if anywhere.
    #[serde(deserialize_with = "config::address_or_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// Log lines and spans.
    pub telemetry: telemetry::Config,
    /// The hosts.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// TLS towards the host agents; needed when there are hosts.
    #[serde(default)]
    pub tls: Option<tls::Files>,
}

/// One host agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
}

impl Config {
    /// Reads the defaults, `file` and the environment.
    ///
    /// # Errors
    /// Names the key that is missing, unknown or wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, config::Error> {
        config::load(DEFAULTS, file, "OVENBIRD_BRIDGE")
    }

    /// How much of a build's output goes into its log.
    pub fn log_caps(&self) -> LogCaps {
        LogCaps { step_bytes: self.log_step_bytes, build_bytes: self.log_build_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_the_documented_defaults() {
        let file = std::env::temp_dir().join(format!("{}.toml", uuid::Uuid::now_v7()));
        let shown: Vec<&str> = DEFAULTS
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .filter(|line| line.starts_with('[') || line.contains(" = "))
            .collect();
        std::fs::write(&file, shown.join("\n")).unwrap();
        let config = Config::load(Some(&file));
        std::fs::remove_file(&file).unwrap();
        let config = config.unwrap();
        assert_eq!((config.hosts.len(), config.tls.is_some()), (1, true));
        assert!(config.nats_nkey.is_some());
        assert!(
            config.database_ca.is_some() && config.redis_ca.is_some() && config.nats_ca.is_some()
        );
        assert!(config.telemetry.otlp_ca.is_some());
        use ovenbird_contract::limits;
        assert_eq!(config.attempts_max, limits::ATTEMPTS_MAX);
        assert_eq!(config.build_time_max, Duration::from_secs(limits::BUILD_SECONDS_MAX));
        assert_eq!(config.log_caps(), LogCaps::default());
        // A key of the struct that the file leaves out would have made the load fail, but for these two.
        assert!(DEFAULTS.contains("# [[hosts]]") && DEFAULTS.contains("# [tls]"));
    }
}
