//! The machine of a memory guest: a socket, and a task that answers on it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use async_trait::async_trait;
use ovenbird_host::vm::{
    Accelerator, Adopted, Ending, Error, Hypervisor, Machine, MachineSpec, Platform, Saved, Start,
    file,
};
use rustix::fs::{Mode, OFlags, open};
use tokio::net::UnixListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::guest;
use crate::guest_link::Token;

/// Starts machines that are tasks.
#[derive(Debug, Clone, Copy)]
pub struct MemoryHypervisor;

#[async_trait]
impl Hypervisor for MemoryHypervisor {
    fn platform(&self) -> Platform {
        Platform {
            hypervisor: "memory".into(),
            accelerator: Accelerator::Tcg,
            cpu: "none".into(),
            devices: "none".into(),
            tsc_khz: 0,
        }
    }

    async fn launch(&self, spec: &MachineSpec, _: Start) -> Result<Box<dyn Machine>, Error> {
        let failed = |source| Error::Io { name: spec.name.clone(), action: "listen", source };
        let token = token(&spec.kernel_arguments)
            .ok_or_else(|| failed(io::Error::other("no token among the kernel's arguments")))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(spec.directory.path(), flags, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        spec.directory.discard(file::GUEST_SOCKET).map_err(failed)?;
        // A directory's path may be too long for a socket's address.
        let socket = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), file::GUEST_SOCKET);
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let off = CancellationToken::new();
        let killed = CancellationToken::new();
        tokio::spawn(killed.clone().run_until_cancelled_owned(guest::serve(
            listener,
            token,
            off.clone(),
        )));
        Ok(Box::new(MemoryMachine {
            spec: spec.clone(),
            socket: socket.into(),
            _directory: directory,
            off,
            killed: killed.clone(),
            _end: killed.drop_guard(),
        }))
    }

    /// They end with their agent.
    async fn adopt(&self, _: &MachineSpec) -> Result<Option<Adopted>, Error> {
        Ok(None)
    }
}

fn token(arguments: &str) -> Option<Token> {
    let words = arguments.split_whitespace();
    let hex = words.filter_map(|word| word.strip_prefix("ovenbird.token=")).next()?;
    Token::from_hex(hex).ok()
}

#[derive(Debug)]
struct MemoryMachine {
    spec: MachineSpec,
    socket: PathBuf,
    _directory: OwnedFd,
    off: CancellationToken,
    killed: CancellationToken,
    /// Ends the task that nobody awaits: it holds nothing but the socket.
    _end: DropGuard,
}

#[async_trait]
impl Machine for MemoryMachine {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn guest_socket(&self) -> PathBuf {
        self.socket.clone()
    }

    async fn pause(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn resume(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn save(&self, _: Saved) -> Result<(), Error> {
        let saved = self.spec.directory.add(file::STATE, 1).map(drop);
        saved.map_err(|source| Error::Io { name: self.spec.name.clone(), action: "save", source })
    }

    async fn console_tail(&self, _: usize) -> String {
        String::new()
    }

    async fn ended(&self) -> Ending {
        tokio::select! {
            () = self.off.cancelled() => Ending::Guest,
            () = self.killed.cancelled() => Ending::Process,
        }
    }

    async fn kill(&self) -> Result<(), Error> {
        self.killed.cancel();
        Ok(())
    }
}
