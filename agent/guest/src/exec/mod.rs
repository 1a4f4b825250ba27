//! Commands: started once per id, followed by any number, held back while nobody acknowledges, kept
//! for replay after their end.
//!
//! ```text
//!  StartExec ─► running ─────────────► ended ─────────────► forgotten
//!      │          │ process exits,        │ 64 ended since, or their output
//!      │          │ pipes read to the end │ over 8 MiB: acknowledged ones first
//!      └──────────┼───────────────────────┘
//!        could not be started (126, 127)
//! ```
//!
//! Bounds: 64 running, each with a buffer of 256 KiB.

mod cgroup;
mod follow;
mod launch;
mod output;
mod reaper;
mod run;

pub(crate) use cgroup::Cgroups;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::Stream;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use ovenbird_guest_protocol::v1::{
    AckExecRequest, AttachExecRequest, AttachExecResponse, SignalExecRequest, StartExecRequest,
    StartExecResponse,
};
use tokio::{sync::watch, task::JoinSet};
use tonic::Status;

use crate::error::Error;
use cgroup::Cgroup;
use launch::NotStarted;
use output::{Output, Source};
use reaper::Reaper;
use run::{End, Pipes};

/// Commands at once.
const RUNNING_MAX: usize = 64;
/// Ended commands that are kept for replay.
const ENDED_MAX: usize = 64;
/// Their unacknowledged output together, in bytes.
const ENDED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Ended commands whose background children still have their pipes read.
const DISCARDING_MAX: usize = 64;

/// One command.
#[derive(Debug)]
pub(crate) struct Exec {
    pid: u32,
    cgroup: Cgroup,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    output: Output,
    end: Option<End>,
    /// Nobody follows it any more: a full buffer loses its oldest bytes.
    unfollowed: bool,
}

impl Exec {
    fn new(pid: u32, cgroup: Cgroup, end: Option<End>) -> Self {
        let state = Mutex::new(State { output: Output::default(), end, unfollowed: false });
        Self { pid, cgroup, state, changed: watch::channel(()).0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn room(&self) -> usize {
        let mut state = self.state();
        if state.unfollowed {
            state.output.make_room();
        }
        state.output.room()
    }

    fn unfollow(&self) {
        self.state().unfollowed = true;
        self.changed.send_replace(());
    }

    fn push(&self, source: Source, data: &[u8]) {
        self.state().output.push(source, data);
        self.changed.send_replace(());
    }

    fn ack(&self, offset: u64) -> Result<(), Error> {
        if self.state().output.ack(offset)? {
            self.changed.send_replace(());
        }
        Ok(())
    }

    fn end(&self, end: End) {
        let mut state = self.state();
        state.output.close();
        state.end = Some(end);
        drop(state);
        self.changed.send_replace(());
    }

    fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    fn unacked(&self) -> usize {
        self.state().output.len()
    }

    /// Which limit it ran into, if it has ended badly.
    fn blame(&self, code: i32, timed_out: bool) -> String {
        self.cgroup.blame(code, timed_out).unwrap_or_default()
    }

    /// Kills it with everything it has started.
    fn kill(&self) -> io::Result<()> {
        self.cgroup.kill()
    }
}

/// All commands of the machine.
#[derive(Debug)]
pub(crate) struct Execs {
    cgroups: Cgroups,
    reaper: Reaper,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<String, Arc<Exec>>,
    /// Ids of the ended ones, the first to end first.
    ended: VecDeque<String>,
    running: JoinSet<()>,
    discarding: JoinSet<()>,
    started: u64,
}

impl Execs {
    pub(crate) fn new(cgroups: Cgroups) -> Self {
        Self { cgroups, reaper: Reaper::default(), table: Mutex::default() }
    }

    /// Waits for every process of the machine, for ever.
    pub(crate) async fn reap(&self) -> Infallible {
        self.reaper.run().await
    }

    pub(crate) fn running(&self) -> usize {
        let table = self.table();
        table.by_id.len() - table.ended.len()
    }

    /// Starts a command, or finds the one with this id.
    pub(crate) fn start(
        self: &Arc<Self>,
        request: &StartExecRequest,
    ) -> Result<StartExecResponse, Error> {
        launch::check(request)?;
        let id = request.exec_id.clone();
        let mut table = self.table();
        if let Some(exec) = table.by_id.get(&id) {
            return Ok(StartExecResponse { pid: exec.pid, already_started: true });
        }
        if table.by_id.len() - table.ended.len() >= RUNNING_MAX {
            return Err(Error::TooManyExecs { max: RUNNING_MAX });
        }
        table.started += 1;
        let cgroup =
            self.cgroups.add(table.started).map_err(Error::system("making a control group"))?;
        let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
        let launched = match launch::launch(request, &cgroup, &self.reaper) {
            Ok(launched) => launched,
            Err(NotStarted { code, error }) => {
                cgroup.remove();
                let end = End { code, timed_out: false, error, elapsed: Duration::ZERO };
                table.by_id.insert(id.clone(), Arc::new(Exec::new(0, cgroup, Some(end))));
                table.keep_ended(id);
                return Ok(StartExecResponse { pid: 0, already_started: false });
            }
        };
        let pid = launched.pid;
        let exec = Arc::new(Exec::new(pid, cgroup, None));
        table.by_id.insert(id.clone(), exec.clone());
        while table.running.try_join_next().is_some() {}
        let execs = self.clone();
        table.running.spawn(async move {
            let (end, pipes) = run::run(exec.clone(), launched, timeout).await;
            execs.finish(id, &exec, end, pipes);
        });
        Ok(StartExecResponse { pid, already_started: false })
    }

    fn finish(&self, id: String, exec: &Exec, end: End, pipes: Pipes) {
        let mut table = self.table();
        exec.end(end);
        table.keep_ended(id);
        while table.discarding.try_join_next().is_some() {}
        if pipes.open() && table.discarding.len() < DISCARDING_MAX {
            table.discarding.spawn(pipes.discard());
        }
        let running: Vec<_> = table
            .by_id
            .values()
            .filter(|exec| !exec.has_ended())
            .map(|exec| &exec.cgroup)
            .collect();
        self.cgroups.sweep(&running);
    }

    /// Follows a command's output from an offset to its end.
    pub(crate) fn attach(
        &self,
        request: &AttachExecRequest,
    ) -> Result<impl Stream<Item = Result<AttachExecResponse, Status>> + Send + use<>, Error> {
        follow::follow(self.find(&request.exec_id)?, request.from_offset, request.auto_ack)
    }

    pub(crate) fn ack(&self, request: &AckExecRequest) -> Result<(), Error> {
        self.find(&request.exec_id)?.ack(request.offset)
    }

    /// Lets every command that runs go on without a follower.
    pub(crate) fn unfollow(&self) {
        for exec in self.table().by_id.values() {
            exec.unfollow();
        }
    }

    /// Signals the command's process group; when the command has ended, what it left behind.
    pub(crate) fn signal(&self, request: &SignalExecRequest) -> Result<(), Error> {
        let exec = self.find(&request.exec_id)?;
        let signal = Signal::try_from(request.signal)
            .map_err(|_| Error::argument("signal", "is not one of 1 to 31"))?;
        if signal == Signal::SIGKILL {
            return exec.kill().map_err(Error::system("killing the control group"));
        }
        let failed = |errno: Errno| Error::system("signalling")(errno.into());
        if !exec.has_ended() {
            return match killpg(Pid::from_raw(exec.pid.cast_signed()), signal) {
                Ok(()) => Ok(()),
                Err(Errno::ESRCH) => Err(Error::ExecEnded(request.exec_id.clone())),
                Err(errno) => Err(failed(errno)),
            };
        }
        let left = exec.cgroup.processes().map_err(Error::system("reading the control group"))?;
        if left.is_empty() {
            return Err(Error::ExecEnded(request.exec_id.clone()));
        }
        for pid in left {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    fn find(&self, id: &str) -> Result<Arc<Exec>, Error> {
        self.table().by_id.get(id).cloned().ok_or_else(|| Error::NoExec(id.to_owned()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Notes that a command has ended, and forgets what is too much: the oldest that was read to its
    /// end, and only when there is none the oldest of all.
    fn keep_ended(&mut self, id: String) {
        self.ended.push_back(id);
        loop {
            let unacked = |id: &String| self.by_id.get(id).map_or(0, |exec| exec.unacked());
            let bytes: usize = self.ended.iter().map(unacked).sum();
            if self.ended.len() <= ENDED_MAX && bytes <= ENDED_BYTES_MAX {
                return;
            }
            let over_count = self.ended.len() > ENDED_MAX;
            let oldest = match over_count {
                true => self.ended.iter().position(|id| unacked(id) == 0).unwrap_or(0),
                // Only what has bytes gives bytes back.
                false => self.ended.iter().position(|id| unacked(id) > 0).unwrap_or(0),
            };
            if let Some(id) = self.ended.remove(oldest) {
                self.by_id.remove(&id);
            }
        }
    }
}
