//! What only root can do on a host: microVMs, their disks, their networks, their limits.
//!
//! The first three are traits, because the outside world has several kinds of them: [`vm::Hypervisor`],
//! [`storage::Volumes`], [`net::Networks`]; [`cgroup::Cgroups`] keeps them apart. Everything created here bears the agent instance's name and the
//! sandbox's slot, and can be created again, removed again and listed. This crate decides nothing: which
//! sandbox exists, when, and for whom is the agent's business.

pub mod cgroup;
pub mod clock;
mod identity;
pub mod net;
pub mod storage;
pub mod vm;

pub use identity::{Identity, Instance, InvalidInstance, Slot};
