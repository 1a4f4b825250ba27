//! The root file system held still, so that the host can copy the disk: ext4 here has no journal, and a copy taken
//! in the middle of a write would be a damaged one.
//!
//! ```text
//!  loose ── freeze ──► held ── thaw, or its time is over ──► loose
//! ```
//!
//! A host that dies in between must not leave the guest stuck, so the hold ends by itself.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::errno::Errno;
use tokio::task::AbortHandle;

use crate::{boot::raw, console::say, error::Error};

/// Longest time between freeze and thaw, in the guest's own time.
const HOLD_MAX: Duration = Duration::from_secs(60);

// From linux/fs.h. The argument is not used.
nix::ioctl_readwrite!(freeze_file_system, b'X', 119, i32);
nix::ioctl_readwrite!(thaw_file_system, b'X', 120, i32);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Freezer {
    /// Ends the hold.
    timer: Mutex<Option<AbortHandle>>,
}

impl Freezer {
    /// Writes everything that is dirty, and holds the file system still for at most `hold`.
    pub(crate) async fn freeze(self: &Arc<Self>, hold: Duration) -> Result<(), Error> {
        self.disarm();
        let frozen = tokio::task::spawn_blocking(freeze_root).await.map_err(io::Error::other);
        frozen.flatten().map_err(Error::system("freezing the root file system"))?;
        let freezer = self.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(hold.min(HOLD_MAX)).await;
            match freezer.thaw() {
                Ok(true) => say!("the root file system was held for too long and is let go"),
                Ok(false) => {}
                Err(error) => say!("the root file system stays frozen: {error}"),
            }
        });
        let mut slot = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = slot.replace(timer.abort_handle()) {
            earlier.abort();
        }
        Ok(())
    }

    /// Lets the file system go; whether it was held. Not in a thread of its own: all of those may be waiting for
    /// just this.
    pub(crate) fn thaw(&self) -> Result<bool, Error> {
        let thawed = thaw_root();
        self.disarm();
        thawed.map_err(Error::system("thawing the root file system"))
    }

    fn disarm(&self) {
        if let Some(timer) = self.timer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            timer.abort();
        }
    }
}

#[allow(unsafe_code)]
fn freeze_root() -> io::Result<()> {
    let root = File::open("/")?;
    let mut unused = 0;
    // SAFETY: the descriptor is open, and the pointer is to an integer that the call may use.
    match unsafe { freeze_file_system(raw(&root), &raw mut unused) } {
        // It is held already.
        Ok(_) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[allow(unsafe_code)]
fn thaw_root() -> io::Result<bool> {
    let root = File::open("/")?;
    let mut unused = 0;
    // SAFETY: as above.
    match unsafe { thaw_file_system(raw(&root), &raw mut unused) } {
        Ok(_) => Ok(true),
        // It was not held.
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
