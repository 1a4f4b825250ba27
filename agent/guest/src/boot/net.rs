//! The network inside the VM: the loopback and `eth0` with the addresses that every sandbox has, so
//! that a fork needs no new ones. The host gives each its own face outside.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
};

use super::raw;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 252);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const DEVICE: &str = "eth0";

/// A request to the kernel failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Error {
    what: &'static str,
    source: io::Error,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { what, source }
}

/// Brings both up. A VM without a network card has only the loopback.
pub(super) fn set_up() -> Result<(), Error> {
    // Any socket serves to name the network stack.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed("opening a socket"))?;
    let up = |device| set_flags(&socket, device, libc::IFF_UP | libc::IFF_RUNNING);
    up("lo").map_err(failed("bringing up lo"))?;
    if !Path::new("/sys/class/net").join(DEVICE).exists() {
        return Ok(());
    }
    set_address(&socket, libc::SIOCSIFADDR, ADDRESS).map_err(failed("setting the address"))?;
    set_address(&socket, libc::SIOCSIFNETMASK, MASK).map_err(failed("setting the mask"))?;
    up(DEVICE).map_err(failed("bringing up eth0"))?;
    set_gateway(&socket, GATEWAY).map_err(failed("setting the gateway"))
}

fn request(device: &str) -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}

#[allow(unsafe_code)]
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain data of the same 16 bytes; this is how the interface is meant.
    unsafe { std::mem::transmute(inet) }
}

fn set_flags(socket: &UdpSocket, device: &str, flags: i32) -> io::Result<()> {
    let mut request = request(device);
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or_default();
    control(socket, libc::SIOCSIFFLAGS, &request)
}

fn set_address(socket: &UdpSocket, what: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(DEVICE);
    request.ifr_ifru.ifru_addr = socket_address(address);
    control(socket, what, &request)
}

#[allow(unsafe_code)]
fn set_gateway(socket: &UdpSocket, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: a route of zeros is a valid value: numbers and a null pointer.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    control(socket, libc::SIOCADDRT, &route)
}

#[allow(unsafe_code)]
fn control<T>(socket: &UdpSocket, what: libc::c_ulong, argument: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open, and each caller passes the structure that its request reads;
    // none of the requests used here writes to it.
    let done = unsafe { libc::ioctl(raw(socket), what, std::ptr::from_ref(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
