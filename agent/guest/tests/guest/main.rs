//! The guest agent as PID 1 of a real microVM, called through the host agent's own link.
//!
//! Needs a kernel, an initramfs with this program and a base image: `cargo dev test` makes them and
//! says where they are. Without them every test fails and says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod boot;
mod call;
mod exec;
mod files;
mod link;
mod qmp;
mod snapshot;
mod vm;
