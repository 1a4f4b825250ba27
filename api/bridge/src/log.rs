//! Where a build's log stands, and the few records that the bridge writes itself: that an attempt begins
//! again, and that the build is over.
//!
//! Every write names the stream sequence that it expects to be the last on the subject, like a runner's. So
//! the record that begins an attempt also fences off the log of the runner before, and a terminal record
//! is the last one. What the last message says of where the build stands is final then, too.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
    stream::LastRawMessageErrorKind,
};
use chrono::Utc;
use ovenbird_contract::{
    desk::LogPosition,
    id::BuildId,
    log::{Batch, LineRecord, Record, Stream},
    nats::Names,
    standing::Standing,
};
use ovenbird_db::store::finish::Ended;

use crate::streams;

/// How often a write is tried when another writer was faster. Only a runner that was cut off competes,
/// and each of its batches is refused after one of ours.
const TRIES: usize = 8;
/// One publish or look-up.
const TIMEOUT: Duration = Duration::from_secs(2);
const LOST: &str =
    "NATS lost this log before its end was stored; lines before this one may be missing.";

/// The log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream did not say what it holds.
    #[error("the log's end cannot be looked up")]
    Look(#[source] async_nats::Error),
    /// The stream did not take the record.
    #[error("the log takes no record")]
    Publish(#[source] PublishError),
    /// No answer in time.
    #[error("the log does not answer in time")]
    TimedOut,
    /// Others wrote at the same time, again and again.
    #[error("another writer was faster {TRIES} times")]
    Contended,
    /// The stream took the record for a duplicate of one that it does not hold any more.
    #[error("the stream takes the record for one that it had before")]
    Swallowed,
    /// A batch has no JSON form.
    #[error("a record has no JSON form")]
    Json(#[source] serde_json::Error),
}

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last record; 0 when there is none.
    pub last_seq: u64,
    /// Stream sequence of the last message; 0 when there is none.
    pub stream_seq: u64,
    /// The last record is the terminal one.
    pub ended: bool,
}

/// Where a log stands, and the build with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The log.
    pub at: Position,
    /// What the last message says of the build.
    pub standing: Option<Standing>,
}

/// Where a log stands after a write.
struct Appended {
    seen: Seen,
    /// This write did it.
    is_new: bool,
}

impl From<LogPosition> for Position {
    fn from(at: LogPosition) -> Self {
        Self { last_seq: at.next_seq.saturating_sub(1), stream_seq: at.stream_seq, ended: false }
    }
}

impl From<Position> for LogPosition {
    fn from(at: Position) -> Self {
        Self { next_seq: at.last_seq.saturating_add(1), stream_seq: at.stream_seq }
    }
}

/// The logs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    js: Context,
    names: Names,
    streams: streams::Handle,
}

impl Log {
    /// Over `js`; a missing stream is told to `streams`.
    pub fn new(js: Context, names: Names, streams: streams::Handle) -> Self {
        Self { js, names, streams }
    }

    /// Where the log of `build` stands, but not before record `floor`: what Postgres knows to have been
    /// logged keeps its number, even when the stream lost it.
    ///
    /// # Errors
    /// [`Error::Look`], [`Error::TimedOut`].
    pub async fn position(&self, build: BuildId, floor: u64) -> Result<Position, Error> {
        Ok(self.seen(build, floor).await?.at)
    }

    /// As [`Log::position`], with what the last message says of the build.
    ///
    /// # Errors
    /// [`Error::Look`], [`Error::TimedOut`].
    pub async fn seen(&self, build: BuildId, floor: u64) -> Result<Seen, Error> {
        let look = self.look(build);
        let mut seen = tokio::time::timeout(TIMEOUT, look).await.map_err(|_| Error::TimedOut)??;
        seen.at.last_seq = seen.at.last_seq.max(floor);
        Ok(seen)
    }

    async fn look(&self, build: BuildId) -> Result<Seen, Error> {
        let stream = self
            .js
            .get_stream_no_info(self.names.logs_stream().name)
            .await
            .map_err(|error| Error::Look(error.into()))?;
        let subject = self.names.logs(&build);
        let message = match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => message,
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                let at = Position { last_seq: 0, stream_seq: 0, ended: false };
                return Ok(Seen { at, standing: None });
            }
            Err(error) => {
                self.streams.wake();
                return Err(Error::Look(error.into()));
            }
        };
        let Batch { records, standing, .. } =
            serde_json::from_slice(&message.payload).map_err(Error::Json)?;
        let last = records.last();
        let at = Position {
            last_seq: last.map_or(0, Record::seq),
            stream_seq: message.sequence,
            ended: last.is_some_and(Record::is_end),
        };
        Ok(Seen { at, standing })
    }

    /// Writes that `attempt` begins; answers where the runner goes on. `decide` makes the line, and says
    /// where the build goes on, of what the last message before it says. Repeating it writes nothing more
    /// within the stream's duplicate window, and answers the same while nobody else writes.
    ///
    /// # Errors
    /// [`Error`]; the record may be written or not.
    pub async fn begin_again(
        &self,
        build: BuildId,
        attempt: u32,
        floor: u64,
        decide: impl Fn(Option<Standing>) -> (String, Option<Standing>),
    ) -> Result<Seen, Error> {
        let message_id = format!("{build}.attempt.{attempt}");
        let compose = |seq, before: &Seen| {
            let (text, standing) = decide(before.standing.clone());
            let records = vec![system_line(seq, attempt, &text)];
            Batch { records, resume: None, standing }
        };
        Ok(self.append(build, None, floor, &message_id, compose).await?.seen)
    }

    /// Writes the terminal record of a build that is over; answers whether it did, for it may be there. `at` is
    /// where the log stood last, as far as the caller knows. A log of which some is stored, and that the stream has
    /// lost, goes on after that and says so.
    ///
    /// # Errors
    /// [`Error`]; the record may be written or not.
    pub async fn end(&self, ended: &Ended, at: Option<LogPosition>) -> Result<bool, Error> {
        let message_id = format!("{}.end", ended.build);
        let compose = |seq, before: &Seen| {
            let is_lost = before.at.stream_seq == 0 && ended.log_seq > 0;
            let why = [is_lost.then_some(LOST), ended.lost.as_deref(), ended.cancelled.as_deref()];
            let lines = (seq..).zip(why.into_iter().flatten());
            let mut records: Vec<_> =
                lines.map(|(seq, why)| system_line(seq, ended.attempt, why)).collect();
            records.push(Record::end(seq + records.len() as u64, ended.status));
            Batch::of(records)
        };
        let at = at.map(|at| Seen { at: at.into(), standing: None });
        let end = self.append(ended.build, at, ended.log_seq, &message_id, compose).await?;
        if end.seen.at.ended { Ok(end.is_new) } else { Err(Error::Swallowed) }
    }

    async fn append(
        &self,
        build: BuildId,
        mut before: Option<Seen>,
        floor: u64,
        message_id: &str,
        compose: impl Fn(u64, &Seen) -> Batch,
    ) -> Result<Appended, Error> {
        for _ in 0..TRIES {
            let seen = match before.take() {
                Some(seen) => seen,
                None => self.seen(build, floor).await?,
            };
            let at = seen.at;
            if at.ended {
                return Ok(Appended { seen: Seen { at, standing: None }, is_new: false });
            }
            let last_seq = at.last_seq.max(floor);
            let batch = compose(last_seq + 1, &seen);
            let last_seq = batch.records.last().map_or(last_seq, Record::seq);
            let ended = batch.records.last().is_some_and(Record::is_end);
            let message = PublishMessage::build()
                .message_id(message_id)
                .expected_last_subject_sequence(at.stream_seq)
                .payload(serde_json::to_vec(&batch).map_err(Error::Json)?.into());
            match self.publish(build, message).await {
                Ok(ack) if ack.duplicate => {
                    let seen = self.seen(build, floor).await?;
                    return Ok(Appended { seen, is_new: false });
                }
                Ok(ack) => {
                    let at = Position { last_seq, stream_seq: ack.sequence, ended };
                    let seen = Seen { at, standing: batch.standing };
                    return Ok(Appended { seen, is_new: true });
                }
                Err(error) => match error.kind() {
                    PublishErrorKind::WrongLastSequence => {}
                    PublishErrorKind::StreamNotFound => {
                        self.streams.wake();
                        return Err(Error::Publish(error));
                    }
                    PublishErrorKind::TimedOut => return Err(Error::TimedOut),
                    _ => return Err(Error::Publish(error)),
                },
            }
        }
        Err(Error::Contended)
    }

    async fn publish(
        &self,
        build: BuildId,
        message: PublishMessage,
    ) -> Result<async_nats::jetstream::publish::PublishAck, PublishError> {
        let publish = async { self.js.send_publish(self.names.logs(&build), message).await?.await };
        tokio::time::timeout(TIMEOUT, publish)
            .await
            .unwrap_or_else(|_| Err(PublishError::new(PublishErrorKind::TimedOut)))
    }
}

fn system_line(seq: u64, attempt: u32, text: &str) -> Record {
    Record::Line(LineRecord {
        seq,
        ts: Utc::now(),
        attempt,
        step: 0,
        stream: Stream::System,
        text: text.to_owned(),
        cont: false,
        data: None,
    })
}
