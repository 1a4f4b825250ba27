//! What may be read until somebody looks again. A tar archive's headers, long names included, are read into memory in
//! one go, so what stands between two contents must have a bound; and so must all of it together, since in gzip it is
//! next to nothing.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

use crate::{
    error::{Code, Refused},
    limits::{HEADERS_BYTES_ALL, HEADERS_BYTES_MAX},
};

/// Bytes that are allowed; clones are the same.
#[derive(Clone)]
pub(crate) struct Allowance(Rc<Left>);

struct Left {
    /// Until somebody looks again.
    now: Cell<u64>,
    /// To the end of the archive.
    in_all: Cell<u64>,
}

impl Allowance {
    pub(crate) fn new() -> Self {
        Self(Rc::new(Left { now: Cell::new(0), in_all: Cell::new(HEADERS_BYTES_ALL) }))
    }

    /// What stands between two contents.
    pub(crate) fn headers(&self) {
        self.0.now.set(HEADERS_BYTES_MAX);
    }

    /// A content that somebody else counts.
    pub(crate) fn content(&self, bytes: u64) {
        self.0.now.set(bytes);
        self.0.in_all.set(self.0.in_all.get().saturating_add(bytes));
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
        let (now, in_all) = (self.allowance.0.now.get(), self.allowance.0.in_all.get());
        let left = usize::try_from(now.min(in_all)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        if length == 0 && !buffer.is_empty() {
            let refused = if now == 0 {
                let message = "has headers that are longer than any name";
                Refused::archive(Code::BrokenArchive, message)
            } else {
                let message = format!(
                    "has more than {HEADERS_BYTES_ALL} bytes of headers, which only a bomb has"
                );
                Refused::archive(Code::CompressedTooMuch, message)
            };
            return Err(io::Error::other(refused));
        }
        let read = self.inner.read(&mut buffer[..length])?;
        self.allowance.0.now.set(now - read as u64);
        self.allowance.0.in_all.set(in_all - read as u64);
        Ok(read)
    }
}
