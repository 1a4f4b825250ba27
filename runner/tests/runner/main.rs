//! The runner against a real NATS server: the log writer, the queue, and whole attempts.
//!
//! The desk is a few scripted answers, and the host agent a script of faults that no real one shows when it
//! is asked to; what a real agent does stands in the end-to-end test of `cargo dev`.

// The lint knows tests by their attribute; what they share stands in helpers.
#![allow(clippy::unwrap_used)]

mod agent;
mod attempt;
mod caps;
mod copy;
mod desk;
mod handover;
mod log;
mod nats;
mod pod;
mod process;
mod queue;
