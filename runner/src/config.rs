//! The runner's settings; `default.toml` documents each one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ovenbird_agent_client as agent;
use ovenbird_kit::{Secret, config, telemetry, tls};
use serde::Deserialize;

const DEFAULTS: &str = include_str!("default.toml");

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where NATS listens; may hold a password.
    pub nats_url: Secret<String>,
    /// The file of the seed with which NATS is told who this is; needed where NATS asks.
    #[serde(default)]
    pub nats_nkey: Option<PathBuf>,
    /// The authority of NATS' certificate; TLS is demanded then.
    #[serde(default)]
    pub nats_ca: Option<PathBuf>,
    /// First word of all subjects.
    pub prefix: String,
    /// Builds at once; at least 1.
    pub slots: usize,
    /// The lanes that jobs are taken from, the one that goes before the others first.
    pub lanes: Vec<String>,
    /// How long running builds may go on after SIGTERM.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// The process ends at the latest this long after SIGTERM.
    #[serde(with = "humantime_serde")]
    pub exit_within: Duration,
    /// How often a microVM is made for one build.
    pub boots_max: u32,
    /// A host that cannot be reached for this long is lost.
    #[serde(with = "humantime_serde")]
    pub host_away_max: Duration,
    /// Where a context lies while its build copies from it; the system's folder for such things when absent.
    #[serde(default)]
    pub contexts_dir: Option<PathBuf>,
    /// Where metrics and health are served, if anywhere.
    #[serde(deserialize_with = "config::address_or_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// TLS towards the host agents.
    pub tls: tls::Files,
    /// The pod that this runner is, in Kubernetes.
    #[serde(default)]
    pub pod: Option<Pod>,
    /// Calls of host agents.
    pub agent: agent::Config,
    /// Log lines and spans.
    pub telemetry: telemetry::Config,
}

/// How a runner tells Kubernetes how busy it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Base URL of the API server; https.
    #[serde(default = "pod_api")]
    pub api: String,
    /// The file of the service account's token, read anew for each request.
    #[serde(default = "pod_token")]
    pub token: PathBuf,
    /// The file of the API server's authority.
    #[serde(default = "pod_ca")]
    pub ca: PathBuf,
    /// Between two requests at least.
    #[serde(default = "pod_every", with = "humantime_serde")]
    pub every: Duration,
}

fn pod_api() -> String {
    "https://kubernetes.default.svc".into()
}

fn pod_token() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/token".into()
}

fn pod_ca() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".into()
}

fn pod_every() -> Duration {
    Duration::from_secs(5)
}

impl Config {
    /// Reads the defaults, `file` and the environment.
    ///
    /// # Errors
    /// Names the key that is missing, unknown or wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, config::Error> {
        config::load(DEFAULTS, file, "OVENBIRD_RUNNER")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: &str = "nats_url = 'nats://h'\n[tls]\nca = 'a'\ncert = 'b'\nkey = 'c'\n";

    #[test]
    fn documented_defaults_are_the_defaults_in_code() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), REQUIRED).unwrap();
        let config = Config::load(Some(file.path())).unwrap();
        assert_eq!(format!("{:?}", config.agent), format!("{:?}", agent::Config::default()));
        assert_eq!((config.slots, config.lanes), (2, ["high", "default"].map(String::from).into()));
    }

    #[test]
    fn documented_defaults_of_the_pod_are_the_defaults_in_code() {
        let section = DEFAULTS.split_once("# [pod]\n").unwrap().1;
        let keys = section.lines().map_while(|line| line.strip_prefix("# "));
        let keys: Vec<&str> = keys.filter(|line| line.contains(" = ")).collect();
        let documented: Pod = toml(&keys.join("\n"));
        let shortest: Pod = toml(&keys[..2].join("\n"));
        assert_eq!(keys.len(), 6);
        assert_eq!(format!("{documented:?}"), format!("{shortest:?}"));
    }

    fn toml<T: serde::de::DeserializeOwned>(text: &str) -> T {
        ovenbird_kit::config::load(text, None, "OVENBIRD_NO_SUCH").unwrap()
    }
}
