//! Runs one detached command in the guest and carries its output into the log, to its end.
//!
//! A connection that breaks costs nothing: the command goes on by itself, and this attaches again where it
//! was; so does another runner, where this one's log ends. What the log has durably, and what its caps cut, the guest
//! is told to forget. The log that cannot take more holds the command back.

use std::collections::VecDeque;

use ovenbird_agent_client::{
    Agent, Command, Error as AgentError, ExecEnd, ExecEvent, ExecEvents, OutputStream,
};
use ovenbird_contract::step::Amount;
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep, sleep_until},
};

use super::{away::Away, resume::Logged};
use crate::publish::{
    Budget, Cap, Capped, Closed, Excerpt, Log, Output, OutputLine, Progress, Tail,
};

const AGAIN: Duration = Duration::from_millis(500);
/// An output that could be followed for this long shows that host and guest are there, also when the command is silent.
/// One that breaks off at once shows nothing: a host in a bad way may go on like that for ever.
const LIVED: Duration = Duration::from_secs(1);
/// The guest ends a command that runs too long; one that does not even say so is given up after this long.
const END_GRACE: Duration = Duration::from_secs(60);
/// The guest is told every so many bytes what it may forget; it keeps several times as much.
const ACK_EVERY: u64 = 32 * 1024;
const ACK_TRIES: u32 = 120;

/// A command to run.
#[derive(Debug, Clone)]
pub(super) struct Exec {
    pub(super) agent: Agent,
    pub(super) sandbox_id: String,
    pub(super) exec_id: String,
    /// Its output is logged under this step.
    pub(super) step: u32,
    pub(super) command: Command,
    pub(super) timeout: Option<Duration>,
    /// A host that cannot be reached for this long is lost.
    pub(super) away_max: Duration,
    /// How much of its output goes into the log.
    pub(super) budget: Budget,
}

impl Exec {
    /// The exec id makes it harmless to ask again.
    async fn start(&self) -> Result<(), AgentError> {
        let begun = Instant::now();
        loop {
            let started = self
                .agent
                .start_exec(&self.sandbox_id, &self.exec_id, &self.command, self.timeout)
                .await;
            match started {
                Ok(_) => return Ok(()),
                Err(error) if may_pass(&error) && begun.elapsed() < self.away_max => {
                    tracing::warn!(exec.id = self.exec_id, %error, "command not started, trying again");
                }
                Err(error) => return Err(error),
            }
            sleep(AGAIN).await;
        }
    }
}

/// The host, or its link to the guest, may come back. The sandbox lives on meanwhile.
fn may_pass(error: &AgentError) -> bool {
    matches!(
        error,
        AgentError::Unreachable { .. }
            | AgentError::Unavailable { .. }
            | AgentError::DeadlineExceeded { .. }
    )
}

/// Why the end of a command is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The host's answer, or its absence.
    #[error("the command cannot be followed")]
    Agent(#[from] AgentError),
    /// The log is over, and so is this attempt.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// The output so far: what the row keeps, and the end for people.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) stdout: Excerpt,
    pub(super) stderr: Excerpt,
    pub(super) tail: Tail,
    /// What another runner had of it and is not among these.
    pub(super) missing: Amount,
    /// What of it is not in the log, once it has ended.
    pub(super) cut: Amount,
}

impl Kept {
    pub(super) fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        match stream {
            OutputStream::Stdout => self.stdout.push(bytes),
            OutputStream::Stderr => self.stderr.push(bytes),
        }
        self.tail.push(bytes);
    }
}

/// Up to where the output goes: `logged` is what the log will say, `end` what the guest may forget then.
#[derive(Debug, Clone, Copy)]
struct LastMark {
    logged: u64,
    end: u64,
}

/// Tells the guest what it may forget. Ends by itself when the whole output is durable, or when the command
/// is given up.
#[derive(Debug)]
pub(super) struct Acknowledger {
    agent: Agent,
    sandbox_id: String,
    exec_id: String,
    durable: watch::Receiver<u64>,
    last: watch::Receiver<Option<LastMark>>,
}

impl Acknowledger {
    pub(super) async fn run(mut self) {
        let (mut acked, mut tries) = (0, 0);
        loop {
            let durable = *self.durable.borrow_and_update();
            let last = *self.last.borrow_and_update();
            let over = last.filter(|last| durable >= last.logged);
            let upto = over.map_or(durable, |last| last.end);
            if upto >= acked + ACK_EVERY || over.is_some() && upto > acked {
                match self.agent.ack_exec(&self.sandbox_id, &self.exec_id, upto).await {
                    Ok(()) => (acked, tries) = (upto, 0),
                    // Not to tell would hold a loud command back for ever.
                    Err(error) if may_pass(&error) && tries < ACK_TRIES => {
                        tries += 1;
                        sleep(AGAIN).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::debug!(exec.id = self.exec_id, %error, "output not acknowledged");
                        return;
                    }
                }
            }
            if over.is_some() {
                return;
            }
            let open = tokio::select! {
                changed = self.durable.changed() => changed.is_ok(),
                changed = self.last.changed(), if last.is_none() => changed.is_ok(),
            };
            if !open {
                return;
            }
        }
    }
}

/// A command under way.
#[derive(Debug)]
pub(super) struct Follow {
    exec: Exec,
    log: Log,
    output: Output,
    cap: Cap,
    /// What is to go into the log.
    outgoing: VecDeque<Capped>,
    progress: Progress,
    last: watch::Sender<Option<LastMark>>,
    logged: u64,
    /// All that went into the log is there.
    flushed: bool,
    pub(super) kept: Kept,
}

impl Follow {
    /// Starts the command, or finds it started; what was logged of it before is not logged again.
    pub(super) async fn start(
        exec: Exec,
        log: Log,
        logged: Logged,
    ) -> Result<(Self, Acknowledger), Error> {
        exec.start().await?;
        Ok(Self::again(exec, log, logged))
    }

    /// Follows a command that was started before.
    pub(super) fn again(exec: Exec, log: Log, logged: Logged) -> (Self, Acknowledger) {
        let Logged { marks, kept } = logged;
        let mut progress = Progress::new(exec.exec_id.clone(), marks.low());
        // What has no time limit is not waited for.
        if exec.timeout.is_none() {
            progress = progress.in_background();
        }
        let (last, receiver) = watch::channel(None);
        let acknowledger = Acknowledger {
            // Many calls that nobody looks for.
            agent: exec.agent.clone().traced(""),
            sandbox_id: exec.sandbox_id.clone(),
            exec_id: exec.exec_id.clone(),
            durable: progress.durable(),
            last: receiver,
        };
        let cap = Cap::resume(exec.budget.clone(), exec.step, marks);
        let follow = Self {
            exec,
            log,
            output: Output::resume(marks),
            cap,
            outgoing: VecDeque::new(),
            progress,
            last,
            logged: marks.low(),
            flushed: true,
            kept,
        };
        (follow, acknowledger)
    }

    /// Follows to the end; the end of the output is in the log then. May be dropped at any time; the command goes
    /// on then.
    pub(super) async fn until_end(&mut self) -> Result<ExecEnd, Error> {
        let end = self.follow().await;
        // Somebody else goes on with it where the log ends.
        if !matches!(&end, Err(Error::Closed(_) | Error::Agent(AgentError::StaleFence { .. }))) {
            self.finish(end.as_ref().ok().map(|end| end.end_offset)).await?;
        }
        if let Ok(end) = &end {
            self.last.send_replace(Some(LastMark { logged: self.logged, end: end.end_offset }));
        }
        end
    }

    async fn follow(&mut self) -> Result<ExecEnd, Error> {
        let give_up = self.exec.timeout.map(|time| Instant::now() + time + END_GRACE);
        let mut away = Away::new(self.exec.away_max);
        loop {
            let from = self.output.seen();
            let attached =
                self.exec.agent.attach_exec(&self.exec.sandbox_id, &self.exec.exec_id, from).await;
            let broke = match attached {
                Ok(events) => {
                    let begun = Instant::now();
                    let read = self.read(events, give_up).await;
                    if self.output.seen() > from || begun.elapsed() >= LIVED {
                        away.answered();
                    }
                    match read {
                        Ok(Some(end)) => return Ok(end),
                        Ok(None) => None,
                        Err(error) => Some(error),
                    }
                }
                Err(error) => Some(Error::Agent(error)),
            };
            let is_lost = away.is_lost(Instant::now());
            match broke {
                Some(Error::Agent(error)) if may_pass(&error) => {
                    tracing::warn!(exec.id = self.exec.exec_id, %error, "lost the command's output, attaching again");
                    if is_lost {
                        return Err(Error::Agent(error));
                    }
                }
                Some(error) => return Err(error),
                // The agent closed the stream without an end: it stops, or its guest link broke.
                None if is_lost => return Err(Error::Agent(gone())),
                None => {}
            }
            sleep(AGAIN).await;
        }
    }

    /// Puts what is left of the output into the log: an unfinished line, and what waited for the end. `end` is where
    /// the output ends, if it does.
    pub(super) async fn finish(&mut self, end: Option<u64>) -> Result<(), Closed> {
        let (mut rest, mut capped) = (Vec::new(), Vec::new());
        self.output.finish(&mut rest);
        self.cap.finish(rest, end, Instant::now(), &mut capped);
        self.outgoing.extend(capped);
        self.kept.cut = self.cap.cut();
        self.put().await?;
        if !self.kept.cut.is_none() {
            // The guest was told of what is cut, which may lie behind some of this.
            self.log.flush().await?;
        }
        Ok(())
    }

    /// Leaves the command to another runner, and tells it what of its output is cut.
    pub(super) async fn leave(&mut self) -> Result<(), Closed> {
        let mut capped = Vec::new();
        self.cap.say_all(Instant::now(), &mut capped);
        self.outgoing.extend(capped);
        self.put().await
    }

    /// The end of the output so far, for people.
    pub(super) fn tail(&self) -> Option<String> {
        Some(self.kept.tail.text()).filter(|tail| !tail.is_empty())
    }

    /// One attached stream, to its end or its break.
    async fn read(
        &mut self,
        mut events: ExecEvents,
        give_up: Option<Instant>,
    ) -> Result<Option<ExecEnd>, Error> {
        loop {
            let due = self.output.due().into_iter().chain(self.cap.due()).min();
            let mut lines = Vec::new();
            tokio::select! {
                event = events.next() => match event {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(Error::Agent(error)),
                    Some(Ok(ExecEvent::Output { offset, stream, data })) => {
                        self.kept.push(stream, self.output.fresh(offset, stream, &data));
                        let now = Instant::now();
                        let missing = self.output.push(offset, stream, &data, now, &mut lines);
                        self.miss(missing).await?;
                    }
                    Some(Ok(ExecEvent::End(end))) => {
                        self.miss(end.end_offset.saturating_sub(self.output.seen())).await?;
                        return Ok(Some(end));
                    }
                },
                () = sleep_until_maybe(due) => self.output.flush(Instant::now(), &mut lines),
                () = sleep_until_maybe(give_up) => return Ok(Some(self.given_up())),
            }
            self.write(lines).await?;
        }
    }

    async fn write(&mut self, lines: Vec<OutputLine>) -> Result<(), Closed> {
        let (now, mut capped) = (Instant::now(), Vec::new());
        for line in lines {
            self.cap.push(line, now, &mut capped);
        }
        self.cap.flush(now, &mut capped);
        self.outgoing.extend(capped);
        self.put().await?;
        self.forget().await
    }

    /// May be dropped at any time: what is not in the log then is still outgoing.
    async fn put(&mut self) -> Result<(), Closed> {
        let step = self.exec.step;
        while let Some(next) = self.outgoing.front() {
            let marks = match next {
                Capped::Line(line) => {
                    self.log.output(step, line, Some(&self.progress)).await?;
                    line.marks
                }
                Capped::Cut { text, marks } => {
                    self.log.cut(step, text, *marks, &self.progress).await?;
                    *marks
                }
            };
            self.outgoing.pop_front();
            self.logged = marks.low();
            self.flushed = false;
        }
        Ok(())
    }

    /// What is cut must not hold the command back, however seldom the log speaks of it.
    async fn forget(&mut self) -> Result<(), Closed> {
        let upto = self.cap.marks().low();
        if upto < self.logged + ACK_EVERY {
            return Ok(());
        }
        if !self.flushed {
            self.log.flush().await?;
            self.flushed = true;
        }
        self.progress.forget(upto);
        Ok(())
    }

    /// The guest does not have these bytes any more: cut by a runner before, or lost.
    async fn miss(&mut self, bytes: u64) -> Result<(), Closed> {
        if bytes == 0 {
            return Ok(());
        }
        if !self.cap.cut().is_none() {
            self.cap.forgotten(bytes);
            self.kept.missing.bytes += bytes;
            return Ok(());
        }
        self.log
            .system(self.exec.step, &format!("{bytes} bytes of output were lost in the guest"))
            .await
    }

    /// A guest that does not keep its word about time is treated as if it had.
    fn given_up(&self) -> ExecEnd {
        ExecEnd {
            exit_code: 137,
            timed_out: true,
            error: None,
            end_offset: self.output.seen(),
            elapsed: self.exec.timeout.unwrap_or_default(),
        }
    }
}

fn gone() -> AgentError {
    AgentError::Unavailable { message: "the host agent closes the command's output".into() }
}

async fn sleep_until_maybe(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
