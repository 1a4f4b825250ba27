//! What of a log is stored now: the chunks in Postgres, then the tail in the stream.

use std::collections::VecDeque;

use ovenbird_contract::{id::BuildId, log::Record};

use super::{Reader, tail::Tail};
use crate::app::Error;

/// Chunks that one query fetches.
const CHUNKS: u64 = 4;

/// Reads on from a place, run by run, until nothing is stored after it.
#[derive(Debug)]
pub(super) struct History<'a> {
    reader: &'a Reader,
    build: BuildId,
    next: u64,
    /// Stream sequence of the last chunk that was read.
    stored: Option<u64>,
    /// The terminal record was read, though it may lie before the place asked for.
    ended: bool,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Before or in the chunks; these were fetched already.
    Chunks(VecDeque<Vec<Record>>),
    /// In the stream.
    Tail(Box<Tail>),
    /// Nothing is left.
    End,
}

impl<'a> History<'a> {
    /// From `next` on.
    pub(super) fn new(reader: &'a Reader, build: BuildId, next: u64) -> Self {
        Self {
            reader,
            build,
            next,
            stored: None,
            ended: false,
            place: Place::Chunks(VecDeque::new()),
        }
    }

    /// The next records, at least one and in order; `None` at the end. A hole means that the records in
    /// it are in neither place.
    pub(super) async fn run(&mut self) -> Result<Option<Vec<Record>>, Error> {
        loop {
            let records = match &mut self.place {
                Place::End => return Ok(None),
                Place::Chunks(fetched) => match fetched.pop_front() {
                    Some(records) => records,
                    None => {
                        self.fetch().await?;
                        continue;
                    }
                },
                Place::Tail(tail) => match tail.batch().await? {
                    Some(records) => records,
                    None => {
                        self.close().await;
                        continue;
                    }
                },
            };
            if records.last().is_some_and(Record::is_end) {
                self.ended = true;
                self.close().await;
            }
            let fresh = fresh(records, self.next);
            let Some(last) = fresh.last() else { continue };
            if let Some(lost) = fresh[0].seq().checked_sub(self.next).filter(|lost| *lost > 0) {
                tracing::warn!(
                    build.id = %self.build,
                    from_seq = self.next,
                    lost,
                    "records of a log are stored nowhere; it goes on after them"
                );
            }
            self.next = last.seq() + 1;
            return Ok(Some(fresh));
        }
    }

    /// Whether the log is over at the place that was reached.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next chunks, or the tail when there are none.
    async fn fetch(&mut self) -> Result<(), Error> {
        let reader = self.reader;
        let runs = reader.store.build_log_runs(self.build, self.next, CHUNKS).await?;
        if let Some(last) = runs.last() {
            self.stored = Some(last.stream_seq);
            self.place = Place::Chunks(runs.into_iter().map(|run| run.records).collect());
            return Ok(());
        }
        let stored = match self.stored {
            Some(stored) => stored,
            None => reader.store.build_log_stored(self.build).await?,
        };
        let tail = Tail::open(&reader.jetstream, &reader.names, &self.build, stored).await?;
        self.place = tail.map_or(Place::End, |tail| Place::Tail(Box::new(tail)));
        Ok(())
    }

    /// Gives up what the server keeps for this reader.
    pub(super) async fn close(&mut self) {
        if let Place::Tail(tail) = std::mem::replace(&mut self.place, Place::End) {
            tail.close().await;
        }
    }
}

/// The records from `next` on.
pub(super) fn fresh(mut records: Vec<Record>, next: u64) -> Vec<Record> {
    let seen = records.iter().take_while(|record| record.seq() < next).count();
    records.drain(..seen);
    records
}
