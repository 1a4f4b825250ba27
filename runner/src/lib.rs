//! The runner: takes build jobs and drives host agents step by step.
//!
//! ```text
//! service ─┬► slot × n: queue ─► worker (claim) ─► attempt: lease · build · publish ─► finish or release
//!         └► pod: how many slots are busy
//! ```
//!
//! Stateless: it holds one NATS connection and mutual TLS to the agents, no database and no Redis. What it
//! knows of a build comes with the claim and goes out as log records, events and the finish.

pub mod attempt;
pub mod build;
pub mod config;
pub mod context;
pub mod desk;
pub mod lease;
pub mod metrics;
pub mod pod;
pub mod publish;
pub mod queue;
pub mod service;
pub mod stop;
pub mod worker;

pub use config::Config;
pub use service::Service;
