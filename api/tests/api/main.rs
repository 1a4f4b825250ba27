//! The API against real Postgres, Redis and NATS. Runners and bridges are not started: what they would write is
//! written by the tests, through the same store and the same stream. Where a host is needed there is a real agent,
//! whose sandboxes have no machines.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like the tests themselves")]

mod access;
mod audit;
mod builds;
mod cancel;
mod connections;
mod contexts;
mod contract;
mod dashboard;
mod documents;
mod events;
mod hosts;
mod idempotency;
mod keys;
mod logs;
mod nats_access;
mod process;
mod queue;
mod rate;
mod refusals;
mod registration;
mod sandbox_exec;
mod sandbox_host;
mod sandbox_repeats;
mod sandboxes;
mod session;
mod template_names;
mod templates;
mod world;
