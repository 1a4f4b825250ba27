//! Makes taps, and opens them for machines, so that a machine itself needs no right to do so.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::Identity;

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

nix::ioctl_write_int_bad!(
    /// TUNSETPERSIST.
    set_persistent,
    nix::request_code_write!(b'T', 203, size_of::<libc::c_int>())
);
nix::ioctl_write_int_bad!(
    /// TUNSETOWNER.
    set_owner,
    nix::request_code_write!(b'T', 204, size_of::<libc::c_int>())
);
nix::ioctl_write_int_bad!(
    /// TUNSETGROUP.
    set_group,
    nix::request_code_write!(b'T', 206, size_of::<libc::c_int>())
);

/// Makes the tap `name` in the network namespace of the calling thread. It stays until the namespace goes, and
/// only `owner` may open it without further rights.
pub(crate) fn create(name: &str, owner: Identity) -> io::Result<()> {
    let tun = open(name)?;
    let number = |id: u32| i32::try_from(id).map_err(io::Error::other);
    let (user, group) = (number(owner.uid)?, number(owner.gid)?);
    let descriptor = tun.as_raw_fd();
    #[allow(unsafe_code)]
    // SAFETY: all three take a number, and none reads or writes memory.
    unsafe {
        set_owner(descriptor, user)?;
        set_group(descriptor, group)?;
        set_persistent(descriptor, 1)?;
    }
    Ok(())
}

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
