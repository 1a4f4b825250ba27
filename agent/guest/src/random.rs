//! Fresh entropy for the kernel's generator: two forks of one snapshot would otherwise draw the same
//! first random bytes.

use std::{fs::OpenOptions, io, os::fd::AsRawFd};

/// `struct rand_pool_info` of linux/random.h, with room for one HELLO's bytes.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; 32],
}

// Declared in linux/random.h with `int[2]`, the header of the structure.
nix::ioctl_write_ptr_bad!(add_entropy, nix::request_code_write!(b'R', 0x03, 8), PoolInfo);
nix::ioctl_none!(reseed_generator, b'R', 0x07);

/// Credits the bytes and makes every generator start from them at once.
#[allow(unsafe_code)]
pub(crate) fn reseed(entropy: [u8; 32]) -> io::Result<()> {
    let device = OpenOptions::new().write(true).open("/dev/urandom")?;
    let info = PoolInfo { entropy_bits: 256, bytes: 32, buffer: entropy };
    // SAFETY: the descriptor is open, and `info` has the layout that the request reads, with `bytes`
    // as long as its buffer. The second request takes no argument.
    unsafe {
        add_entropy(device.as_raw_fd(), &raw const info)?;
        reseed_generator(device.as_raw_fd())?;
    }
    Ok(())
}
