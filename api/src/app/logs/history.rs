//! What of a log is stored now: the chunks in Postgres, then the tail in the stream.
//!
//! Several ledgers store chunks side by side, so one may be missing between two others for a while; it is
//! in the stream then, and so is everything after it. Only what is in neither place is lost.

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
    /// Up to here nothing more is looked for: it was in neither place.
    lost_before: u64,
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
        let place = Place::Chunks(VecDeque::new());
        Self { reader, build, next, lost_before: 0, place }
    }

    /// The next records, at least one and in order; `None` at the end. A hole means that the records in
    /// it are in neither place.
    pub(super) async fn run(&mut self) -> Result<Option<Vec<Record>>, Error> {
        loop {
            let records = match &mut self.place {
                Place::End => return Ok(None),
                Place::Chunks(fetched) => match fetched.pop_front() {
                    Some(records) if self.is_hole_before(&records) => {
                        self.tail().await?;
                        continue;
                    }
                    Some(records) => records,
                    None => {
                        self.fetch().await?;
                        continue;
                    }
                },
                Place::Tail(tail) => match tail.batch().await? {
                    Some(records) if self.is_hole_before(&records) => {
                        self.close().await;
                        self.look_again(&records).await?;
                        continue;
                    }
                    Some(records) => records,
                    None => {
                        self.close().await;
                        continue;
                    }
                },
            };
            if records.last().is_some_and(Record::is_end) {
                self.close().await;
            }
            let fresh = fresh(records, self.next);
            let Some(last) = fresh.last() else { continue };
            self.next = last.seq() + 1;
            return Ok(Some(fresh));
        }
    }

    fn is_hole_before(&self, records: &[Record]) -> bool {
        let first = records.iter().map(Record::seq).find(|seq| *seq >= self.next);
        first.is_some_and(|first| first > self.next.max(self.lost_before))
    }

    /// The next chunks, or the tail when there are none.
    async fn fetch(&mut self) -> Result<(), Error> {
        let runs = self.reader.store.build_log_runs(self.build, self.next, CHUNKS).await?;
        if runs.is_empty() {
            return self.tail().await;
        }
        self.place = Place::Chunks(runs.into());
        Ok(())
    }

    /// What the stream holds after the last chunk before this place.
    async fn tail(&mut self) -> Result<(), Error> {
        let reader = self.reader;
        let stored = reader.store.build_log_stored(self.build, self.next).await?;
        let tail = Tail::open(&reader.jetstream, &reader.names, &self.build, stored).await?;
        self.place = match tail {
            Some(tail) => Place::Tail(Box::new(tail)),
            None => {
                let runs = reader.store.build_log_runs(self.build, self.next, CHUNKS).await?;
                if let Some(first) = runs.first() {
                    self.give_up_before(first);
                }
                if runs.is_empty() { Place::End } else { Place::Chunks(runs.into()) }
            }
        };
        Ok(())
    }

    /// The stream goes on only with `later`: either a ledger has stored what lies before it meanwhile and
    /// the stream has let go of it, or it is lost.
    async fn look_again(&mut self, later: &[Record]) -> Result<(), Error> {
        let runs = self.reader.store.build_log_runs(self.build, self.next, CHUNKS).await?;
        let first =
            |records: &[Record]| records.iter().map(Record::seq).find(|it| *it >= self.next);
        let nearer = runs.first().filter(|run| first(run) < first(later));
        self.give_up_before(nearer.map_or(later, |run| run));
        self.place = Place::Chunks(runs.into());
        Ok(())
    }

    /// Everything before `records` that was not read yet is nowhere.
    fn give_up_before(&mut self, records: &[Record]) {
        if !self.is_hole_before(records) {
            return;
        }
        let first = records.iter().map(Record::seq).find(|seq| *seq >= self.next);
        self.lost_before = first.unwrap_or(self.next);
        tracing::warn!(
            build.id = %self.build,
            from_seq = self.next,
            to_seq = self.lost_before - 1,
            "records of a log are stored nowhere; it goes on after them"
        );
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
