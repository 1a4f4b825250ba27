//! The API against real Postgres, Redis and NATS. Runners, bridges and agents are not started: what they
//! would write is written by the tests, through the same store and the same stream.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like the tests themselves")]

mod access;
mod builds;
mod cancel;
mod dashboard;
mod documents;
mod logs;
mod refusals;
mod session;
mod world;
