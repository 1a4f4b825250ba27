//! The one writer of a build's log.
//!
//! Records get their numbers when they leave, one message at a time: the next one leaves when the one
//! before is acknowledged. While the line is quiet a record leaves at once; under load a batch collects
//! meanwhile, up to 16 KiB of text. What waits is bounded in bytes; a writer that cannot write holds its
//! callers back.
//!
//! Every message names the stream sequence of the one before it on the subject, so a second writer is
//! noticed by whoever comes later:
//!
//! ```text
//! refused ─► last message on the subject ─┬─ is this very message (its ack was lost)   ─► go on
//!                                         ├─ is of a lower attempt, written at the last ─► number after it, publish again
//!                                         ├─ is an older one of ours                    ─► publish again behind it
//!                                         ├─ is of a higher attempt, or the end          ─► FenceLost: stop
//!                                         └─ is gone, though something was there         ─► StreamLost: stop
//! ```
//!
//! When NATS lost its data nobody here knows which records had reached Postgres; the desk does, and numbers the next
//! attempt's from there. To go on writing would leave a hole.
//!
//! Every message also says where the build stands, for the runner that comes after this one. Notes of it wait in
//! the same queue as the lines; a note leaves with the next line.
//!
//! Not done here: the terminal record, which is the desk's.

use std::sync::Arc;

use async_nats::{
    header::NATS_MESSAGE_ID,
    jetstream::{
        Context,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        stream::LastRawMessageErrorKind,
    },
};
use bytes::Bytes;
use chrono::Utc;
use ovenbird_agent_client::OutputStream;
use ovenbird_contract::{
    desk::LogPosition,
    id::BuildId,
    limits::LOG_RECORD_TEXT_MAX,
    log::{Batch, Record, Stream, decode},
    nats::Names,
    standing::Standing,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    batch::{Entry, Open},
    output::{Marks, OutputLine},
    progress::Progress,
    standing::{Keeper, Note},
};
use crate::metrics::Metrics;

/// Text that may wait for the writer, in bytes; beyond it callers wait.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// What a line costs at least, so that empty lines are bounded too.
const LINE_COST_MIN: usize = 64;
/// A log that cannot be written for this long ends the attempt, even when the lease holds.
const RETRIES_FOR: Duration = Duration::from_secs(300);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// The log takes nothing any more: its writer has stopped, and says why when it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the build's log takes nothing any more")]
pub struct Closed;

/// Why the writer stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A higher attempt writes this log, or it has ended: this attempt is over.
    #[error("another writer has taken over the log")]
    FenceLost,
    /// NATS has lost what was written to the log.
    #[error("NATS has lost what was in the log")]
    StreamLost,
    /// NATS did not take it while the lease held, or for too long.
    #[error("NATS did not take the log")]
    GaveUp,
    /// NATS will never take this message.
    #[error("a log message of {bytes} bytes was refused")]
    Refused {
        /// Its size.
        bytes: usize,
        /// Why.
        #[source]
        source: PublishError,
    },
    /// The writer's task broke.
    #[error("the log writer broke")]
    Broken(#[source] tokio::task::JoinError),
}

/// What is written, and from where on.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// The installation's names.
    pub names: Names,
    /// The build.
    pub build_id: BuildId,
    /// The attempt that writes.
    pub attempt: u32,
    /// As the claim says.
    pub position: LogPosition,
    /// Where the build stands, when this attempt goes on with it.
    pub standing: Option<Standing>,
    /// What counts it.
    pub metrics: Metrics,
}

/// Where lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    entries: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

/// What waits for the writer.
#[derive(Debug)]
enum Item {
    Line(Entry, OwnedSemaphorePermit),
    Note(Note),
    /// Told when everything before it is in the log.
    Flush(oneshot::Sender<()>),
}

impl Log {
    /// Writes Ovenbird's own words, one record a line; a long line goes out in parts.
    ///
    /// # Errors
    /// [`Closed`] when the writer has stopped.
    pub async fn system(&self, step: u32, text: &str) -> Result<(), Closed> {
        for mut line in text.lines() {
            while line.len() > LOG_RECORD_TEXT_MAX {
                let (part, rest) = line.split_at(line.floor_char_boundary(LOG_RECORD_TEXT_MAX));
                self.send(own_words(step, part, true)).await?;
                line = rest;
            }
            self.send(own_words(step, line, false)).await?;
        }
        Ok(())
    }

    /// Writes what is to be said about a command's output, up to `marks`.
    ///
    /// # Errors
    /// [`Closed`] when the writer has stopped.
    pub async fn cut(
        &self,
        step: u32,
        text: &str,
        marks: Marks,
        progress: &Progress,
    ) -> Result<(), Closed> {
        let source = Some((progress.clone(), marks));
        self.send(Entry { source, ..own_words(step, text, false) }).await
    }

    /// Writes a line of a command's output. Waits while the log is behind.
    ///
    /// # Errors
    /// [`Closed`] when the writer has stopped.
    pub async fn output(
        &self,
        step: u32,
        line: &OutputLine,
        progress: Option<&Progress>,
    ) -> Result<(), Closed> {
        let (text, data) = decode(&line.bytes);
        let stream = match line.stream {
            OutputStream::Stdout => Stream::Stdout,
            OutputStream::Stderr => Stream::Stderr,
        };
        let source = progress.map(|progress| (progress.clone(), line.marks));
        self.send(Entry { ts: Utc::now(), step, stream, text, data, cont: line.cont, source }).await
    }

    /// Notes where the build stands from the next line on.
    ///
    /// # Errors
    /// [`Closed`] when the writer has stopped.
    pub async fn note(&self, note: Note) -> Result<(), Closed> {
        self.entries.send(Item::Note(note)).await.map_err(|_| Closed)
    }

    /// Waits until every line so far is in the log.
    ///
    /// # Errors
    /// [`Closed`] when the writer has stopped before.
    pub async fn flush(&self) -> Result<(), Closed> {
        let (done, flushed) = oneshot::channel();
        self.entries.send(Item::Flush(done)).await.map_err(|_| Closed)?;
        flushed.await.map_err(|_| Closed)
    }

    async fn send(&self, entry: Entry) -> Result<(), Closed> {
        let cost = entry.text.len().clamp(LINE_COST_MIN, WAITING_BYTES_MAX);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await.map_err(|_| Closed)?;
        self.entries.send(Item::Line(entry, room)).await.map_err(|_| Closed)
    }
}

fn own_words(step: u32, text: &str, cont: bool) -> Entry {
    Entry {
        ts: Utc::now(),
        step,
        stream: Stream::System,
        text: text.to_owned(),
        data: None,
        cont,
        source: None,
    }
}

/// Owns the task that writes.
#[derive(Debug)]
pub struct Writer {
    task: JoinHandle<Result<LogPosition, WriteError>>,
    closing: CancellationToken,
}

impl Writer {
    /// Starts writing. Once `give_up` is cancelled a publish that fails is not repeated any more.
    pub fn start(
        jetstream: Context,
        config: WriterConfig,
        give_up: CancellationToken,
    ) -> (Self, Log) {
        let (sender, receiver) = mpsc::channel(WAITING_BYTES_MAX / LINE_COST_MIN);
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        let closing = CancellationToken::new();
        let task = Task {
            subject: config.names.logs(&config.build_id),
            stream: config.names.logs_stream().name,
            build_id: config.build_id,
            attempt: config.attempt,
            position: config.position,
            keeper: Keeper::new(config.standing),
            metrics: config.metrics,
            jetstream,
            give_up,
        };
        let run = run(task, receiver, Arc::clone(&room), closing.clone());
        (Self { task: tokio::spawn(run.in_current_span()), closing }, Log { entries: sender, room })
    }

    /// Writes what waits, takes nothing more, and says where the log stands.
    ///
    /// # Errors
    /// Why not everything was written.
    pub async fn close(self) -> Result<LogPosition, WriteError> {
        self.closing.cancel();
        self.task.await.map_err(WriteError::Broken)?
    }
}

async fn run(
    mut task: Task,
    mut entries: mpsc::Receiver<Item>,
    room: Arc<Semaphore>,
    closing: CancellationToken,
) -> Result<LogPosition, WriteError> {
    let mut next = None;
    let written = loop {
        let first = match next.take() {
            Some(first) => first,
            None => tokio::select! {
                first = entries.recv() => match first {
                    Some(first) => first,
                    None => break Ok(task.position),
                },
                () = closing.cancelled(), if !entries.is_closed() => {
                    entries.close();
                    continue;
                }
            },
        };
        let (entry, mut held) = match first {
            Item::Line(entry, permit) => (entry, permit),
            Item::Note(note) => {
                task.keeper.note(note);
                continue;
            }
            Item::Flush(done) => {
                // Who does not wait any more does not have to be told.
                let _ = done.send(());
                continue;
            }
        };
        let mut open = Open::default();
        let none = task.add(&mut open, entry);
        debug_assert!(none.is_none(), "an empty batch takes any line");
        while let Ok(item) = entries.try_recv() {
            match item {
                Item::Line(entry, permit) => match task.add(&mut open, entry) {
                    None => held.merge(permit),
                    Some(entry) => {
                        next = Some(Item::Line(entry, permit));
                        break;
                    }
                },
                Item::Note(note) => task.keeper.note(note),
                flush @ Item::Flush(_) => {
                    next = Some(flush);
                    break;
                }
            }
        }
        if let Err(error) = task.publish(&open).await {
            break Err(error);
        }
        if let Some((_, progress, marks)) = open.source() {
            progress.advance(*marks);
        }
    };
    // Whoever waits for room must hear that there will be none.
    room.close();
    written
}

struct Task {
    jetstream: Context,
    subject: String,
    stream: String,
    build_id: BuildId,
    attempt: u32,
    position: LogPosition,
    keeper: Keeper,
    metrics: Metrics,
    give_up: CancellationToken,
}

/// What a refused sequence means.
enum Resolved {
    /// This very message is in the stream, at this sequence.
    Written(u64),
    /// Publish again from here.
    Again(LogPosition),
}

impl Task {
    /// Adds a line to the batch, or gives it back when it belongs into the next one.
    fn add(&mut self, open: &mut Open, entry: Entry) -> Option<Entry> {
        let (step, source) = (entry.step, entry.source.clone());
        let back = open.add(entry);
        if let (None, Some((progress, marks))) = (&back, source) {
            self.keeper.logged(step, &progress, marks);
        }
        back
    }

    async fn publish(&mut self, open: &Open) -> Result<(), WriteError> {
        let mut delay = RETRY_FIRST;
        let end = Instant::now() + RETRIES_FOR;
        loop {
            let payload = encode(&open.numbered(
                self.position.next_seq,
                self.attempt,
                self.keeper.standing().cloned(),
            ));
            // The attempt is part of the id: two attempts may begin at the same record, and the server must
            // not take the second one's message for a repetition of the first one's.
            let id = format!("{}.{}.{}", self.build_id, self.attempt, self.position.next_seq);
            let failed = match self.send(&id, payload.clone()).await {
                Ok(sequence) => {
                    self.wrote(open, sequence);
                    return Ok(());
                }
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    match self.resolve(&id).await? {
                        Some(Resolved::Written(sequence)) => {
                            self.wrote(open, sequence);
                            return Ok(());
                        }
                        Some(Resolved::Again(position)) => {
                            self.position = position;
                            continue;
                        }
                        None => error,
                    }
                }
                Err(source) if source.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Err(WriteError::Refused { bytes: payload.len(), source });
                }
                Err(error) => error,
            };
            if self.give_up.is_cancelled() || Instant::now() >= end {
                return Err(WriteError::GaveUp);
            }
            tracing::warn!(build.id = %self.build_id, error = %failed, "log publish failed, trying again");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.give_up.cancelled() => {}
            }
            delay = (delay * 2).min(RETRY_LONGEST);
        }
    }

    async fn send(&self, id: &str, payload: Bytes) -> Result<u64, PublishError> {
        let message = PublishMessage::build()
            .payload(payload)
            .message_id(id)
            .expected_last_subject_sequence(self.position.stream_seq);
        let ack = self.jetstream.send_publish(self.subject.clone(), message).await?.await?;
        Ok(ack.sequence)
    }

    fn wrote(&mut self, open: &Open, sequence: u64) {
        self.position.next_seq += open.entries.len() as u64;
        self.position.stream_seq = sequence;
        if let Some(oldest) = open.entries.first() {
            let bytes = open.entries.iter().map(|entry| entry.text.len()).sum();
            let lag = (Utc::now() - oldest.ts).to_std().unwrap_or_default();
            self.metrics.log_written(open.entries.len(), bytes, lag);
        }
    }

    /// Nothing when the stream cannot be asked now.
    async fn resolve(&self, id: &str) -> Result<Option<Resolved>, WriteError> {
        let Ok(stream) = self.jetstream.get_stream_no_info(&self.stream).await else {
            return Ok(None);
        };
        let ours = self.position.next_seq;
        let last = match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(last) => last,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Err(WriteError::StreamLost);
            }
            Err(_) => return Ok(None),
        };
        if last.headers.get(NATS_MESSAGE_ID).is_some_and(|header| header.as_str() == id) {
            return Ok(Some(Resolved::Written(last.sequence)));
        }
        let record = serde_json::from_slice::<Batch>(&last.payload)
            .ok()
            .and_then(|mut batch| batch.records.pop());
        match record {
            Some(Record::Line(line)) if line.attempt < self.attempt => {
                let next_seq = ours.max(line.seq + 1);
                Ok(Some(Resolved::Again(LogPosition { next_seq, stream_seq: last.sequence })))
            }
            Some(Record::Line(line)) if line.attempt == self.attempt && line.seq < ours => {
                Ok(Some(Resolved::Again(LogPosition { next_seq: ours, stream_seq: last.sequence })))
            }
            _ => Err(WriteError::FenceLost),
        }
    }
}

fn encode(batch: &Batch) -> Bytes {
    serde_json::to_vec(batch).expect("a batch has no map with other keys than text").into()
}
