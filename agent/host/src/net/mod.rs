//! Networks: one namespace per sandbox, the same addresses inside each, one host-reachable address outside.
//!
//! ```text
//!   host                         namespace ovb-<name>-<slot>                    guest
//!   v-<name>-<slot> ──veth── up0 (host_ip) ── DNAT, masquerade, egress ── tap0 ── eth0
//!   10.x.y.z/31              10.x.y.z+1/31    rules                172.16.0.1/30   172.16.0.2
//! ```
//!
//! The addresses inside never differ, so a fork needs no reconfiguration. Which sandbox a slot belongs to is
//! not known here.

mod links;
mod namespace;
mod netlink;
mod networks;
mod nft;
mod one;
mod plan;
mod policy;
mod rules;
pub(crate) mod tap;
mod target;

use std::{net::Ipv4Addr, path::PathBuf};

use async_trait::async_trait;

pub use namespace::{Namespace, Unnamed};
pub use netlink::Error as NetlinkError;
pub use networks::{NetlinkNetworks, Options};
pub use plan::{InvalidSubnet, Plan, Subnet};
pub use policy::{BANDWIDTH_KBIT, ENTRIES_MAX, Policy, Refused};
pub use target::{InvalidTarget, Protocol, Target};

use crate::{Identity, Slot};

/// The guest's own address, in every namespace.
pub const GUEST_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// The guest's gateway: the namespace's side of the tap.
pub const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The length of their common prefix.
pub const GUEST_PREFIX: u8 = 30;
/// The tap's name in every namespace.
pub const TAP: &str = "tap0";

/// A network could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change to a network.
    #[error("the network of slot {slot} cannot be changed")]
    Netlink {
        /// Whose network.
        slot: Slot,
        /// What was refused.
        #[source]
        source: NetlinkError,
    },
    /// The host's own rules could not be set.
    #[error("the host's forwarding rules cannot be set")]
    Host(#[source] NetlinkError),
    /// The kernel refused something.
    #[error("network: cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// After its removal something of it was still there.
    #[error("the network of slot {slot} is still there after its removal: {what}")]
    Left {
        /// Whose network.
        slot: Slot,
        /// What is left.
        what: String,
    },
}

/// A sandbox's network, ready for a machine.
#[derive(Debug, Clone)]
pub struct Network {
    /// The namespace that the machine has to be started in.
    pub namespace: PathBuf,
    /// The address under which this host reaches the guest.
    pub host_ip: Ipv4Addr,
}

/// A way to make networks.
#[async_trait]
pub trait Networks: std::fmt::Debug + Send + Sync {
    /// Makes the network of a slot, from nothing: what an earlier call left is removed first. When it fails,
    /// [`Networks::remove`] leaves nothing. The policy holds from the first packet on, for as long as the network
    /// is there.
    async fn ensure(&self, slot: Slot, owner: Identity, policy: &Policy) -> Result<Network, Error>;

    /// The network of a slot whose machine still runs after its agent ended, with the policy it was made with.
    /// None when it is not whole, or not as this plan has it: then it has to be removed, and the machine ended.
    async fn adopt(&self, slot: Slot) -> Result<Option<Network>, Error>;

    /// Removes the network of a slot, whose machine has ended. None is fine.
    async fn remove(&self, slot: Slot) -> Result<(), Error>;

    /// The slots of this agent instance that have a network or a part of one.
    async fn list(&self) -> Result<Vec<Slot>, Error>;

    /// Sets what all networks share on the host, and begins to prepare some. Repeating it is fine; networks of
    /// an earlier agent that are there already go on.
    async fn open(&self) -> Result<(), Error>;

    /// Ends what runs in the background and removes what was prepared. The networks of sandboxes and what they
    /// share on the host stay, for the next agent.
    async fn leave(&self) -> Result<(), Error>;

    /// Like [`Networks::leave`], and removes what [`Networks::open`] made. Call it when the last network is gone.
    async fn close(&self) -> Result<(), Error>;
}
