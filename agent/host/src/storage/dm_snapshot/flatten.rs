//! Writes a disk out as a plain file: blocks of zeros become holes.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
};

use crate::storage::{
    own,
    sparse::{self, BLOCK},
};

/// Copies `disk` to `target`, owned by root and read-only, and returns the bytes that it occupies. No target is
/// left when this fails.
pub(super) fn flatten(disk: &Path, bytes: u64, target: &Path) -> io::Result<u64> {
    let source = own::open(OpenOptions::new().read(true), disk)?;
    let written = (|| {
        let file = own::create(target)?;
        file.set_len(bytes)?;
        copy(&source, &file, bytes)?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        Ok(file.metadata()?.blocks() * 512)
    })();
    if written.is_err() {
        own::remove_file(target)?;
    }
    written
}

fn copy(mut source: &File, file: &File, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0_u8; BLOCK];
    let mut at = 0;
    while at < bytes {
        let length = BLOCK.min(usize::try_from(bytes - at).unwrap_or(BLOCK));
        let block = &mut buffer[..length];
        source.read_exact(block)?;
        if !sparse::is_zero(block) {
            file.write_all_at(block, at)?;
        }
        at += length as u64;
    }
    Ok(())
}
