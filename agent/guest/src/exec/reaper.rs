//! Every process without a parent becomes a child of PID 1. This waits for all of them, and tells the
//! owners of those that are commands.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    process::Child,
    sync::{Mutex, PoisonError},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// A command's status: its exit code, or 128 and the signal that ended it.
pub(super) type Code = i32;

/// Who waits for which process.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    waiting: Mutex<HashMap<i32, oneshot::Sender<Code>>>,
}

impl Reaper {
    /// Starts a child and waits for it from its first moment: the lock is held meanwhile, so that it
    /// cannot be reaped before it is known.
    pub(super) fn start(
        &self,
        spawn: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<(u32, oneshot::Receiver<Code>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = spawn()?.id();
        let (tell, told) = oneshot::channel();
        waiting.insert(pid.cast_signed(), tell);
        Ok((pid, told))
    }

    /// Reaps for as long as the machine runs.
    pub(super) async fn run(&self) -> Infallible {
        let mut children = signal(SignalKind::child()).expect("PID 1 may handle SIGCHLD");
        loop {
            self.reap();
            children.recv().await;
        }
    }

    #[allow(unsafe_code)]
    fn reap(&self) {
        loop {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let mut status = 0;
            // SAFETY: `status` is a place for one int. Not nix: it fails on real-time signals, after
            // the kernel has already forgotten the child.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            if let Some(tell) = waiting.remove(&pid) {
                // Whoever stopped waiting does not need to know.
                let _ = tell.send(code);
            }
        }
    }
}
