//! Copies and thins out sparse files: holes stay holes, and blocks of zeros become holes.
//!
//! Blocking; knows nothing of templates and sandboxes.

use std::{
    fs::File,
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
};

use rustix::{
    fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, ioctl_ficlone, seek},
    io::Errno,
};

/// Read and compared at once; holes smaller than this are not worth their extent.
pub(super) const BLOCK: usize = 64 * 1024;

/// One run of data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    start: u64,
    end: u64,
}

/// Makes `to`, which is empty, share all blocks of `from`.
pub(super) fn clone(from: &File, to: &File) -> io::Result<()> {
    Ok(ioctl_ficlone(to, from)?)
}

/// Copies the data of `from` into `to`, which is empty, and leaves out the holes.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let mut at = 0;
    while let Some(extent) = next_data(from, at)? {
        copy_extent(from, to, extent)?;
        at = extent.end;
    }
    Ok(())
}

/// The same, but never sharing blocks with `from`, as the kernel may do it where the file system can.
pub(super) fn copy_apart(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let mut at = 0;
    while let Some(extent) = next_data(from, at)? {
        copy_by_hand(from, to, extent)?;
        at = extent.end;
    }
    Ok(())
}

/// Turns blocks of zeros into holes and returns how many bytes the file then occupies.
pub(super) fn punch_zeros(file: &File) -> io::Result<u64> {
    let mut buffer = vec![0_u8; BLOCK];
    let mut at = 0;
    while let Some(extent) = next_data(file, at)? {
        let mut start = extent.start;
        while start < extent.end {
            let length = BLOCK.min(usize::try_from(extent.end - start).unwrap_or(BLOCK));
            file.read_exact_at(&mut buffer[..length], start)?;
            if is_zero(&buffer[..length]) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                match fallocate(file, flags, start, length as u64) {
                    // A file system without holes keeps its zeros: nothing is lost but room.
                    Ok(()) | Err(Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            start += length as u64;
        }
        at = extent.end;
    }
    Ok(file.metadata()?.blocks() * 512)
}

/// Whether a block, of at most [`BLOCK`], is all zeros.
pub(super) fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    block == &ZEROS[..block.len()]
}

fn next_data(file: &File, from: u64) -> io::Result<Option<Extent>> {
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        // No data from here to the end.
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    Ok(Some(Extent { start, end }))
}

fn copy_extent(from: &File, to: &File, extent: Extent) -> io::Result<()> {
    let (mut source, mut target) = (extent.start, extent.start);
    while source < extent.end {
        let length = usize::try_from(extent.end - source).unwrap_or(usize::MAX);
        let copied =
            copy_file_range(from.as_fd(), Some(&mut source), to.as_fd(), Some(&mut target), length);
        match copied {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // Another file system, or one that cannot do it in the kernel.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, Extent { start: source, end: extent.end });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, extent: Extent) -> io::Result<()> {
    let mut buffer = vec![0_u8; BLOCK];
    let mut at = extent.start;
    while at < extent.end {
        let length = BLOCK.min(usize::try_from(extent.end - at).unwrap_or(BLOCK));
        from.read_exact_at(&mut buffer[..length], at)?;
        to.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// 64 MiB long: data at 0, zeros written at 8 MiB, data at 32 MiB, a hole at the end.
    fn sample() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * MIB).unwrap();
        file.write_all_at(&vec![7; 100_000], 0).unwrap();
        file.write_all_at(&vec![0; 2 * MIB as usize], 8 * MIB).unwrap();
        file.write_all_at(&vec![9; 100_000], 32 * MIB).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn copy_has_the_same_bytes_and_keeps_holes() {
        let (from, to) = (sample(), tempfile::tempfile().unwrap());
        copy(&from, &to).unwrap();
        assert_eq!(content(&from), content(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 4 * MIB);
    }

    #[test]
    fn copy_by_hand_has_the_same_bytes() {
        let (from, to) = (sample(), tempfile::tempfile().unwrap());
        to.set_len(64 * MIB).unwrap();
        copy_by_hand(&from, &to, Extent { start: 0, end: 64 * MIB }).unwrap();
        assert_eq!(content(&from), content(&to));
    }

    #[test]
    fn zeros_become_holes_and_data_stays() {
        let file = sample();
        let before = content(&file);
        let bytes = punch_zeros(&file).unwrap();
        assert!(bytes < MIB, "{bytes}");
        assert_eq!(content(&file), before);
    }

    #[test]
    fn empty_file_copies_to_an_empty_file() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        copy(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 0);
    }
}
