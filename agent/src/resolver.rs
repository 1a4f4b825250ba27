//! The name servers that sandboxes may ask although they are in a private range.

use std::{net::Ipv4Addr, path::Path, str::FromStr};

/// Where the host's own are written down. The second one has what systemd-resolved, which listens on a loopback
/// address, asks itself.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Name servers at most: a resolver asks no more than three anyway.
const MAX: usize = 8;

/// An entry of the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// Those of this host.
    Host,
    /// One.
    Address(Ipv4Addr),
}

/// Not an entry of the setting.
#[derive(Debug, thiserror::Error)]
#[error("egress_dns: {0:?} is neither an IPv4 address nor \"host\"")]
pub struct Invalid(String);

impl FromStr for Resolver {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "host" {
            return Ok(Self::Host);
        }
        text.parse().map(Self::Address).map_err(|_| Invalid(text.to_owned()))
    }
}

/// The addresses that the entries stand for. IPv6 and loopback addresses are of no use to a sandbox.
pub fn addresses(entries: &[Resolver]) -> Vec<Ipv4Addr> {
    let of_host = || FILES.iter().flat_map(|file| of_file(Path::new(file)));
    let mut found = Vec::new();
    for entry in entries {
        match entry {
            Resolver::Host => found.extend(of_host()),
            Resolver::Address(address) => found.push(*address),
        }
    }
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    for address in found {
        if !address.is_loopback() && !address.is_unspecified() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(MAX);
    addresses
}

/// No such file, no name servers.
fn of_file(path: &Path) -> Vec<Ipv4Addr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_those_of_no_use_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let text = "# nameserver 9.9.9.9\nsearch example\nnameserver 10.0.0.2\nnameserver ::1\n\
                    nameserver\n nameserver 127.0.0.53 # local\n";
        std::fs::write(&file, text).unwrap();
        let read = of_file(&file);
        assert_eq!(read, [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 53)]);
        assert_eq!(of_file(&dir.path().join("none")), Vec::<Ipv4Addr>::new());

        let entries: Vec<Resolver> =
            read.into_iter().chain(["10.0.0.2".parse().unwrap()]).map(Resolver::Address).collect();
        assert_eq!(addresses(&entries), [Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!("host".parse::<Resolver>().unwrap(), Resolver::Host);
        assert!("::1".parse::<Resolver>().unwrap_err().to_string().contains("egress_dns"));
    }
}
