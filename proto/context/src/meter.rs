//! What may be read until somebody looks again. A tar archive's headers, long names included, are read into memory in
//! one go, so what stands between two contents must have a bound.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use crate::error::{Code, Refused};

/// Bytes that are allowed; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    pub(crate) fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

/// Reads no more than allowed.
pub(crate) struct Metered<R> {
    inner: R,
    allowance: Allowance,
}

impl<R> Metered<R> {
    pub(crate) fn new(inner: R, allowance: Allowance) -> Self {
        Self { inner, allowance }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.get();
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 && !buffer.is_empty() {
            let message = "has headers that are longer than any name";
            return Err(io::Error::other(Refused::archive(Code::BrokenArchive, message)));
        }
        let read = self.inner.read(&mut buffer[..length])?;
        self.allowance.0.set(left - read as u64);
        Ok(read)
    }
}
