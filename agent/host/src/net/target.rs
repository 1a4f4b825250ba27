//! Where a guest may go: one entry of an egress list, and the ranges that are never the public internet.
//!
//! ```text
//! entry    = address [ "/" prefix ] [ ":" port [ "-" port ] ] [ "/" protocol ]
//! protocol = "tcp" | "udp"
//! ```
//!
//! Without a protocol, ports are those of TCP and UDP; without ports, every protocol is meant. IPv4 only: sandboxes
//! have no IPv6. Names are not resolved, for what they resolve to can change.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Addresses that no list opens: this host, link-local ones (cloud metadata among them), multicast, reserved.
pub(super) const NEVER: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Addresses that mean something only inside of somebody's network. The three ranges for documentation are not
/// among them: nobody routes them.
pub(super) const PRIVATE: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

pub(super) fn nets(of: &[(Ipv4Addr, u8)]) -> impl Iterator<Item = Ipv4Net> + '_ {
    of.iter().map(|&(address, prefix)| Ipv4Net::new_assert(address, prefix))
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Addresses, and what of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// The addresses.
    pub net: Ipv4Net,
    /// The first and the last port; none: all.
    pub ports: Option<(u16, u16)>,
    /// None: TCP and UDP when there are ports, else every protocol.
    pub protocol: Option<Protocol>,
}

/// Not an entry of an egress list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{entry:?} {reason}; write ADDRESS[/PREFIX][:PORT[-PORT]][/tcp|/udp], such as 203.0.113.0/24 or \
     203.0.113.7:5432/tcp"
)]
pub struct InvalidTarget {
    entry: String,
    reason: &'static str,
}

/// As much of a bad entry as is repeated.
const ENTRY_MAX: usize = 64;

impl Target {
    /// All of a network.
    pub const fn all_of(net: Ipv4Net) -> Self {
        Self { net, ports: None, protocol: None }
    }

    /// Whether it lies in a range that no list opens.
    pub fn is_never(&self) -> bool {
        nets(NEVER).any(|range| range.contains(&self.net))
    }

    /// Whether it lies in a private range. One that merely reaches into such a range means its public part.
    pub fn is_private(&self) -> bool {
        nets(PRIVATE).any(|range| range.contains(&self.net))
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid =
            |reason| InvalidTarget { entry: text.chars().take(ENTRY_MAX).collect(), reason };
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
            Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
            _ => (text, None),
        };
        let bare = rest.split('/').next().unwrap_or_default();
        if bare.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) || bare.contains('[') {
            return Err(invalid("is not IPv4, and sandboxes have no IPv6"));
        }
        let (net, ports) = match rest.split_once(':') {
            Some((net, ports)) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let number = |text: &str| decimal(text).filter(|port| *port != 0);
                let ports = number(first).zip(number(last)).filter(|(first, last)| first <= last);
                (net, Some(ports.ok_or_else(|| invalid("has no valid ports"))?))
            }
            None => (rest, None),
        };
        let (address, prefix) = net.split_once('/').unwrap_or((net, "32"));
        let address = address.parse().map_err(|_| invalid("is not an address"))?;
        let prefix = decimal(prefix).and_then(|prefix| u8::try_from(prefix).ok());
        let net = prefix.and_then(|prefix| Ipv4Net::new(address, prefix).ok());
        let net = net.ok_or_else(|| invalid("has no valid prefix"))?;
        if net.network() != address {
            return Err(invalid("has bits behind its prefix"));
        }
        Ok(Self { net, ports, protocol })
    }
}

/// Digits only, unlike what `parse` takes.
fn decimal(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net.prefix_len() {
            32 => self.net.addr().fmt(f)?,
            _ => self.net.fmt(f)?,
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, ":{first}")?,
            Some((first, last)) => write!(f, ":{first}-{last}")?,
            None => {}
        }
        match self.protocol {
            Some(protocol) => write!(f, "/{}", protocol.name()),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = InvalidTarget;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn entries_read_back_as_they_are_written() {
        for text in [
            "203.0.113.0/24",
            "203.0.113.7",
            "203.0.113.7:5432/tcp",
            "203.0.113.0/24:8000-8999/udp",
            "203.0.113.7:53",
            "203.0.113.7/udp",
            "0.0.0.0/0:22/tcp",
        ] {
            assert_eq!(target(text).to_string(), text);
            let json = serde_json::to_string(&target(text)).unwrap();
            assert_eq!(serde_json::from_str::<Target>(&json).unwrap(), target(text));
        }
        assert_eq!(target("203.0.113.7/32"), target("203.0.113.7"));
        assert_eq!(target("203.0.113.7:80-80"), target("203.0.113.7:80"));
    }

    #[test]
    fn bad_entries_are_named_with_what_is_wrong() {
        for (text, reason) in [
            ("", "not an address"),
            ("example.com", "not an address"),
            ("203.0.113", "not an address"),
            ("203.0.113.7/33", "prefix"),
            ("203.0.113.7/+8", "prefix"),
            ("203.0.113.7/24", "bits behind"),
            ("203.0.113.7:", "ports"),
            ("203.0.113.7:0", "ports"),
            ("203.0.113.7:65536", "ports"),
            ("203.0.113.7:9-8", "ports"),
            ("203.0.113.7:80/sctp", "ports"),
            ("2001:db8::1", "not IPv4"),
            ("2001:db8::/32", "not IPv4"),
            ("[2001:db8::1]:80", "not IPv4"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
        assert!("9".repeat(10_000).parse::<Target>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn ranges_are_told_apart() {
        for text in
            ["127.0.0.1", "169.254.169.254:80/tcp", "224.0.0.1", "255.255.255.255", "0.0.0.0/8"]
        {
            assert!(target(text).is_never() && !target(text).is_private(), "{text}");
        }
        for text in ["10.0.0.0/8", "192.168.7.0/24:5432", "172.31.255.255", "100.64.0.1"] {
            assert!(target(text).is_private() && !target(text).is_never(), "{text}");
        }
        for text in ["0.0.0.0/0", "8.8.8.8", "11.0.0.0/8", "203.0.113.0/24", "8.0.0.0/5"] {
            assert!(!target(text).is_private() && !target(text).is_never(), "{text}");
        }
    }
}
