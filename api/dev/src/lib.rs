//! What `cargo dev` does: set-up, the platform on one machine, its demo and its tests, the API's documents and SDKs.
//!
//! It starts api, bridge, runner and agent as processes, as in production, and links none of them. Nothing
//! here runs in production. The benchmark's floor speaks to a guest itself, so it links the guest's protocol.

pub mod api;
pub mod bench;
pub mod build;
pub mod cache;
pub mod command;
pub mod dashboard;
pub mod faults;
pub mod host;
pub mod initramfs;
pub mod openapi;
pub mod platform;
pub mod program;
pub mod progress;
pub mod scale;
pub mod sdk;
pub mod setup;
pub mod tree;
