//! Names and addresses: pure arithmetic from instance, subnet and slot.

use std::{fmt, net::Ipv4Addr, path::PathBuf, str::FromStr};

use ipnet::Ipv4Net;

use crate::{Instance, Slot};

/// An IPv4 network in CIDR form, from which host-reachable addresses are taken two by two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// Not a usable subnet.
#[derive(Debug, thiserror::Error)]
#[error("subnet {0:?} is not an IPv4 network with a prefix from 8 to 29, such as 10.201.0.0/20")]
pub struct InvalidSubnet(String);

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| invalid())?);
        let prefix = prefix.parse::<u8>().map_err(|_| invalid())?;
        if !(8..=29).contains(&prefix) || base & (u32::MAX >> prefix) != 0 {
            return Err(invalid());
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl Subnet {
    /// All its addresses.
    pub fn net(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::from(self.base), self.prefix)
    }

    /// How many slots have a pair of addresses in it; the first pair stays unused.
    pub fn slots(self) -> u16 {
        let pairs = (1_u32 << (32 - self.prefix)) / 2 - 1;
        u16::try_from(pairs).unwrap_or(u16::MAX).min(Slot::END)
    }
}

/// Every name and address of the networks of one agent instance.
#[derive(Debug, Clone)]
pub struct Plan {
    instance: Instance,
    subnet: Subnet,
}

impl Plan {
    /// The plan of an instance.
    pub fn new(instance: Instance, subnet: Subnet) -> Self {
        Self { instance, subnet }
    }

    /// The instance's range of addresses.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// `ovb-<instance>-<slot>`.
    pub fn namespace(&self, slot: Slot) -> String {
        format!("ovb-{}-{slot}", self.instance)
    }

    /// Where the namespace is mounted.
    pub fn namespace_path(&self, slot: Slot) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace(slot))
    }

    /// The slot of a namespace name of this instance.
    pub fn slot_of_namespace(&self, name: &str) -> Option<Slot> {
        slot_after(name, &format!("ovb-{}-", self.instance))
    }

    /// The host's end of the veth pair: at most 14 bytes.
    pub fn interface(&self, slot: Slot) -> String {
        format!("v-{}-{slot}", self.instance)
    }

    /// The host's end of a network that is prepared for the slot, and belongs to no sandbox yet.
    pub fn prepared_interface(&self, slot: Slot) -> String {
        format!("p-{}-{slot}", self.instance)
    }

    /// The slot of such an interface of this instance.
    pub fn slot_of_prepared_interface(&self, name: &str) -> Option<Slot> {
        slot_after(name, &format!("p-{}-", self.instance))
    }

    /// Matches the host's ends of all slots in an nft rule.
    pub fn interfaces(&self) -> String {
        format!("v-{}-*", self.instance)
    }

    /// The slot of an interface name of this instance.
    pub fn slot_of_interface(&self, name: &str) -> Option<Slot> {
        slot_after(name, &format!("v-{}-", self.instance))
    }

    /// The nft table on the host.
    pub fn table(&self) -> String {
        format!("ovb_{}", self.instance)
    }

    /// The address of the host's end.
    pub fn host_end(&self, slot: Slot) -> Ipv4Addr {
        Ipv4Addr::from(self.subnet.base + 2 * (u32::from(slot.0) + 1))
    }

    /// The address of the namespace's end, under which the host reaches the guest.
    pub fn host_ip(&self, slot: Slot) -> Ipv4Addr {
        Ipv4Addr::from(self.subnet.base + 2 * (u32::from(slot.0) + 1) + 1)
    }
}

fn slot_after(name: &str, prefix: &str) -> Option<Slot> {
    let digits = name.strip_prefix(prefix)?;
    let slot = digits.parse::<u16>().ok().map(Slot)?;
    (slot.to_string() == digits && slot.0 < Slot::END).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(Instance::new("abcdefgh").unwrap(), "10.201.0.0/20".parse().unwrap())
    }

    #[test]
    fn subnets_are_checked() {
        for bad in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/30", "10.0.0.0/4", "x/20", "::/64"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert_eq!("10.201.0.0/20".parse::<Subnet>().unwrap().to_string(), "10.201.0.0/20");
    }

    #[test]
    fn every_slot_has_its_own_pair_inside_the_subnet() {
        let small = "10.0.0.0/29".parse::<Subnet>().unwrap();
        assert_eq!(small.slots(), 3);
        let plan = Plan::new(Instance::new("a").unwrap(), small);
        let pairs: Vec<_> =
            (0..3).map(|slot| (plan.host_end(Slot(slot)), plan.host_ip(Slot(slot)))).collect();
        assert_eq!(pairs[0], (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)));
        assert_eq!(pairs[2], (Ipv4Addr::new(10, 0, 0, 6), Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!("10.0.0.0/8".parse::<Subnet>().unwrap().slots(), Slot::END);
    }

    #[test]
    fn names_fit_and_lead_back_to_their_slot() {
        let last = Slot(Slot::END - 1);
        assert!(plan().interface(last).len() <= 15);
        assert_eq!(plan().slot_of_interface(&plan().interface(last)), Some(last));
        assert!(plan().prepared_interface(last).len() <= 15);
        assert_eq!(plan().slot_of_prepared_interface(&plan().prepared_interface(last)), Some(last));
        assert_eq!(plan().slot_of_interface(&plan().prepared_interface(last)), None);
        assert_eq!(plan().slot_of_namespace(&plan().namespace(last)), Some(last));
        for other in ["ovb-abcdefg-1", "ovb-abcdefgh-", "ovb-abcdefgh-01", "ovb-abcdefgh-1x", "x"] {
            assert_eq!(plan().slot_of_namespace(other), None, "{other}");
        }
    }
}
