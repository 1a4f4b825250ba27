//! The whole agent against the real QEMU: every test starts one and checks that nothing of it is left.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

mod checkpoint;
mod file_trouble;
mod files;
mod metrics;
mod pause;
mod sandbox;
mod support;
mod template;
mod trouble;
