//! The store against a real Postgres.
// Clippy knows test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod cancel;
mod claim;
mod finish;
mod host;
mod job;
mod lease;
mod ledger;
mod orphan;
mod queue;
mod reader;
mod registration;
mod sandbox;
mod template;
mod turn;
mod world;
