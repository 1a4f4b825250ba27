//! The runner's settings; `default.toml` documents each one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ovenbird_agent_client as agent;
use ovenbird_kit::{Secret, config, tls};
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
    /// First word of all subjects.
    pub prefix: String,
    /// Builds at once; at least 1.
    pub slots: usize,
    /// The lane that jobs are taken from.
    pub lane: String,
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
    /// TLS towards the host agents.
    pub tls: tls::Files,
    /// Calls of host agents.
    pub agent: agent::Config,
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
        assert_eq!((config.slots, config.lane.as_str()), (2, "default"));
    }
}
