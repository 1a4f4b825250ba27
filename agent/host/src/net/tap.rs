//! Opens a tap for a machine, so that the machine itself needs no right to do so.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// `struct ifreq` with `ifr_flags`.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(
    /// TUNSETIFF.
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    Request
);

/// Opens the tap `name` in the network namespace of the calling thread, as QEMU expects it: not blocking,
/// with the header of virtio-net.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.flags = u16::try_from(flags).map_err(io::Error::other)?;
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    #[allow(unsafe_code)]
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose size and layout `Request` has.
    unsafe {
        set_interface(tun.as_raw_fd(), &raw const request)?;
    }
    rustix::io::ioctl_fionbio(&tun, true)?;
    Ok(tun.into())
}
