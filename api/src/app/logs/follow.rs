//! A log from a place on, to its end, as it is written.
//!
//! One task per follower reads and one bounded queue holds what the client did not take yet. The task
//! listens first and reads what is stored then, so nothing falls between; a message that was lost on the
//! way shows as a hole in `seq` and is read from where it is stored. A loss at the very end shows by no
//! hole: after each quiet while the stream is asked for its last record.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{Subscriber, jetstream::stream::RawMessageErrorKind};
use futures::StreamExt as _;
use ovenbird_contract::{
    id::{BuildId, KeyId},
    log::Record,
};
use ovenbird_kit::telemetry;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tracing::Instrument as _;

use super::{
    Reader,
    history::{self, History},
    tail,
};
use crate::app::{Error, places::Place};

/// The first look at the stream after a quiet while; each next one waits twice as long, up to
/// `logs.probe_every`. A message that is stored while a follower joins can be missed by both its
/// subscription and its reading, and should not wait for the next line.
const PROBE_FIRST: Duration = Duration::from_millis(250);
/// Pauses between attempts while NATS or Postgres is away.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a follower gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The next record.
    Record(Record),
    /// Nothing more comes, because the client took too long; it may come back with the last `seq`.
    CutOff,
    /// Nothing more comes, because this process stops; come back with the last `seq`.
    Stopping,
}

/// The receiving end.
#[derive(Debug)]
pub struct Follower {
    records: mpsc::Receiver<Record>,
    why: Arc<OnceLock<Why>>,
    ended: bool,
    task: JoinHandle<()>,
}

impl Follower {
    /// The next item; `None` after the terminal record, or at once when the place asked for is after it.
    pub async fn next(&mut self) -> Option<Item> {
        if self.ended {
            return None;
        }
        if let Some(record) = self.records.recv().await {
            self.ended = record.is_end();
            return Some(Item::Record(record));
        }
        self.ended = true;
        match self.why.get() {
            Some(Why::AtEnd) => None,
            Some(Why::CutOff) => Some(Item::CutOff),
            None => Some(Item::Stopping),
        }
    }
}

impl Drop for Follower {
    /// The task has nothing to undo, so it is not waited for.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why the task sends no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The terminal record was sent, or lies before the place asked for.
    AtEnd,
    /// The client was too slow.
    CutOff,
}

/// The task sends no more; the reason stands in [`Task::why`].
struct Stop;

impl Reader {
    /// Follows a build's log from `next` on, for the holder of `key`.
    pub(super) fn follow(
        self: Arc<Self>,
        key: KeyId,
        id: BuildId,
        next: u64,
    ) -> Result<Follower, Error> {
        let place = self.followers.take(key).ok_or(Error::TooManyStreams)?;
        let (out, records) = mpsc::channel(self.limits.queue_records);
        let why = Arc::new(OnceLock::new());
        let task = Task {
            build: id,
            began_at: next,
            next,
            out,
            why: Arc::clone(&why),
            connections: self.connections.clone(),
            _place: place,
            reader: self,
        };
        let span = tracing::info_span!("log follower", build.id = %id);
        let task = tokio::spawn(task.run().instrument(span));
        Ok(Follower { records, why, ended: false, task })
    }
}

struct Task {
    reader: Arc<Reader>,
    build: BuildId,
    began_at: u64,
    /// The record to send next.
    next: u64,
    out: mpsc::Sender<Record>,
    why: Arc<OnceLock<Why>>,
    connections: watch::Receiver<u64>,
    _place: Place,
}

impl Task {
    async fn run(mut self) {
        let stopping = self.reader.stopping.clone();
        let out = self.out.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = out.closed() => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Stop> {
        let mut live = self.listen().await;
        self.catch_up().await?;
        let mut probe_after = PROBE_FIRST;
        let mut probe_at = Instant::now() + probe_after;
        loop {
            tokio::select! {
                message = live.next() => match message {
                    Some(message) => {
                        self.take(&message.payload).await?;
                        probe_after = PROBE_FIRST;
                    }
                    None => {
                        live = self.listen().await;
                        self.catch_up().await?;
                    }
                },
                changed = self.connections.changed() => match changed {
                    Ok(()) => self.catch_up().await?,
                    // The connection's owner is gone, and so is this process.
                    Err(_) => return Err(Stop),
                },
                () = tokio::time::sleep_until(probe_at) => {
                    match self.last().await {
                        Some(Some(last)) if last.seq() >= self.next => self.catch_up().await?,
                        Some(Some(Record::End(end))) => self.end_behind(end.seq).await?,
                        Some(Some(last)) if last.seq() + 1 == self.next => {}
                        Some(_) => self.end_if_over().await?,
                        // The connection's return will tell.
                        None => {}
                    }
                    probe_after = (probe_after * 2).min(self.reader.limits.probe_every);
                }
            }
            probe_at = Instant::now() + probe_after;
        }
    }

    /// A subscription. The request to JetStream that follows it on the same connection is answered only
    /// after the server knows the subscription, so what is read then and what is heard overlap.
    async fn listen(&self) -> Subscriber {
        let subject = self.reader.names.logs(&self.build);
        let mut pause = RETRY_FIRST;
        loop {
            match self.reader.client.subscribe(subject.clone()).await {
                Ok(subscriber) => return subscriber,
                Err(error) => {
                    tracing::warn!(error = telemetry::chain(&error), "cannot listen to a log");
                    wait(&mut pause).await;
                }
            }
        }
    }

    /// Sends a message that was heard. What it repeats is dropped, what lies before it is read first.
    async fn take(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let records = match tail::read(payload) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(error = telemetry::chain(&error), "a log message is not usable");
                return Ok(());
            }
        };
        match records.last() {
            Some(last) if last.seq() >= self.next => {}
            Some(Record::End(end)) => return self.end_behind(end.seq).await,
            _ => return Ok(()),
        }
        let records = history::fresh(records, self.next);
        match records.first() {
            Some(first) if first.seq() == self.next => self.send(records).await,
            _ => self.catch_up().await,
        }
    }

    /// Sends everything that is stored, however long Postgres or NATS is away.
    async fn catch_up(&mut self) -> Result<(), Stop> {
        let reader = Arc::clone(&self.reader);
        let mut pause = RETRY_FIRST;
        loop {
            let mut history = History::new(&reader, self.build, self.next);
            let error = loop {
                match history.run().await {
                    Ok(Some(records)) => {
                        self.send(records).await?;
                        pause = RETRY_FIRST;
                    }
                    // An end that lies behind is the probe's.
                    Ok(None) => return Ok(()),
                    Err(error) => break error,
                }
            };
            tracing::warn!(error = telemetry::chain(&error), "a log cannot be read; trying again");
            wait(&mut pause).await;
        }
    }

    /// The stream's end `end` lies before this place. Who has just come from there may go: if more comes, it comes back.
    /// Others have records that NATS lost.
    async fn end_behind(&mut self, end: u64) -> Result<(), Stop> {
        if self.next == self.began_at && self.next == end + 1 {
            return Err(self.stop(Why::AtEnd));
        }
        self.end_if_over().await
    }

    /// The stream has less of the log than was sent, or nothing. An end that Postgres has not noted may yet be moved behind
    /// lines that are still being stored; a noted one ends the log. A follower that has other records from there on, which
    /// NATS lost, or not the end, gets one where it stands.
    async fn end_if_over(&mut self) -> Result<(), Stop> {
        let Ok(Some((end, status))) = self.reader.store.build_log_end(self.build).await else {
            return Ok(());
        };
        self.catch_up().await?;
        if self.next > self.began_at || self.next <= end {
            self.send(vec![Record::end(self.next, status)]).await?;
        }
        Err(self.stop(Why::AtEnd))
    }

    /// The last record in the stream, if any; `None` when it cannot be asked.
    async fn last(&self) -> Option<Option<Record>> {
        let stream = self.reader.names.logs_stream().name;
        let subject = self.reader.names.logs(&self.build);
        let last = async {
            let stream = self.reader.jetstream.get_stream_no_info(stream).await.ok()?;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Some(tail::read(&message.payload).ok()?.pop()),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Some(None),
                Err(error) => {
                    tracing::debug!(error = %error, "the stream cannot be asked");
                    None
                }
            }
        };
        last.await
    }

    /// Hands records over, at the client's pace but not slower than allowed.
    async fn send(&mut self, records: Vec<Record>) -> Result<(), Stop> {
        for record in records {
            let (seq, is_end) = (record.seq(), record.is_end());
            let patience = self.reader.limits.slow_client_timeout;
            match self.out.send_timeout(record, patience).await {
                Ok(()) => self.next = seq + 1,
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(Stop),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    tracing::info!(next_seq = seq, "a client reads too slowly and is cut off");
                    return Err(self.stop(Why::CutOff));
                }
            }
            if is_end {
                return Err(self.stop(Why::AtEnd));
            }
        }
        Ok(())
    }

    fn stop(&self, why: Why) -> Stop {
        // Set once, here: the task ends with it.
        let _ = self.why.set(why);
        Stop
    }
}

async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(RETRY_MAX);
}
