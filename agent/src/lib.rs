//! The host agent: microVMs, disks, networks and snapshots of one host.

pub mod guest_link;
