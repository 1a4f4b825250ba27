//! The configuration of the api process. Every key and its default stand in `default.toml`.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use ovenbird_kit::{Secret, config::Error, telemetry, tls};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Unexpected},
};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("../default.toml");
/// What variables in the environment begin with.
pub const ENVIRONMENT: &str = "OVENBIRD_API";

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Where metrics are served, if anywhere.
    #[serde(deserialize_with = "ovenbird_kit::config::address_or_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// Postgres.
    pub database_url: Secret<String>,
    /// The authority of Postgres' certificate; TLS is demanded then.
    #[serde(default)]
    pub database_ca: Option<PathBuf>,
    /// The authority of Redis' certificate.
    #[serde(default)]
    pub redis_ca: Option<PathBuf>,
    /// The authority of NATS' certificate; TLS is demanded then.
    #[serde(default)]
    pub nats_ca: Option<PathBuf>,
    /// Most connections to Postgres.
    pub database_connections: u32,
    /// Redis.
    pub redis_url: Secret<String>,
    /// NATS.
    pub nats_url: Secret<String>,
    /// The file of the seed with which NATS is told who this is; needed where NATS asks.
    #[serde(default)]
    pub nats_nkey: Option<PathBuf>,
    /// What subjects and keys start with.
    pub prefix: String,
    /// Bounds of requests.
    pub http: Http,
    /// How often callers may ask.
    pub rate: Rate,
    /// Bounds of log reading.
    pub logs: Logs,
    /// Customers on NATS.
    pub nats_access: NatsAccess,
    /// Bounds of contexts.
    pub contexts: Contexts,
    /// Bounds of sandboxes.
    pub sandboxes: Sandboxes,
    /// How host agents are called.
    #[serde(default)]
    pub agents: Agents,
    /// How host agents register.
    pub registration: Registration,
    /// Bounds of a build while no host is known.
    pub bounds: Bounds,
    /// Log lines and spans.
    pub telemetry: telemetry::Config,
}

/// Bounds of contexts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Largest archive.
    pub bytes_max: u64,
    /// Archives that are uploaded at once.
    pub uploads_max: usize,
    /// Those of one key.
    pub uploads_of_one_key_max: usize,
    /// Bytes of all archives that one key uploaded and that are there still.
    pub bytes_of_one_key_max: u64,
    /// An upload that sends nothing for this long is ended.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// What an upload may take until all of it was read and checked.
    #[serde(with = "humantime_serde")]
    pub upload_timeout: Duration,
    /// Where an archive lies while it is checked; the system's folder for such things when absent.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

/// Bounds of sandboxes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandboxes {
    /// What is told of each output of a command that is waited for.
    pub exec_output_bytes: usize,
    /// Events that wait for one client of a command.
    pub queue_events: usize,
    /// Commands that are followed at once.
    pub streams_max: usize,
    /// Those of one key.
    pub streams_of_one_key_max: usize,
}

/// How host agents are called.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// Without it no sandbox can be made or used.
    #[serde(default)]
    pub tls: Option<tls::Files>,
}

/// How host agents register.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// How long a certificate lasts.
    #[serde(with = "humantime_serde")]
    pub certificate_lifetime: Duration,
    /// How long a token can be used.
    #[serde(with = "humantime_serde")]
    pub token_lifetime: Duration,
    /// Signs certificates; absent, no host can register.
    #[serde(default)]
    pub authority: Option<Authority>,
}

/// PEM files of an authority.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Bounds of requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Largest JSON body.
    pub body_max_bytes: usize,
    /// A body must have arrived after this long.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// The first request's head must have arrived after this long.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// A connection that moves no byte for this long is closed.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Requests in flight may go on for this long at the end.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    /// What a service that is asked for readiness gets.
    #[serde(with = "humantime_serde")]
    pub ready_timeout: Duration,
    /// Proxies before the api, each of which adds to `X-Forwarded-For`.
    pub proxies: usize,
    /// Browsers that are signed in.
    pub session: Session,
}

/// How often callers may ask.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests of one key in a second, for long.
    pub key_per_second: NonZeroU32,
    /// Requests of one key at once.
    pub key_burst: NonZeroU32,
    /// Requests of one key with an `Idempotency-Key` in a second, for long.
    pub repeats_per_second: NonZeroU32,
    /// Requests of one key with an `Idempotency-Key` at once.
    pub repeats_burst: NonZeroU32,
    /// KiB of answers to them that are kept in a second, for long.
    pub kept_kib_per_second: NonZeroU32,
    /// KiB of answers to them that are kept at once.
    pub kept_kib_burst: NonZeroU32,
    /// Requests of one address without a valid key in a second, for long.
    pub address_per_second: NonZeroU32,
    /// Requests of one address without a valid key at once.
    pub address_burst: NonZeroU32,
    /// What one question to Redis may take; a request asks up to three. Without an answer it goes on, and none is
    /// limited for a second.
    #[serde(deserialize_with = "positive")]
    pub redis_deadline: Duration,
}

/// At zero nothing would be limited.
fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration: Duration = humantime_serde::deserialize(deserializer)?;
    if duration.is_zero() {
        let zero = Unexpected::Other("zero");
        return Err(D::Error::invalid_value(zero, &"a time longer than zero, such as 250ms"));
    }
    Ok(duration)
}

/// Browsers that are signed in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// A session ends by itself after this long.
    #[serde(with = "humantime_serde")]
    pub lifetime: Duration,
    /// The cookie is for https only.
    pub secure: bool,
}

/// Bounds of log reading.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// A silent stream sends a comment this often.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Records that wait for one client.
    pub queue_records: usize,
    /// A client whose queue is full for this long is cut off.
    #[serde(with = "humantime_serde")]
    pub slow_client_timeout: Duration,
    /// A silent build's log is compared with the stream this often.
    #[serde(with = "humantime_serde")]
    pub probe_every: Duration,
    /// Logs that are followed at once.
    pub streams_max: usize,
    /// Those of one key.
    pub streams_of_one_key_max: usize,
}

/// Customers on NATS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsAccess {
    /// Connections of one key.
    pub connections_max: usize,
    /// Builds that a key of scope `build` may hear on one connection.
    pub builds_max: u64,
    /// A connection is closed after this long; its client connects again.
    #[serde(with = "humantime_serde")]
    pub session: Duration,
    /// How often it is looked for connections of keys that ended.
    #[serde(with = "humantime_serde")]
    pub sweep: Duration,
    /// Clients that are asked about at the same time.
    pub questions_max: usize,
    /// With whose nkeys; absent, nobody is let in by this process.
    #[serde(default)]
    pub nkeys: Option<Nkeys>,
}

/// Files of seeds, as `ovenbird-api nats-access` writes them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nkeys {
    /// Signs who comes in.
    pub issuer: PathBuf,
    /// Is asked who comes in.
    pub callout: PathBuf,
    /// Closes connections.
    pub revoker: PathBuf,
}

/// What a build may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Most virtual CPUs.
    pub vcpus_max: u32,
    /// Least memory, in MiB.
    pub memory_mb_min: u32,
    /// Most memory, in MiB.
    pub memory_mb_max: u32,
    /// Smallest root disk, in MiB.
    pub disk_mb_min: u32,
    /// Largest root disk, in MiB.
    pub disk_mb_max: u32,
}

impl Config {
    /// Reads defaults, `file` and the environment.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        ovenbird_kit::config::load(DEFAULTS, file, ENVIRONMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_whole_configuration() {
        let config: Config =
            ovenbird_kit::config::load(DEFAULTS, None, "OVENBIRD_NO_SUCH").unwrap();
        assert_eq!(config.logs.heartbeat, Duration::from_secs(15));
        assert!(config.agents.tls.is_none() && DEFAULTS.contains("# [agents.tls]"));
        let authority = config.registration.authority;
        assert!(authority.is_none() && DEFAULTS.contains("# [registration.authority]"));
        for authority in ["database_ca", "redis_ca", "nats_ca", "otlp_ca"] {
            assert!(DEFAULTS.contains(&format!("# {authority} = ")), "{authority}");
        }
    }

    #[test]
    fn limiter_that_would_wait_for_nothing_is_refused() {
        let unlimited = DEFAULTS.replace("redis_deadline = \"250ms\"", "redis_deadline = \"0s\"");
        let refused =
            ovenbird_kit::config::load::<Config>(&unlimited, None, "OVENBIRD_NO_SUCH").unwrap_err();
        let why = "key `rate.redis_deadline` in TOML source string must be a time longer than zero";
        assert!(refused.to_string().contains(why), "{refused}");
    }
}
