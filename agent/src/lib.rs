//! The host agent: microVMs, disks, networks and snapshots of one host.
//!
//! ```text
//!  gRPC, mTLS ──► server ──► sandbox::Manager ──► ovenbird-host (machines, disks, networks)
//!                    │             └────────────► template
//!                    └──► guest_link ──► the guest's agent, over virtio-serial
//! ```
//!
//! Builds, users and databases are not known here: a caller says which template to start from, and what to do
//! with the sandbox.

mod agent;
pub mod check;
pub mod config;
pub mod data_dir;
pub mod guest_link;
pub mod kernel;
mod means;
pub mod memory;
pub mod metrics;
pub mod name;
pub mod registration;
pub mod resolver;
pub mod sandbox;
pub mod server;
pub mod template;

pub use agent::{Agent, Error, exit_code};
