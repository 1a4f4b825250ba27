//! Length and digest of a template's file, whatever holes it has.
//!
//! The digest is SHA-256 over the blocks of 64 KiB that hold anything but zeros, each after its number, and the
//! length at the end. So it costs what the data costs, and a copy with other holes has the same. Blocking.

use std::{fs::File, io, os::unix::fs::FileExt};

use ring::digest::{Context, SHA256};
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use serde::{Deserialize, Serialize};

const BLOCK: u64 = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// The file's length.
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256_blocks: String,
}

impl FileDigest {
    /// Reads the whole file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut digest = Context::new(&SHA256);
        let mut buffer = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
        let mut at = 0;
        while let Some(data) = next_data(file, at)? {
            // An extent may begin inside of a block.
            let start = data / BLOCK * BLOCK;
            let length = usize::try_from(BLOCK.min(bytes - start)).unwrap_or(buffer.len());
            let block = &mut buffer[..length];
            file.read_exact_at(block, start)?;
            if block.iter().any(|byte| *byte != 0) {
                digest.update(&(start / BLOCK).to_le_bytes());
                digest.update(block);
            }
            at = start + BLOCK;
        }
        digest.update(&bytes.to_le_bytes());
        Ok(Self { bytes, sha256_blocks: hex::encode(digest.finish()) })
    }
}

/// The first byte from `at` on that is in no hole.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        // No data from here to the end.
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: u64, data: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        for (at, bytes) in data {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    #[test]
    fn digest_is_the_same_with_other_holes_and_another_with_other_data_place_or_length() {
        let digest = |file: &File| FileDigest::of(file).unwrap().sha256_blocks;
        let length = 10 * BLOCK + 5;
        let base = digest(&file(length, &[(3 * BLOCK + 7, b"data"), (length - 1, b"x")]));
        let filled = vec![0; 2 * 65536];
        let same = file(length, &[(0, &filled), (3 * BLOCK + 7, b"data"), (length - 1, b"x")]);
        assert_eq!(digest(&same), base);
        let others = [
            file(length, &[(3 * BLOCK + 7, b"dat."), (length - 1, b"x")]),
            file(length, &[(4 * BLOCK + 7, b"data"), (length - 1, b"x")]),
            file(length, &[(3 * BLOCK + 7, b"data")]),
            file(length + 1, &[(3 * BLOCK + 7, b"data"), (length - 1, b"x")]),
        ];
        for other in others {
            assert_ne!(digest(&other), base);
        }
        assert_eq!(FileDigest::of(&file(0, &[])).unwrap().bytes, 0);
    }
}
