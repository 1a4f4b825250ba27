//! The bridge's services against a real Postgres, Redis and NATS.
// Clippy knows test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod desk;
mod handover;
mod ledger;
mod relay;
mod rig;
mod sweep;
mod whole;
