//! The whole agent against the real QEMU: every test starts one and checks that nothing of it is left.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

mod calls;
mod checkpoint;
mod commands;
mod network;
mod pause;
mod probe;
mod refusals;
mod sandbox;
mod support;
mod template;
mod trouble;
mod world;
