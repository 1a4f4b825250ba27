//! Log messages: the records as they are, whatever the attempt. The stream refused every writer but one
//! already.

use async_nats::jetstream::Message;
use ovenbird_contract::{id::BuildId, log::Batch};
use ovenbird_db::store::{self, ledger::LogBatch};

use super::{Feed, Service, poison, stream_seq};

impl Service {
    pub(super) async fn apply_logs(&self, messages: &[Message]) -> Result<(), store::Error> {
        let mut batches = Vec::with_capacity(messages.len());
        for message in messages {
            match decode(message) {
                Ok(batch) => batches.push(batch),
                Err(why) => poison(Feed::Logs, message, &why).await,
            }
        }
        if batches.is_empty() { Ok(()) } else { self.store.build_log_store(&batches).await }
    }
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
