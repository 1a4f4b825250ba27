//! The REST API of Ovenbird. The library is what the binary runs and what the tests start: a front over
//! Postgres, Redis and NATS that accepts builds and shows what becomes of them.
//!
//! It decides nothing about a build that is stored: that is the bridge's.

pub mod app;
pub mod config;
pub mod first_head;
pub mod http;
pub mod listener;
pub mod metrics;
pub mod nats;
pub mod nats_access;
pub mod server;
