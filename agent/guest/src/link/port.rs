//! The virtio-serial port as a file, and the wait for a host on it.
//!
//! Without a host, poll reports readable and hung up at once and for ever, a read gives 0 bytes and a
//! write would block; the runtime's own readiness never comes back from a hang-up. So the wait for a
//! host has an edge-triggered epoll of its own, and each session registers a fresh duplicate.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use ovenbird_guest_protocol::PORT_NAME;
use tokio::io::{Interest, unix::AsyncFd};

use super::Error;

/// The open port.
pub(super) struct Port {
    file: fs::File,
}

impl Port {
    pub(super) fn open() -> Result<Self, Error> {
        let path = find()?.ok_or(Error::NoPort)?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        Ok(Self { file })
    }

    /// A duplicate that the runtime has not seen yet.
    #[allow(unsafe_code)]
    pub(super) fn duplicate(&self) -> std::io::Result<AsyncFd<OwnedFd>> {
        let duplicate = self.file.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned, open, and never replaced while it is registered.
        Ok(unsafe { AsyncFd::register(duplicate) }?)
    }

    /// Waits until a host has the other end open. Reads nothing: what a host has sent is for the
    /// session, and a read while hung up could swallow it.
    #[allow(unsafe_code)]
    pub(super) async fn wait_for_host(&self) -> Result<(), Error> {
        let edges = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(std::io::Error::from)?;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        edges.add(&self.file, EpollEvent::new(interest, 0)).map_err(std::io::Error::from)?;
        // SAFETY: the descriptor is owned, open, and never replaced while it is registered.
        let edges = unsafe { AsyncFd::register_with_interest(Edges(edges), Interest::READABLE) }
            .map_err(std::io::Error::from)?;
        loop {
            if self.has_host()? {
                return Ok(());
            }
            let mut ready = edges.readable().await?;
            // Taking the events is what arms the next edge; the loop looks at the port afterwards.
            let mut events = [EpollEvent::empty()];
            edges
                .get_ref()
                .0
                .wait(&mut events, EpollTimeout::ZERO)
                .map_err(std::io::Error::from)?;
            ready.clear_ready();
        }
    }

    fn has_host(&self) -> std::io::Result<bool> {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO)?;
        Ok(!fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
    }
}

struct Edges(Epoll);

impl AsRawFd for Edges {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Edges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// The device of the port with our name.
fn find() -> std::io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir("/sys/class/virtio-ports") {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(Some(PathBuf::from("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}
