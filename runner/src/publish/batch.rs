//! From lines to one message on the log subject. Pure.
//!
//! A batch holds at most [`LOG_BATCH_BYTES`] of text, so that no message is larger than the stream takes,
//! whatever JSON makes of the text. It holds output of one command only, because it carries one resume point.

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    limits::LOG_BATCH_BYTES,
    log::{Batch, LineRecord, Record, Stream},
    standing::Standing,
};

use super::{output::Marks, progress::Progress};

/// Most records of a batch; a record's own fields are some 130 bytes of JSON.
pub(super) const BATCH_RECORDS: usize = 1_000;

/// A line that has no number yet.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) ts: DateTime<Utc>,
    pub(super) step: u32,
    pub(super) stream: Stream,
    pub(super) text: String,
    pub(super) data: Option<String>,
    pub(super) cont: bool,
    /// Set on a command's output, and on what is said about it.
    pub(super) source: Option<(Progress, Marks)>,
}

/// Lines that leave together.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    source: Option<(u32, Progress, Marks)>,
}

impl Open {
    /// Adds `entry`, or gives it back when it belongs into the next batch.
    pub(super) fn add(&mut self, entry: Entry) -> Option<Entry> {
        let full = self.entries.len() >= BATCH_RECORDS
            || self.bytes + entry.text.len() > LOG_BATCH_BYTES && !self.entries.is_empty();
        let foreign = match (&self.source, &entry.source) {
            (Some((_, ours, _)), Some((theirs, _))) => ours.exec_id() != theirs.exec_id(),
            _ => false,
        };
        if full || foreign {
            return Some(entry);
        }
        self.bytes += entry.text.len();
        if let Some((progress, marks)) = &entry.source {
            self.source = Some((entry.step, progress.clone(), *marks));
        }
        self.entries.push(entry);
        None
    }

    /// The command whose output it holds, its step, and the marks after it.
    pub(super) fn source(&self) -> Option<&(u32, Progress, Marks)> {
        self.source.as_ref()
    }

    /// The message, its first record numbered `first_seq`.
    pub(super) fn numbered(
        &self,
        first_seq: u64,
        attempt: u32,
        standing: Option<Standing>,
    ) -> Batch {
        let record = |(seq, entry): (u64, &Entry)| {
            Record::Line(LineRecord {
                seq,
                ts: entry.ts,
                attempt,
                step: entry.step,
                stream: entry.stream,
                text: entry.text.clone(),
                cont: entry.cont,
                data: entry.data.clone(),
            })
        };
        let resume =
            self.source.as_ref().map(|(step, progress, marks)| progress.resume(*step, *marks));
        Batch { records: (first_seq..).zip(&self.entries).map(record).collect(), resume, standing }
    }
}
