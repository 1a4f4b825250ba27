//! The way to end what is read in a thread that nobody can cancel.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Says that nobody waits for an archive any more. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends every reading under way soon, with [`Error::Read`](crate::Error::Read).
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once it is stopped.
    pub(crate) fn look(&self) -> io::Result<()> {
        match self.is_stopped() {
            // As if the disk had said it: it is not the archive's fault.
            true => Err(io::Error::from_raw_os_error(ECANCELED)),
            false => Ok(()),
        }
    }

    /// A content that ends with an error once it is stopped.
    pub(crate) fn of<'a>(&'a self, content: &'a mut dyn Read) -> impl Read + 'a {
        Stoppable { stop: self, content }
    }
}

struct Stoppable<'a> {
    stop: &'a Stop,
    content: &'a mut dyn Read,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.look()?;
        self.content.read(buffer)
    }
}

/// Of Linux.
const ECANCELED: i32 = 125;
