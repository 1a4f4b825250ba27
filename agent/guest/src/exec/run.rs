//! One command from its start to its end: reads both pipes while there is room, keeps the time limit,
//! and decides when the output is over.
//!
//! The output is over when the command's own process has exited and both pipes are closed; or, when a
//! background child keeps a pipe open, once everything that lay in the pipes at the exit was read and
//! they have then been silent for [`GRACE`], or [`GRACE_MAX`] has passed.

use std::{future::pending, io, os::fd::AsRawFd, sync::Arc, time::Duration};

use tokio::{
    net::unix::pipe::Receiver,
    time::{Instant, sleep_until},
};

use super::{Exec, launch::Launched, output::Source};
use crate::console::say;

const GRACE: Duration = Duration::from_millis(100);
const GRACE_MAX: Duration = Duration::from_secs(1);
/// What is read at once.
const READ_MAX: usize = 32 * 1024;

/// How a command ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) code: i32,
    pub(super) timed_out: bool,
    pub(super) error: String,
    pub(super) elapsed: Duration,
}

/// What follows the exit of the command's own process.
struct Exited {
    code: i32,
    at: Instant,
    /// Bytes that lay in each pipe then and were not read yet.
    left: [usize; 2],
    last_read: Instant,
}

impl Exited {
    /// When the wait for background children ends, if nothing is read meanwhile.
    fn deadline(&self) -> Instant {
        (self.last_read + GRACE).min(self.at + GRACE_MAX)
    }
}

/// Runs a command to its end. Returns the pipes that background children still hold open.
pub(super) async fn run(
    exec: Arc<Exec>,
    launched: Launched,
    timeout: Option<Duration>,
) -> (End, Pipes) {
    let Launched { mut exit, stdout, stderr, .. } = launched;
    let started = Instant::now();
    let mut pipes = Pipes::new(stdout, stderr);
    let mut changed = exec.subscribe();
    let mut time_limit = timeout.map(|timeout| started + timeout);
    let mut timed_out = false;
    let mut exited: Option<Exited> = None;
    loop {
        changed.mark_unchanged();
        let room = exec.room();
        if let Some(exited) = &exited
            && (!pipes.open() || (exited.left == [0; 2] && Instant::now() >= exited.deadline()))
        {
            break;
        }
        tokio::select! {
            code = &mut exit, if exited.is_none() => {
                let now = Instant::now();
                // The reaper lives as long as the machine, so it never stops telling.
                let code = code.unwrap_or(-1);
                exited = Some(Exited { code, at: now, left: pipes.waiting(), last_read: now });
            }
            () = until(time_limit), if exited.is_none() => {
                timed_out = true;
                time_limit = None;
                if let Err(error) = exec.kill() {
                    say!("a command whose time was over could not be killed: {error}");
                }
            }
            (source, read) = pipes.read(room), if room > 0 && pipes.open() => {
                exec.push(source, read);
                if let Some(exited) = &mut exited {
                    let left = &mut exited.left[source as usize];
                    // A closed pipe has nothing left, whatever was counted.
                    *left = if read.is_empty() { 0 } else { left.saturating_sub(read.len()) };
                    exited.last_read = Instant::now();
                }
            }
            _ = changed.changed(), if room == 0 => {}
            () = until(exited.as_ref().filter(|e| e.left == [0; 2]).map(Exited::deadline)) => {}
        }
    }
    let (code, at) = exited.map_or((-1, started), |exited| (exited.code, exited.at));
    let error = exec.blame(code, timed_out);
    (End { code, timed_out, error, elapsed: at - started }, pipes)
}

/// Sleeps until then, or for ever.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => pending().await,
    }
}

/// Our ends of a command's pipes.
pub(super) struct Pipes {
    pipes: [Option<Receiver>; 2],
    buffer: Box<[u8]>,
    /// Which is looked at first: they take turns, so that a busy one does not hide the other.
    turn: usize,
}

const SOURCES: [Source; 2] = [Source::Stdout, Source::Stderr];

impl Pipes {
    fn new(stdout: Receiver, stderr: Receiver) -> Self {
        let buffer = vec![0; READ_MAX].into_boxed_slice();
        Self { pipes: [Some(stdout), Some(stderr)], buffer, turn: 0 }
    }

    /// Whether anybody can still write.
    pub(super) fn open(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }

    /// Reads at most `room` bytes from one of them. Nothing is read when it is dropped before it is
    /// ready. An empty read is a pipe that was closed.
    async fn read(&mut self, room: usize) -> (Source, &[u8]) {
        let max = room.min(self.buffer.len());
        loop {
            self.turn ^= 1;
            for index in [self.turn, self.turn ^ 1] {
                let Some(pipe) = &self.pipes[index] else { continue };
                match pipe.try_read(&mut self.buffer[..max]) {
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                        ) => {}
                    Ok(read) if read > 0 => return (SOURCES[index], &self.buffer[..read]),
                    Ok(_) | Err(_) => {
                        self.pipes[index] = None;
                        return (SOURCES[index], &[]);
                    }
                }
            }
            let [stdout, stderr] = &self.pipes;
            tokio::select! {
                () = readable(stdout.as_ref()) => {}
                () = readable(stderr.as_ref()) => {}
            }
        }
    }

    /// Bytes that lie in each.
    #[allow(unsafe_code)]
    fn waiting(&self) -> [usize; 2] {
        self.pipes.each_ref().map(|pipe| {
            let Some(pipe) = pipe else { return 0 };
            let mut bytes: libc::c_int = 0;
            // SAFETY: the descriptor is open, and the request writes one int.
            unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
            usize::try_from(bytes).unwrap_or_default()
        })
    }

    /// Reads and throws away until nobody can write any more. A background child would otherwise
    /// be killed by its next line of output.
    pub(super) async fn discard(mut self) {
        while self.open() {
            self.read(READ_MAX).await;
        }
    }
}

/// Waits until a read of it would not block. A failing pipe counts: the read then says so.
async fn readable(pipe: Option<&Receiver>) {
    match pipe {
        Some(pipe) => {
            let _ = pipe.readable().await;
        }
        None => pending().await,
    }
}
