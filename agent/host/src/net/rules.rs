//! The nft rules, as text: of the host, and of one namespace.
//!
//! Default egress: DNS and web ports, to public addresses only. Lists per sandbox are not here yet.

use std::net::Ipv4Addr;

use super::{GUEST_IP, Plan, TAP};

/// The namespace's end of the veth pair.
pub(super) const UPLINK: &str = "up0";

/// Everything that is not the public internet.
const PRIVATE: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, \
    172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, \
    198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3";

/// Rules of a namespace. The guest cannot reach the namespace itself, nor send with another's address.
pub(super) fn of_namespace(host_ip: Ipv4Addr) -> String {
    format!(
        "table ip ovenbird {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"{UPLINK}\" ip daddr {host_ip} dnat to {GUEST_IP}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"{UPLINK}\" snat to {host_ip}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname \"lo\" accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname \"{UPLINK}\" oifname \"{TAP}\" accept
    iifname \"{TAP}\" ip saddr != {GUEST_IP} drop
    iifname \"{TAP}\" ip daddr {{ {PRIVATE} }} reject with icmp type admin-prohibited
    iifname \"{TAP}\" tcp dport {{ 53, 80, 443 }} accept
    iifname \"{TAP}\" udp dport {{ 53, 443 }} accept
    iifname \"{TAP}\" reject with icmp type admin-prohibited
  }}
}}
"
    )
}

/// Rules of the host: sandboxes go out under the host's address, and reach neither the host nor each other.
pub(super) fn of_host(plan: &Plan) -> String {
    let (table, subnet, interfaces) = (plan.table(), plan.subnet(), plan.interfaces());
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != \"{interfaces}\" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname \"{interfaces}\" ct state established,related accept
    iifname \"{interfaces}\" drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname \"{interfaces}\" oifname \"{interfaces}\" drop
  }}
}}
"
    )
}

/// Removes the host's rules, whether or not they are there.
pub(super) fn of_host_removed(plan: &Plan) -> String {
    let table = plan.table();
    format!("table ip {table}\ndelete table ip {table}\n")
}
