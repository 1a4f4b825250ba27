//! One network: made in two steps, looked at, removed.
//!
//! ```text
//!            prepare                                activate
//!  nothing ──────────► namespace without a name,  ──────────► policy, limit, link up, named
//!                      link p-… down, no way out              ovb-… and v-…
//! ```
//!
//! The name in `/run/netns` comes last: a network that has one is whole. What is prepared needs no name, for it
//! ends with its agent. All of this blocks, for milliseconds.

use std::{io, net::Ipv4Addr, os::fd::AsFd};

use super::{
    Error, GATEWAY_IP, GUEST_PREFIX, Namespace, Network, Plan, Policy, TAP,
    links::{Links, index_of},
    namespace::Unnamed,
    netlink,
    nft::chain_exists,
    rules::{self, EGRESS, TABLE, UPLINK},
    tap,
};
use crate::{Identity, Slot};

/// Everything of a network but its policy. [`Prepared::discard`] it, or its link stays for some moments.
#[derive(Debug)]
pub(super) struct Prepared {
    slot: Slot,
    pub(super) owner: Identity,
    namespace: Unnamed,
}

/// What goes wrong inside of a namespace.
enum Inside {
    Io(io::Error),
    Netlink(netlink::Error),
}

impl From<io::Error> for Inside {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<netlink::Error> for Inside {
    fn from(error: netlink::Error) -> Self {
        Self::Netlink(error)
    }
}

impl Inside {
    fn of(self, slot: Slot) -> Error {
        match self {
            Self::Io(source) => Error::Io { action: "set up a namespace", source },
            Self::Netlink(source) => Error::Netlink { slot, source },
        }
    }
}

impl Prepared {
    /// Makes everything that does not depend on the policy.
    pub(super) fn make(plan: &Plan, slot: Slot, owner: Identity) -> Result<Self, Error> {
        let failed = |source| Error::Netlink { slot, source };
        let (link, host_ip) = (plan.prepared_interface(slot), plan.host_ip(slot));
        let host_end = plan.host_end(slot);
        let mut links = Links::open().map_err(failed)?;
        // Of an agent that was killed; the kernel takes it away with its namespace, but only some time later.
        links.remove(&link).map_err(failed)?;
        let namespace = Unnamed::create(|outside| -> Result<(), Inside> {
            set("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").or_else(no_ipv6)?;
            set("/proc/sys/net/ipv4/ip_forward", "1")?;
            // A guest is told of each refusal at once. Beyond six, the kernel would tell it of one a second, and its
            // programs would wait for what never comes.
            set("/proc/sys/net/ipv4/icmp_ratelimit", "0")?;
            rules::set_base(host_ip)?;
            let mut links = Links::open()?;
            links.set_up(index_of("lo")?)?;
            links.add_pair(UPLINK, &link, outside.as_fd())?;
            let uplink = index_of(UPLINK)?;
            links.add_address(uplink, host_ip, PAIR_PREFIX)?;
            links.set_up(uplink)?;
            links.add_default_route(host_end)?;
            tap::create(TAP, owner)?;
            let tap = index_of(TAP)?;
            links.add_address(tap, GATEWAY_IP, GUEST_PREFIX)?;
            links.set_up(tap)?;
            Ok(())
        });
        let namespace = match namespace {
            Ok(namespace) => namespace,
            Err(error) => {
                links.remove(&link).map_err(failed)?;
                return Err(error.of(slot));
            }
        };
        let prepared = Self { slot, owner, namespace };
        let addressed =
            index_of(&link).and_then(|index| links.add_address(index, host_end, PAIR_PREFIX));
        match addressed {
            Ok(()) => Ok(prepared),
            Err(error) => {
                prepared.discard(plan)?;
                Err(failed(error))
            }
        }
    }

    /// Gives it a policy, and to the sandbox of its slot. When it fails, [`remove`] leaves nothing.
    pub(super) fn activate(
        self,
        plan: &Plan,
        policy: &Policy,
        resolvers: &[Ipv4Addr],
    ) -> Result<Network, Error> {
        let slot = self.slot;
        let result = self.try_activate(plan, policy, resolvers);
        if result.is_err() {
            // Under whichever of its names. What cannot be removed now is found by the next removal.
            let links =
                Links::open().and_then(|mut links| links.remove(&plan.prepared_interface(slot)));
            if let Err(error) = links {
                tracing::debug!(%slot, %error, "a link of a network that failed goes with its namespace");
            }
        }
        result
    }

    fn try_activate(
        self,
        plan: &Plan,
        policy: &Policy,
        resolvers: &[Ipv4Addr],
    ) -> Result<Network, Error> {
        let slot = self.slot;
        let failed = |source| Error::Netlink { slot, source };
        let kbit = policy.bandwidth_kbit;
        let subnet = plan.subnet().net();
        let inside = || -> Result<(), Inside> {
            rules::set_policy(policy, subnet, resolvers)?;
            if kbit > 0 {
                Links::open()?.limit(index_of(UPLINK)?, kbit)?;
            }
            Ok(())
        };
        self.namespace.enter(inside).map_err(|error| error.of(slot))?;
        let mut links = Links::open().map_err(failed)?;
        let index = index_of(&plan.prepared_interface(slot)).map_err(failed)?;
        if kbit > 0 {
            links.limit(index, kbit).map_err(failed)?;
        }
        links.rename_and_set_up(index, &plan.interface(slot)).map_err(failed)?;
        let namespace = self
            .namespace
            .name(plan.namespace_path(slot))
            .map_err(|source| Error::Io { action: "name a namespace", source })?;
        Ok(Network { namespace: namespace.path().to_owned(), host_ip: plan.host_ip(slot) })
    }

    /// Removes it.
    pub(super) fn discard(self, plan: &Plan) -> Result<(), Error> {
        let slot = self.slot;
        let removed =
            Links::open().and_then(|mut links| links.remove(&plan.prepared_interface(slot)));
        removed.map_err(|source| Error::Netlink { slot, source })
    }
}

/// Of the two addresses of a pair of links.
const PAIR_PREFIX: u8 = 31;

/// Removes the network of a slot, or what there is of it.
pub(super) fn remove(plan: &Plan, slot: Slot) -> Result<(), Error> {
    let interface = plan.interface(slot);
    // Both ends of the pair go at once; the namespace alone would be freed by the kernel some time later.
    if interface_exists(&interface) {
        let removed = Links::open().and_then(|mut links| links.remove(&interface));
        removed.map_err(|source| Error::Netlink { slot, source })?;
    }
    let namespace = Namespace::at(plan.namespace_path(slot));
    namespace.remove().map_err(|source| Error::Io { action: "remove a namespace", source })?;
    if namespace.path().exists() {
        return Err(Error::Left { slot, what: namespace.path().display().to_string() });
    }
    if interface_exists(&interface) {
        return Err(Error::Left { slot, what: interface });
    }
    Ok(())
}

/// The network of a slot, if it is whole and as the plan has it.
pub(super) fn find(plan: &Plan, slot: Slot) -> Result<Option<Network>, Error> {
    let namespace = Namespace::at(plan.namespace_path(slot));
    let host_ip = plan.host_ip(slot);
    let outside = has_address(&plan.interface(slot), plan.host_end(slot));
    let outside = outside.map_err(|source| Error::Io { action: "look at addresses", source })?;
    if !namespace.exists() || !outside {
        return Ok(None);
    }
    let inside = || -> Result<bool, Inside> {
        Ok(has_address(UPLINK, host_ip)?
            && has_address(TAP, GATEWAY_IP)?
            && chain_exists(TABLE, EGRESS)?)
    };
    let whole = namespace.enter(inside).map_err(|error| error.of(slot))?;
    Ok(whole.then(|| Network { namespace: namespace.path().to_owned(), host_ip }))
}

/// Whether a link of the calling thread's namespace is up and has an address.
fn has_address(link: &str, address: Ipv4Addr) -> io::Result<bool> {
    use nix::net::if_::InterfaceFlags;
    let mut addresses = nix::ifaddrs::getifaddrs()?;
    Ok(addresses.any(|found| {
        let ip = found.address.and_then(|ip| Some(ip.as_sockaddr_in()?.ip()));
        found.interface_name == link
            && found.flags.contains(InterfaceFlags::IFF_UP)
            && ip == Some(address)
    }))
}

/// Asked of the kernel: `/sys/class/net` shows the links of whoever mounted it, which need not be this agent's.
pub(super) fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

pub(super) fn set(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(path, value)
}

/// A kernel without IPv6 needs none of it turned off.
fn no_ipv6(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
