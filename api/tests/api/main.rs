//! The API against real Postgres, Redis and NATS. Runners and bridges are not started: what they would write is
//! written by the tests, through the same store and the same stream. Where a host is needed there is a real agent,
//! whose sandboxes have no machines.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like the tests themselves")]

mod access;
mod audit;
mod builds;
mod cancel;
mod contexts;
mod contract;
mod dashboard;
mod documents;
mod hosts;
mod idempotency;
mod keys;
mod logs;
mod nats_access;
mod queue;
mod rate;
mod refusals;
mod sandbox_exec;
mod sandbox_host;
mod sandboxes;
mod session;
mod templates;
mod world;
