//! The rules of the host, and those of one namespace.
//!
//! | where | packets of a guest | |
//! |---|---|---|
//! | namespace, `spoofing` | with another sender than the guest's address | are dropped |
//! | namespace, `input` | to the namespace itself | are dropped |
//! | namespace, `output` | of its machine's own process, and not of the guest | are dropped |
//! | namespace, `forward` | of known connections | go through |
//! | namespace, `egress` | that begin something | as the sandbox's policy has it |
//! | host, `host` | to any address of the host, or to nowhere | are rejected |
//! | host, `forward` | to another sandbox | are rejected |
//! | host, `forward` | from elsewhere to a sandbox, but of known connections | are dropped |
//!
//! So a guest that breaks out of its namespace's rules still meets the host's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{
    GUEST_IP, GUEST_PREFIX, Plan, Policy, Protocol, TAP, Target,
    netlink::Error,
    nft::{Hook, Then, Transaction, When},
    target::{NEVER, PRIVATE, nets},
};

/// The namespace's end of the pair of links.
pub(super) const UPLINK: &str = "up0";
/// The table in every namespace.
pub(super) const TABLE: &str = "ovenbird";
/// Its chain with the policy; without a rule it lets nothing through.
pub(super) const EGRESS: &str = "egress";

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;
const WEB: [u16; 2] = [80, 443];
/// Rules put into the kernel at once: its socket buffer has an end.
const AT_ONCE: usize = 64;

/// What is the same for every policy. Nothing gets out yet.
pub(super) fn set_base(host_ip: Ipv4Addr) -> Result<(), Error> {
    use When::{Destination, Established, Input, Invalid, NotSource, Output};
    let guest = Ipv4Net::from(GUEST_IP);
    let mut base = Transaction::of(TABLE);
    base.table()
        .chain("spoofing", Some(Hook::RAW))
        .rule("spoofing", &[Input(TAP), NotSource(guest)], Then::Drop)
        .chain("prerouting", Some(Hook::DESTINATION_NAT))
        .rule(
            "prerouting",
            &[Input(UPLINK), Destination(host_ip.into())],
            Then::ToDestination(GUEST_IP),
        )
        .chain("postrouting", Some(Hook::SOURCE_NAT))
        .rule("postrouting", &[Output(UPLINK)], Then::FromSource(host_ip))
        .chain("input", Some(Hook::INPUT.or_drop()))
        .rule("input", &[Input("lo")], Then::Accept)
        .chain("output", Some(Hook::OUTPUT.or_drop()))
        // What a guest is told about its own packets.
        .rule("output", &[Established], Then::Accept)
        .chain(EGRESS, None)
        .chain("forward", Some(Hook::FORWARD.or_drop()))
        .rule("forward", &[Established], Then::Accept)
        .rule("forward", &[Invalid], Then::Drop)
        .rule("forward", &[Input(UPLINK), Output(TAP)], Then::Accept)
        .rule("forward", &[Input(TAP), Output(UPLINK)], Then::Jump(EGRESS));
    base.commit()
}

/// Fills the chain `egress`.
pub(super) fn set_policy(
    policy: &Policy,
    subnet: Ipv4Net,
    resolvers: &[Ipv4Addr],
) -> Result<(), Error> {
    let rules = egress(policy, subnet, resolvers);
    for some in rules.chunks(AT_ONCE) {
        let mut transaction = Transaction::of(TABLE);
        for (target, lets_through) in some {
            let verdict = if *lets_through { Then::Accept } else { Then::Reject };
            add(&mut transaction, target, verdict);
        }
        transaction.commit()?;
    }
    Ok(())
}

/// A policy as what is let through and what is not, the first that fits decides.
fn egress(policy: &Policy, subnet: Ipv4Net, resolvers: &[Ipv4Addr]) -> Vec<(Target, bool)> {
    let anywhere = Ipv4Net::default();
    let inner = Ipv4Net::new_assert(GUEST_IP, GUEST_PREFIX).trunc();
    let (private, public): (Vec<Target>, Vec<Target>) =
        policy.allow.iter().partition(|target| target.is_private());
    let port = |net, port, protocol| Target { net, ports: Some((port, port)), protocol };
    let refused = |target| (target, false);
    let through = |target| (target, true);
    policy
        .deny
        .iter()
        .copied()
        .map(refused)
        .chain(resolvers.iter().map(|ip| through(port(Ipv4Net::from(*ip), DNS, None))))
        .chain(nets(NEVER).chain([subnet, inner]).map(Target::all_of).map(refused))
        .chain(private.into_iter().map(through))
        .chain(nets(PRIVATE).map(Target::all_of).map(refused))
        .chain(public.into_iter().map(through))
        .chain([through(port(anywhere, DNS, None))])
        .chain(WEB.map(|web| through(port(anywhere, web, Some(Protocol::Tcp)))))
        .chain([refused(Target::all_of(anywhere))])
        .collect()
}

fn add(to: &mut Transaction, target: &Target, verdict: Then<'_>) {
    let protocols: &[Option<u8>] = match (target.protocol, target.ports) {
        (Some(Protocol::Tcp), _) => &[Some(TCP)],
        (Some(Protocol::Udp), _) => &[Some(UDP)],
        (None, Some(_)) => &[Some(TCP), Some(UDP)],
        (None, None) => &[None],
    };
    for protocol in protocols {
        let mut when = Vec::new();
        if target.net.prefix_len() > 0 {
            when.push(When::Destination(target.net));
        }
        when.extend(protocol.map(When::Protocol));
        when.extend(target.ports.map(|(first, last)| When::Ports(first, last)));
        to.rule(EGRESS, &when, verdict);
    }
}

/// Sets the host's rules, in place of those that are there.
pub(super) fn set_host(plan: &Plan) -> Result<(), Error> {
    use When::{Established, Input, NotElsewhere, NotInput, NotOutput, NotSource, Output, Source};
    let (sandboxes, subnet) = (&*plan.interfaces(), plan.subnet().net());
    let mut host = Transaction::of(&plan.table());
    host.table()
        .remove_table()
        .table()
        .chain("host", Some(Hook::MANGLE))
        .rule("host", &[NotInput(sandboxes)], Then::Accept)
        .rule("host", &[NotSource(subnet)], Then::Drop)
        .rule("host", &[Established], Then::Accept)
        // Here already, so that no other program's address translation turns it into something else first.
        .rule("host", &[NotElsewhere], Then::Reject)
        .chain("postrouting", Some(Hook::SOURCE_NAT))
        .rule("postrouting", &[Source(subnet), NotOutput(sandboxes)], Then::Masquerade)
        .chain("input", Some(Hook::INPUT))
        .rule("input", &[Input(sandboxes), Established], Then::Accept)
        .rule("input", &[Input(sandboxes)], Then::Drop)
        .chain("forward", Some(Hook::FORWARD))
        .rule("forward", &[Input(sandboxes), Output(sandboxes)], Then::Reject)
        .rule("forward", &[Output(sandboxes), Established], Then::Accept)
        .rule("forward", &[Output(sandboxes)], Then::Drop);
    host.commit()
}

/// Removes the host's rules, whether or not they are there.
pub(super) fn remove_host(plan: &Plan) -> Result<(), Error> {
    let mut host = Transaction::of(&plan.table());
    host.table().remove_table();
    host.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rules do with a packet: the last rule fits everything.
    fn lets_through(policy: &Policy, address: &str, port: u16, protocol: Protocol) -> bool {
        let address: Ipv4Addr = address.parse().unwrap();
        let subnet = "10.201.0.0/20".parse().unwrap();
        let rules = egress(policy, subnet, &["10.0.0.2".parse().unwrap()]);
        let fits = |target: &Target| {
            target.net.contains(&address)
                && target.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
                && target.protocol.is_none_or(|wanted| wanted == protocol)
        };
        rules.iter().find(|(target, _)| fits(target)).unwrap().1
    }

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let targets =
            |entries: &[&str]| entries.iter().map(|entry| entry.parse().unwrap()).collect();
        Policy { allow: targets(allow), deny: targets(deny), bandwidth_kbit: 0 }
    }

    #[test]
    fn default_is_names_and_the_web_of_the_public_internet() {
        use Protocol::{Tcp, Udp};
        let default = Policy::default();
        for (port, protocol) in [(53, Tcp), (53, Udp), (80, Tcp), (443, Tcp)] {
            assert!(lets_through(&default, "203.0.113.7", port, protocol));
            for private in [
                "10.1.2.3",
                "10.201.0.5",
                "172.16.0.1",
                "192.168.1.1",
                "100.64.0.1",
                "169.254.169.254",
                "127.0.0.1",
                "224.0.0.1",
                "255.255.255.255",
                "0.0.0.0",
            ] {
                assert!(!lets_through(&default, private, port, protocol), "{private}:{port}");
            }
        }
        for (port, protocol) in [(22, Tcp), (25, Tcp), (443, Udp), (123, Udp)] {
            assert!(!lets_through(&default, "203.0.113.7", port, protocol));
        }
        assert!(lets_through(&default, "10.0.0.2", 53, Udp));
        assert!(!lets_through(&default, "10.0.0.2", 80, Tcp));
    }

    #[test]
    fn allowed_entries_open_what_they_name_and_denied_ones_win() {
        use Protocol::{Tcp, Udp};
        let some =
            policy(&["203.0.113.7:5432/tcp", "0.0.0.0/0:22"], &["203.0.113.9", "8.8.8.8:53"]);
        assert!(lets_through(&some, "203.0.113.7", 5432, Tcp));
        assert!(!lets_through(&some, "203.0.113.7", 5432, Udp));
        assert!(lets_through(&some, "198.51.100.1", 22, Udp));
        assert!(!lets_through(&some, "10.1.2.3", 22, Tcp), "a wide entry opens no private range");
        assert!(!lets_through(&some, "203.0.113.9", 22, Tcp));
        assert!(!lets_through(&some, "203.0.113.9", 443, Tcp));
        assert!(!lets_through(&some, "8.8.8.8", 53, Udp));
        assert!(lets_through(&some, "8.8.4.4", 53, Udp));
        let none = policy(&["203.0.113.7"], &["0.0.0.0/0"]);
        assert!(!lets_through(&none, "203.0.113.7", 443, Tcp));
        assert!(!lets_through(&none, "10.0.0.2", 53, Udp));
    }

    #[test]
    fn private_entry_opens_its_range_but_never_neighbours_or_the_host() {
        use Protocol::Tcp;
        let wide = policy(&["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"], &[]);
        assert!(lets_through(&wide, "10.1.2.3", 5432, Tcp));
        assert!(lets_through(&wide, "172.17.0.1", 80, Tcp));
        for never in ["10.201.0.5", "172.16.0.1", "169.254.169.254"] {
            assert!(!lets_through(&wide, never, 80, Tcp), "{never}");
        }
    }
}
