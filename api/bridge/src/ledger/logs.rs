//! Log messages: the records as they are, whatever the attempt. The stream refused every writer but one
//! already.
//!
//! A log is stored without holes as long as the stream has what is missing: a message that another bridge took and
//! has not stored, or never will, is read from the stream here rather than waited for. So when NATS loses its data,
//! what Postgres has is a log from its beginning, and the next attempt's records follow it.

use std::collections::BTreeMap;

use async_nats::jetstream::{
    Message,
    stream::{LastRawMessageErrorKind, Stream},
};
use ovenbird_contract::{
    id::BuildId,
    log::{Batch, Record},
};
use ovenbird_db::store::{self, ledger::LogBatch};
use ovenbird_kit::telemetry::chain;

use super::{Feed, Service, poison, stream_seq};

/// Messages that are read for one build at once; what lies before those comes again by itself.
const FILL_MAX: usize = 1_000;

/// A message that is in hand: its records, and its place in the stream.
struct InHand {
    first: u64,
    last: u64,
    stream_seq: u64,
}

impl Service {
    pub(super) async fn apply_logs(&self, messages: &[Message]) -> Result<(), store::Error> {
        let mut batches = Vec::with_capacity(messages.len());
        for message in messages {
            match decode(message) {
                Ok(batch) => batches.push(batch),
                Err(why) => poison(Feed::Logs, message, &why).await,
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        batches.extend(self.missing(&batches).await?);
        for status in self.store.build_log_store(&batches).await? {
            self.metrics.build_ended(status);
        }
        for batch in &batches {
            if let Some(Record::Line(first)) = batch.records.first() {
                self.metrics.log_stored(first.ts);
            }
        }
        Ok(())
    }

    /// What of these builds' logs lies before `batches`, or between two of them, and is not stored.
    async fn missing(&self, batches: &[LogBatch]) -> Result<Vec<LogBatch>, store::Error> {
        let mut in_hand: BTreeMap<BuildId, Vec<InHand>> = BTreeMap::new();
        for batch in batches {
            let (Some(first), Some(last)) = (batch.records.first(), batch.records.last()) else {
                continue;
            };
            let (first, last) = (first.seq(), last.seq());
            let message = InHand { first, last, stream_seq: batch.stream_seq };
            in_hand.entry(batch.build).or_default().push(message);
        }
        let ids: Vec<BuildId> = in_hand.keys().copied().collect();
        let mut holes = Vec::new();
        for (build, log_seq) in self.store.build_log_seqs(&ids).await? {
            let messages = in_hand.remove(&build).unwrap_or_default();
            for hole in holes_in(messages, log_seq) {
                let after = match hole.after {
                    Some(after) => after,
                    None => self.store.build_log_stored(build, hole.first).await?,
                };
                holes.push((build, after, hole.until));
            }
        }
        if holes.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(stream) = self.js.get_stream_no_info(self.names.logs_stream().name).await else {
            return Ok(Vec::new());
        };
        let mut missing = Vec::new();
        for (build, after, until) in holes {
            self.fill(&stream, build, after, until, &mut missing).await;
        }
        Ok(missing)
    }

    /// The messages of a build between two places of the stream, or the first of them: a stream that does not answer
    /// is no reason to keep back what is in hand.
    async fn fill(
        &self,
        stream: &Stream<()>,
        build: BuildId,
        mut after: u64,
        until: u64,
        missing: &mut Vec<LogBatch>,
    ) {
        let subject = self.names.logs(&build);
        for _ in 0..FILL_MAX {
            let next = stream.get_first_raw_message_by_subject(&subject, after + 1).await;
            let message = match next {
                Ok(message) if message.sequence < until => message,
                Ok(_) => return,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return,
                Err(error) => {
                    tracing::info!(build.id = %build, error = chain(&error), "part of a log waits for its messages to come again");
                    return;
                }
            };
            after = message.sequence;
            if let Ok(Batch { records, .. }) = serde_json::from_slice(&message.payload) {
                missing.push(LogBatch { build, stream_seq: after, records });
            }
        }
    }
}

/// Records that are neither stored nor in hand lie between two places of the stream.
struct Hole {
    /// The stream sequence of the message before; absent when that is not in hand.
    after: Option<u64>,
    until: u64,
    /// The record behind it.
    first: u64,
}

fn holes_in(mut messages: Vec<InHand>, log_seq: u64) -> Vec<Hole> {
    messages.sort_by_key(|message| message.first);
    let (mut known, mut after) = (log_seq, None);
    let mut holes = Vec::new();
    for InHand { first, last, stream_seq } in messages {
        if first > known + 1 {
            holes.push(Hole { after, until: stream_seq, first });
        }
        if last > known {
            (known, after) = (last, Some(stream_seq));
        }
    }
    holes
}

fn decode(message: &Message) -> Result<LogBatch, String> {
    let build: BuildId = message
        .subject
        .rsplit_once('.')
        .and_then(|(_, id)| id.parse().ok())
        .ok_or("the subject names no build")?;
    let batch: Batch =
        serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
    Ok(LogBatch { build, stream_seq: stream_seq(message), records: batch.records })
}
