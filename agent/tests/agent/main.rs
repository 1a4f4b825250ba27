//! The whole agent against the real QEMU: every test starts one and checks that nothing of it is left.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

mod calls;
mod checkpoint;
mod commands;
mod crash;
mod file_trouble;
mod files;
mod groups;
mod hostile;
mod limits;
mod metrics;
mod network;
mod pause;
mod probe;
mod refusals;
mod restart;
mod sandbox;
mod support;
mod template;
mod trouble;
mod world;
