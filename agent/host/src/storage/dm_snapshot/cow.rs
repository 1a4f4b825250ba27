//! The file that holds what a disk differs in from its origin, in the kernel's own persistent format.
//!
//! The file is never longer than what the file system has set aside for it, and the kernel never fills more than
//! its length. So a full file system cannot take the ground from under a snapshot, which would lose all of it: the
//! snapshot overflows instead, and what is in it can still be read.

use std::{fs::File, io, path::Path};

use rustix::fs::{FallocateFlags, fallocate};

use crate::storage::{own, sparse};

/// The kernel copies so much at a time; a table has it in sectors.
pub(super) const CHUNK: u64 = 4096;
pub(super) const CHUNK_SECTORS: u64 = CHUNK / 512;
/// Chunks that one chunk of the kernel's bookkeeping tells of.
const CHUNKS_PER_AREA: u64 = CHUNK / 16;

/// How much is set aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reserve {
    /// At first, and more at a time.
    pub(super) step: u64,
}

impl Reserve {
    /// How long the file of a new disk is.
    pub(super) fn first(self, disk_bytes: u64) -> u64 {
        self.step.min(bytes_max(disk_bytes))
    }

    /// How long a file should become; `None` while there is room enough.
    pub(super) fn next(self, used: u64, total: u64, disk_bytes: u64) -> Option<u64> {
        let max = bytes_max(disk_bytes);
        let is_low = total.saturating_sub(used) < self.step / 2;
        (is_low && total < max).then(|| total.saturating_add(self.step).min(max))
    }
}

/// As much as a disk of this length can ever fill: each chunk, what tells of them, and the header.
fn bytes_max(disk_bytes: u64) -> u64 {
    let chunks = disk_bytes.div_ceil(CHUNK);
    (chunks + chunks.div_ceil(CHUNKS_PER_AREA) + 2) * CHUNK
}

/// An empty one.
pub(super) fn create(path: &Path, bytes: u64) -> io::Result<()> {
    extend(&own::create(path)?, bytes)
}

/// Sets aside as much, and makes the file as long. What it holds stays.
pub(super) fn extend(file: &File, bytes: u64) -> io::Result<()> {
    // In one call: the file has the length when the room is there.
    Ok(fallocate(file, FallocateFlags::empty(), 0, bytes)?)
}

/// Puts a copy of `from` in the place of `to`, at once or not at all, with blocks of its own: if it shared them, the
/// room for changing them would not be set aside any more.
pub(super) fn copy(from: &Path, to: &Path, is_for_use: bool) -> io::Result<File> {
    let source = own::open(std::fs::OpenOptions::new().read(true), from)?;
    let bytes = source.metadata()?.len();
    let (file, ()) = own::replace(to, |copy| {
        sparse::copy_apart(&source, copy)?;
        if is_for_use { extend(copy, bytes) } else { Ok(()) }
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn reserve_runs_ahead_of_what_is_filled_and_ends_with_the_disk() {
        let reserve = Reserve { step: 64 * MIB };
        assert_eq!(reserve.first(1024 * MIB), 64 * MIB);
        assert_eq!(reserve.next(32 * MIB, 64 * MIB, 1024 * MIB), None);
        assert_eq!(reserve.next(32 * MIB + 1, 64 * MIB, 1024 * MIB), Some(128 * MIB));
        // A disk of one MiB: 256 chunks, one of bookkeeping for each of 256, the header, and one to spare.
        assert_eq!(reserve.first(MIB), (256 + 1 + 2) * CHUNK);
        assert_eq!(reserve.next(MIB, (256 + 1 + 2) * CHUNK, MIB), None);
    }
}
