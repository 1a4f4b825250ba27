//! What a platform consists of.

use std::time::Duration;

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A word in the folder's name.
    pub kind: &'static str,
    /// Runners.
    pub runners: usize,
    /// Builds at once in each runner.
    pub slots: usize,
    /// Host agents.
    pub agents: usize,
    /// Flush everything to disk; else a crash of the machine may cost data.
    pub durable: bool,
    /// The bridge's `lease`; absent means its default.
    pub lease: Option<Duration>,
    /// The bridge's `attempts_max`; absent means its default.
    pub attempts_max: Option<u32>,
    /// The bridge's `build_time_max`; absent means its default.
    pub build_time_max: Option<Duration>,
    /// The bridge's `log_step_bytes`; absent means its default.
    pub log_step_bytes: Option<u64>,
    /// The runners' `host_away_max`; absent means its default.
    pub host_away: Option<Duration>,
    /// Each agent in a network namespace of its own.
    pub apart: bool,
    /// What sandboxes are made of.
    pub hypervisor: Hypervisor,
    /// Run the release build of the programs.
    pub release: bool,
    /// Servers of NATS, one cluster; with three or more, every stream stands on three.
    pub nats_servers: usize,
    /// The loopback port of a collector of spans.
    pub otlp_port: Option<u16>,
    /// Log lines are JSON.
    pub json_logs: bool,
}

impl Default for Options {
    /// One of each, two builds at once, microVMs.
    fn default() -> Self {
        Self {
            kind: "platform",
            runners: 1,
            slots: 2,
            agents: 1,
            durable: false,
            lease: None,
            attempts_max: None,
            build_time_max: None,
            log_step_bytes: None,
            host_away: None,
            apart: false,
            hypervisor: Hypervisor::Qemu,
            release: false,
            nats_servers: 1,
            otlp_port: None,
            json_logs: false,
        }
    }
}

/// What sandboxes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// MicroVMs.
    Qemu,
    /// Nothing: for benches of what is around them.
    Memory,
}
