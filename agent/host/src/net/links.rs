//! Links, addresses, routes and bandwidth limits of the namespace that a socket belongs to.

use std::{
    ffi::CString,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_bindings::{
    rt_addr, rt_link, rt_route, tc,
    traits::Pusher,
    utils::{finalize_nested_header, push_header, push_nested_header},
};
use nix::net::if_::if_nametoindex;

use super::netlink::{Error, Family, Netlink};

/// `VETH_INFO_PEER` of linux/veth.h, which the bindings lack, as they lack all of veth.
const VETH_PEER: u16 = 1;
/// `IFLA_INFO_DATA` of linux/if_link.h.
const INFO_DATA: u16 = 2;
/// `TC_H_ROOT` of linux/pkt_sched.h: the queue itself, not a part of one.
const ROOT: u32 = u32::MAX;
const UP: u32 = libc::IFF_UP.cast_unsigned();
const INET: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Links {
    netlink: Netlink,
}

impl Links {
    /// Those of the calling thread's namespace.
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { netlink: Netlink::open(Family::Route)? })
    }

    /// Makes a pair of links: `name` here, and `peer` in another namespace. Both are down.
    pub(super) fn add_pair(
        &mut self,
        name: &str,
        peer: &str,
        other: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let header = rt_link::Ifinfomsg::new();
        let mut request = rt_link::Request::new().set_create().set_excl().op_newlink_do(&header);
        let mut info =
            request.encode().push_ifname(&c_string(name)).nested_linkinfo().push_kind(c"veth");
        let bytes = info.as_vec_mut();
        let data = push_nested_header(bytes, INFO_DATA);
        let nested = push_nested_header(bytes, VETH_PEER);
        bytes.extend_from_slice(header.as_slice());
        push_header(bytes, libc::IFLA_IFNAME, length(peer.len() + 1));
        bytes.extend_from_slice(c_string(peer).as_bytes_with_nul());
        push_header(bytes, libc::IFLA_NET_NS_FD, 4);
        bytes.extend_from_slice(&other.as_raw_fd().to_ne_bytes());
        finalize_nested_header(bytes, nested);
        finalize_nested_header(bytes, data);
        info.end_nested().end_nested();
        self.netlink.request("make a pair of links", &request)
    }

    /// Gives a link of this namespace an address.
    pub(super) fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), Error> {
        let header = rt_addr::Ifaddrmsg {
            ifa_family: INET,
            ifa_prefixlen: prefix,
            ifa_index: index,
            ..rt_addr::Ifaddrmsg::new()
        };
        let mut request = rt_addr::Request::new().set_create().set_excl().op_newaddr_do(&header);
        request.encode().push_local(IpAddr::V4(address)).push_address(IpAddr::V4(address));
        self.netlink.request("give a link its address", &request)
    }

    /// Sets a link up.
    pub(super) fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.netlink.request("set a link up", &change_up(index))
    }

    /// Gives a link that is down another name, and sets it up.
    pub(super) fn rename_and_set_up(&mut self, index: u32, name: &str) -> Result<(), Error> {
        let mut request = change_up(index);
        request.encode().push_ifname(&c_string(name));
        self.netlink.request("name a link and set it up", &request)
    }

    /// Removes a link, and the other one of its pair, if it is there.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Error> {
        let mut request = rt_link::Request::new().op_dellink_do(&rt_link::Ifinfomsg::new());
        request.encode().push_ifname(&c_string(name));
        match self.netlink.request("remove a link", &request) {
            Err(error) if !error.is_absence() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends what has no better route to a gateway.
    pub(super) fn add_default_route(&mut self, gateway: Ipv4Addr) -> Result<(), Error> {
        let header = rt_route::Rtmsg {
            rtm_family: INET,
            rtm_table: libc::RT_TABLE_MAIN,
            rtm_protocol: libc::RTPROT_BOOT,
            rtm_scope: libc::RT_SCOPE_UNIVERSE,
            rtm_type: libc::RTN_UNICAST,
            ..rt_route::Rtmsg::new()
        };
        let mut request = rt_route::Request::new().set_create().set_excl().op_newroute_do(&header);
        request.encode().push_gateway(IpAddr::V4(gateway));
        self.netlink.request("set the default route", &request)
    }

    /// Limits what a link sends. What is over the limit waits for a moment, then it is dropped.
    pub(super) fn limit(&mut self, index: u32, kbit: u32) -> Result<(), Error> {
        let bucket = Bucket::of(kbit);
        let header = tc::Tcmsg {
            ifindex: index.cast_signed(),
            handle: 1 << 16,
            parent: ROOT,
            ..tc::Tcmsg::new()
        };
        let mut options = tc::TcTbfQopt::new();
        options.rate.linklayer = LINK_LAYER_ETHERNET;
        options.rate.rate = bucket.rate;
        options.limit = bucket.queue;
        let mut request = tc::Request::new().set_create().set_replace().op_newqdisc_do(&header);
        request.encode().nested_options_tbf().push_parms(options).push_burst(bucket.burst);
        self.netlink.request("limit the bandwidth (it needs the kernel module sch_tbf)", &request)
    }
}

/// `TC_LINKLAYER_ETHERNET` of linux/pkt_sched.h: the kernel then computes times from the rate by itself.
const LINK_LAYER_ETHERNET: u8 = 1;

/// A token bucket, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Bucket {
    /// Per second.
    rate: u32,
    /// What goes through at once: 20 ms worth, and some whole packets at least.
    burst: u32,
    /// What may wait: 200 ms worth.
    queue: u32,
}

impl Bucket {
    fn of(kbit: u32) -> Self {
        let rate = u32::try_from(u64::from(kbit) * 1000 / 8).unwrap_or(u32::MAX);
        Self { rate, burst: (rate / 50).max(16 << 10), queue: (rate / 5).max(32 << 10) }
    }
}

fn change_up(index: u32) -> rt_link::OpNewlinkDo<'static> {
    let header = rt_link::Ifinfomsg {
        ifi_index: index.cast_signed(),
        ifi_flags: UP,
        ifi_change: UP,
        ..rt_link::Ifinfomsg::new()
    };
    rt_link::Request::new().op_newlink_do(&header)
}

/// The number of a link of the calling thread's namespace.
pub(super) fn index_of(name: &str) -> Result<u32, Error> {
    if_nametoindex(name).map_err(|error| Error::new("find a link", error.into()))
}

fn c_string(name: &str) -> CString {
    CString::new(name).expect("names of links are made of an instance and a slot")
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_whole_packets_and_their_sizes_fit() {
        assert_eq!(Bucket::of(64), Bucket { rate: 8000, burst: 16_384, queue: 32_768 });
        let fast = Bucket::of(10_000_000);
        assert_eq!(fast, Bucket { rate: 1_250_000_000, burst: 25_000_000, queue: 250_000_000 });
    }
}
