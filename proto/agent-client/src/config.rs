//! How long calls may take, how large messages may be, and how soon a dead host is noticed.

use std::time::Duration;

use serde::Deserialize;

/// Settings of the client; every one has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A connection attempt is given up after this long.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How often a connection is probed, used or idle.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// A probe that is not answered for this long ends the connection and all its calls.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// Largest message in either direction, in bytes.
    pub message_bytes_max: usize,
    /// How often a repeatable call is tried when the host cannot be reached.
    pub attempts: u32,
    /// Pause before the second try; doubles with each further one.
    #[serde(with = "humantime_serde")]
    pub retry_delay: Duration,
    /// Deadlines by kind of call.
    pub deadlines: Deadlines,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(10),
            message_bytes_max: 32 * 1024 * 1024,
            attempts: 3,
            retry_delay: Duration::from_millis(200),
            deadlines: Deadlines::default(),
        }
    }
}

/// Deadlines by kind of call. They bound what may hang, not what is merely slow.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// CreateSandbox: boots a microVM, and boots it again when its timers failed.
    #[serde(with = "humantime_serde")]
    pub create: Duration,
    /// DestroySandbox.
    #[serde(with = "humantime_serde")]
    pub destroy: Duration,
    /// PauseSandbox and ResumeSandbox: write or read the memory.
    #[serde(with = "humantime_serde")]
    pub pause: Duration,
    /// CreateSnapshot: writes memory and disk.
    #[serde(with = "humantime_serde")]
    pub snapshot: Duration,
    /// FlattenRootfs: writes the whole root disk.
    #[serde(with = "humantime_serde")]
    pub flatten: Duration,
    /// WriteFile and ReadFile, and the calls on directories.
    #[serde(with = "humantime_serde")]
    pub file: Duration,
    /// Calls that only ask or tell: lists, GetHost, StartExec, AckExec, SignalExec, DeleteSnapshot, PingSandbox,
    /// metrics, and the first answer of AttachExec and ExecStream.
    #[serde(with = "humantime_serde")]
    pub short: Duration,
    /// What Exec gets on top of the command's own time.
    #[serde(with = "humantime_serde")]
    pub exec_grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            create: Duration::from_secs(180),
            destroy: Duration::from_secs(60),
            pause: Duration::from_secs(180),
            snapshot: Duration::from_secs(15 * 60),
            flatten: Duration::from_secs(15 * 60),
            file: Duration::from_secs(60),
            short: Duration::from_secs(15),
            exec_grace: Duration::from_secs(10),
        }
    }
}
