//! The one way to call a host agent: mutual TLS, one pooled connection per host, a deadline on every
//! call, and the fence of the build that a call is made for.
//!
//! ```text
//! Agents (pool, one per process) ── at(target) ──► Agent ── fenced(build, attempt) ──► Agent ── create_sandbox …
//! ```
//!
//! There is no transport timeout: a step, a flatten or a snapshot may take long, and the deadline of a call
//! follows from what the call does ([`Deadlines`]). HTTP/2 keepalive notices a dead host instead, in the
//! middle of a long call too.
//!
//! Only calls that may be repeated without harm are repeated by this crate, only when the host could not be
//! reached, and a bounded number of times. What to do about an answer that is an error is the caller's
//! decision; [`Error`] keeps apart what callers decide differently.

mod agent;
mod config;
mod directories;
mod error;
mod exec;
mod files;
mod pool;
mod sandboxes;
mod types;

pub use agent::Agent;
pub use config::{Config, Deadlines};
pub use error::Error;
pub use exec::{CallEvents, ExecEvents};
pub use files::{FileChunks, Unpack, Unpacked};
pub use pool::{Agents, Target};
pub use types::{
    CallEvent, Command, DirectoryEntry, DirectoryPage, ExecEnd, ExecEvent, ExecOutput, FileKind,
    HeldTemplate, HostInfo, MetricPoint, MetricRange, NewSandbox, OutputStream, Sandbox,
    SandboxInfo, Started,
};
