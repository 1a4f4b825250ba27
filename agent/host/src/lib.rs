//! What only root can do on a host: microVMs, their disks, their networks.
//!
//! Each of the three is a trait, because the outside world has several kinds of it: [`vm::Hypervisor`],
//! [`storage::Volumes`], [`net::Networks`]. Everything created here bears the agent instance's name and the
//! sandbox's slot, and can be created again, removed again and listed. This crate decides nothing: which
//! sandbox exists, when, and for whom is the agent's business.

mod identity;
pub mod net;
pub mod storage;
pub mod vm;

pub use identity::{Identity, Instance, InvalidInstance, Slot};
