//! The root disk: mounted from `/dev/vda`, and its ext4 grown to the disk's size.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MsFlags, mount};

use super::{mounts::NEW_ROOT, raw};

const DEVICE: &str = "/dev/vda";
/// The driver makes the device while it loads, so this is only for a machine under load.
const DEVICE_WITHIN: Duration = Duration::from_secs(5);

// From linux/fs.h and fs/ext4/ext4.h.
nix::ioctl_read!(block_device_size, 0x12, 114, u64);
nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);

/// Why there is no root disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no {DEVICE} within {} s", DEVICE_WITHIN.as_secs())]
    NoDevice,
    #[error("mounting {DEVICE} as ext4")]
    Mount(#[source] nix::Error),
    #[error("reading {DEVICE}")]
    Read(#[source] io::Error),
    #[error("growing the file system")]
    Grow(#[source] nix::Error),
}

/// Mounts the root disk where [`super::mounts::switch_root`] expects it.
pub(super) fn mount_root() -> Result<(), Error> {
    let deadline = Instant::now() + DEVICE_WITHIN;
    while !Path::new(DEVICE).exists() {
        if Instant::now() > deadline {
            return Err(Error::NoDevice);
        }
        thread::sleep(Duration::from_millis(1));
    }
    std::fs::create_dir_all(NEW_ROOT).map_err(Error::Read)?;
    mount(Some(DEVICE), NEW_ROOT, Some("ext4"), MsFlags::MS_RELATIME, None::<&str>)
        .map_err(Error::Mount)
}

/// Grows the mounted root file system online when its disk is larger than it.
#[allow(unsafe_code)]
pub(super) fn grow_root() -> Result<(), Error> {
    let device = File::open(DEVICE).map_err(Error::Read)?;
    let mut superblock = [0; 1024];
    device.read_exact_at(&mut superblock, 1024).map_err(Error::Read)?;
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and the request writes one u64 to the pointer.
    unsafe { block_device_size(raw(&device), &raw mut bytes) }.map_err(Error::Grow)?;
    let Some(blocks) = blocks_to_grow_to(&superblock, bytes) else { return Ok(()) };
    let root = File::open("/").map_err(Error::Read)?;
    // SAFETY: the descriptor is open, and the request reads one u64 from the pointer.
    unsafe { ext4_resize(raw(&root), &raw const blocks) }.map_err(Error::Grow)?;
    Ok(())
}

/// How many blocks the file system is to have, if that is more than it has.
fn blocks_to_grow_to(superblock: &[u8; 1024], device_bytes: u64) -> Option<u64> {
    // Offsets of `struct ext4_super_block`.
    let word = |at: usize| {
        u32::from_le_bytes(superblock[at..at + 4].try_into().expect("four bytes are four bytes"))
    };
    // At most 64 KiB, or it is no superblock.
    let block_size = 1024_u64 << Some(word(0x18)).filter(|shift| *shift <= 6)?;
    let wide = word(0x60) & 0x80 != 0;
    let high = if wide { u64::from(word(0x150)) } else { 0 };
    let blocks = high << 32 | u64::from(word(0x04));
    let wanted = device_bytes / block_size;
    (wanted > blocks).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(blocks: u32, log_block_size: u32) -> [u8; 1024] {
        let mut block = [0; 1024];
        block[0x04..0x08].copy_from_slice(&blocks.to_le_bytes());
        block[0x18..0x1c].copy_from_slice(&log_block_size.to_le_bytes());
        block
    }

    #[test]
    fn file_system_grows_only_to_a_larger_disk() {
        let block = superblock(1000, 2);
        assert_eq!(blocks_to_grow_to(&block, 1000 * 4096), None);
        assert_eq!(blocks_to_grow_to(&block, 999 * 4096), None);
        assert_eq!(blocks_to_grow_to(&block, 2000 * 4096 + 5), Some(2000));
    }

    #[test]
    fn nonsense_in_the_superblock_grows_nothing() {
        assert_eq!(blocks_to_grow_to(&superblock(1, 60), u64::MAX), None);
        assert_eq!(blocks_to_grow_to(&superblock(1, 500), u64::MAX), None);
    }
}
