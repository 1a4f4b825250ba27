//! Which of a command's output goes into the log: heads and tails, and a word about what is cut between them. Pure:
//! time is given.
//!
//! ```text
//!        ┌─ its line is over its cap ─► the line's last part waits, those before it are cut ─┐ at the line's end
//! part ──┤                                                                                   ▼
//!        └──────────────────────────────────────────────────────────► head left? ──yes──► log
//!                                                                         │ no, for good
//!                                                                         ▼
//!                               the last 64 KiB wait, what is before them is cut ──at the command's end──► log
//! ```
//!
//! What waits is not acknowledged to the guest: another runner reads it there again. What is cut is counted, and the
//! counts travel with the marks, so that it stays cut whoever goes on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use ovenbird_agent_client::OutputStream;
use ovenbird_contract::{
    limits::{LOG_HEAD_BYTES_MIN, LOG_LINE_BYTES, LOG_TAIL_BYTES},
    log::LogCaps,
    step::Amount,
};
use tokio::time::{Duration, Instant};

use super::output::{Marks, OutputLine, SPAN_MAX};

/// While output is being cut the log says so this often.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// What a waiting line costs at least, so that empty lines are bounded too.
const WAITING_COST_MIN: usize = 32;

/// What the caps of a build leave. All its commands share one.
#[derive(Debug, Clone)]
pub struct Budget {
    caps: LogCaps,
    spent: Arc<Mutex<Spent>>,
}

#[derive(Debug, Default)]
struct Spent {
    build: u64,
    steps: BTreeMap<u32, u64>,
}

impl Budget {
    /// Of a build that has this many bytes in its log already.
    pub fn new(caps: LogCaps, spent: u64) -> Self {
        let spent = Spent { build: spent, steps: BTreeMap::new() };
        Self { caps, spent: Arc::new(Mutex::new(spent)) }
    }

    /// A command of this step goes on that has this much in the log.
    fn goes_on(&self, step: u32, logged: u64) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let of_step = spent.steps.entry(step).or_default();
        *of_step = logged.max(*of_step);
    }

    /// Whether `bytes` more are part of the head of a command that has `logged` in the log.
    fn head(&self, step: u32, bytes: u64, logged: u64) -> bool {
        let Self { caps, spent } = self;
        let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
        let of_step = spent.steps.get(&step).copied().unwrap_or(0);
        let is_left = of_step < caps.step_bytes && spent.build < caps.build_bytes;
        let is_head = is_left || logged < LOG_HEAD_BYTES_MIN;
        if is_head {
            spent.add(step, bytes);
        }
        is_head
    }

    fn tail(&self, step: u32, bytes: u64) {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner).add(step, bytes);
    }
}

impl Spent {
    fn add(&mut self, step: u32, bytes: u64) {
        self.build += bytes;
        *self.steps.entry(step).or_default() += bytes;
    }
}

/// What goes into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capped {
    /// A line of output, or a part of one.
    Line(OutputLine),
    /// How much was cut so far.
    Cut {
        /// For people.
        text: String,
        /// The marks once this is in the log.
        marks: Marks,
    },
}

/// The caps of one command.
#[derive(Debug)]
pub struct Cap {
    budget: Budget,
    step: u32,
    /// What lies below is logged or cut, and how much of each it is.
    marks: Marks,
    stdout: Line,
    stderr: Line,
    tail: VecDeque<Waiting>,
    tail_cost: usize,
    head_over: bool,
    said: Amount,
    said_at: Option<Instant>,
    /// The guest has forgotten what nobody counted.
    uncounted: bool,
}

/// The present line of a stream.
#[derive(Debug, Default)]
struct Line {
    length: u64,
    /// Its newest part, while it is over its cap.
    last: Option<Waiting>,
    /// Parts of the stream that wait in the tail.
    in_tail: usize,
}

#[derive(Debug)]
struct Waiting {
    line: OutputLine,
    amount: Amount,
}

impl Cap {
    /// Goes on from the marks of a runner before; [`Marks::default`] begins.
    pub fn resume(budget: Budget, step: u32, marks: Marks) -> Self {
        budget.goes_on(step, marks.logged.bytes);
        Self {
            budget,
            step,
            marks,
            stdout: Line::default(),
            stderr: Line::default(),
            tail: VecDeque::new(),
            tail_cost: 0,
            head_over: false,
            said: marks.cut,
            said_at: None,
            uncounted: false,
        }
    }

    /// Where another runner goes on once everything that was handed out is in the log.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// What was cut.
    pub fn cut(&self) -> Amount {
        self.marks.cut
    }

    /// The guest has forgotten `bytes` that a runner before had cut and not told of any more.
    pub fn forgotten(&mut self, bytes: u64) {
        self.uncounted = true;
        self.marks.cut.bytes += bytes;
    }

    /// Takes a line, or a part of one.
    pub fn push(&mut self, line: OutputLine, now: Instant, out: &mut Vec<Capped>) {
        let ends = u64::from(!line.cont);
        let amount = Amount { bytes: line.bytes.len() as u64 + ends, lines: ends };
        self.take(Waiting { line, amount }, now, out);
    }

    /// The command has ended, at `end` if that is known: `rest` is what has no newline. Hands out what waited.
    pub fn finish(
        &mut self,
        rest: Vec<OutputLine>,
        end: Option<u64>,
        now: Instant,
        out: &mut Vec<Capped>,
    ) {
        for line in rest {
            let amount = Amount { bytes: line.bytes.len() as u64, lines: 0 };
            self.take(Waiting { line, amount }, now, out);
        }
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if let Some(last) = self.line(stream).last.take() {
                self.enter(last, now, out);
            }
        }
        let waiting: u64 = self.tail.iter().map(|waiting| waiting.amount.bytes).sum();
        if let Some(end) = end.filter(|_| self.uncounted) {
            self.marks.cut.bytes = end.saturating_sub(self.marks.logged.bytes + waiting);
        }
        if self.head_over && self.marks.cut.bytes > 0 {
            self.say("; the end of the output follows", now, out);
        }
        while let Some(waiting) = self.oldest() {
            self.budget.tail(self.step, waiting.amount.bytes);
            self.log(waiting, now, out);
        }
    }

    /// When to call [`Cap::flush`].
    pub fn due(&self) -> Option<Instant> {
        let is_said = self.said == self.marks.cut;
        self.said_at.filter(|_| !is_said).map(|at| at + SAY_EVERY)
    }

    /// Says how much was cut, if that is not said yet.
    pub fn say_all(&mut self, now: Instant, out: &mut Vec<Capped>) {
        if self.said != self.marks.cut {
            self.say("", now, out);
        }
    }

    /// Says how much was cut, if it is time.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<Capped>) {
        if self.due().is_some_and(|due| due <= now) {
            self.say("", now, out);
        }
    }

    fn take(&mut self, part: Waiting, now: Instant, out: &mut Vec<Capped>) {
        let stream = part.line.stream;
        let seen = own(&part.line.marks, stream);
        let ends = !part.line.cont;
        let line = self.line(stream);
        line.length += part.amount.bytes;
        let is_over = line.length > LOG_LINE_BYTES;
        if ends {
            line.length = 0;
        }
        let before = line.last.take();
        if !is_over {
            self.enter(part, now, out);
        } else if ends {
            if let Some(before) = before {
                self.enter(before, now, out);
            }
            self.enter(part, now, out);
        } else {
            line.last = Some(part);
            if let Some(before) = before {
                self.cut_one(&before, now, out);
            }
        }
        // It would hold the guest's buffer, and so the command, while the other stream goes on.
        let other = other(stream);
        let stands =
            |last: &mut Waiting| seen.saturating_sub(own(&last.line.marks, other)) > SPAN_MAX;
        if let Some(last) = self.line(other).last.take_if(stands) {
            self.enter(last, now, out);
        }
    }

    /// Logs a part if there is head left for it; else it waits, and the oldest that waits is cut.
    fn enter(&mut self, part: Waiting, now: Instant, out: &mut Vec<Capped>) {
        let Amount { bytes, .. } = part.amount;
        if !self.head_over && self.budget.head(self.step, bytes, self.marks.logged.bytes) {
            return self.log(part, now, out);
        }
        self.head_over = true;
        self.tail_cost += cost(&part);
        self.line(part.line.stream).in_tail += 1;
        self.tail.push_back(part);
        while self.tail_cost > LOG_TAIL_BYTES {
            let Some(oldest) = self.oldest() else { return };
            self.cut_one(&oldest, now, out);
        }
    }

    fn oldest(&mut self) -> Option<Waiting> {
        let oldest = self.tail.pop_front()?;
        self.tail_cost -= cost(&oldest);
        self.line(oldest.line.stream).in_tail -= 1;
        Some(oldest)
    }

    fn log(&mut self, part: Waiting, now: Instant, out: &mut Vec<Capped>) {
        self.say_all(now, out);
        self.settle(&part.line);
        self.marks.logged += part.amount;
        out.push(Capped::Line(OutputLine { marks: self.marks, ..part.line }));
    }

    fn cut_one(&mut self, part: &Waiting, now: Instant, out: &mut Vec<Capped>) {
        self.settle(&part.line);
        self.marks.cut += part.amount;
        if self.said_at.is_none() {
            self.say("", now, out);
        }
        self.flush(now, out);
    }

    fn say(&mut self, what_follows: &str, now: Instant, out: &mut Vec<Capped>) {
        let Amount { bytes, lines } = self.marks.cut;
        let text = format!(
            "output is over the log's cap: {bytes} bytes, {lines} lines are left out so far{what_follows}"
        );
        (self.said, self.said_at) = (self.marks.cut, Some(now));
        out.push(Capped::Cut { text, marks: self.marks });
    }

    /// This line does not wait any more. The other stream's mark moves only as long as nothing of it waits.
    fn settle(&mut self, line: &OutputLine) {
        let beside = self.line(other(line.stream));
        let other_waits = beside.last.is_some() || beside.in_tail > 0;
        let (given, marks) = (&line.marks, &mut self.marks);
        let (stdout, stderr) = match line.stream {
            OutputStream::Stdout => (true, !other_waits && given.stderr > marks.stderr),
            OutputStream::Stderr => (!other_waits && given.stdout > marks.stdout, true),
        };
        if stdout {
            (marks.stdout, marks.stdout_open) = (given.stdout, given.stdout_open);
        }
        if stderr {
            (marks.stderr, marks.stderr_open) = (given.stderr, given.stderr_open);
        }
        match line.stream {
            OutputStream::Stdout => marks.stdout_open = line.cont,
            OutputStream::Stderr => marks.stderr_open = line.cont,
        }
    }

    fn line(&mut self, stream: OutputStream) -> &mut Line {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

fn own(marks: &Marks, stream: OutputStream) -> u64 {
    match stream {
        OutputStream::Stdout => marks.stdout,
        OutputStream::Stderr => marks.stderr,
    }
}

fn other(stream: OutputStream) -> OutputStream {
    match stream {
        OutputStream::Stdout => OutputStream::Stderr,
        OutputStream::Stderr => OutputStream::Stdout,
    }
}

fn cost(part: &Waiting) -> usize {
    part.line.bytes.len().max(WAITING_COST_MIN)
}

#[cfg(test)]
#[path = "cap_tests.rs"]
mod tests;
