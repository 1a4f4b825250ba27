//! The bridge's services against a real Postgres, Redis and NATS.
// Clippy knows test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod agent;
mod cancel;
mod contexts;
mod desk;
mod handover;
mod hosts;
mod ledger;
mod limits;
mod orphans;
mod process;
mod relay;
mod rig;
mod streams;
mod sweep;
mod users;
mod whole;
