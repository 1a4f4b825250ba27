//! A place in a file that moves by itself: several readers of one file do not share one.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
};

/// Reads from the start.
pub(crate) struct At<'a> {
    file: &'a File,
    place: u64,
}

impl<'a> At<'a> {
    pub(crate) fn start(file: &'a File) -> Self {
        Self { file, place: 0 }
    }
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.place)?;
        self.place += read as u64;
        Ok(read)
    }
}
