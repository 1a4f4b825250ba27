//! Events: folded into one entry for each build and attempt. An event of an attempt that is not the
//! build's present one changes nothing; the statement that writes compares it.

use std::collections::BTreeMap;

use async_nats::jetstream::Message;
use ovenbird_contract::event::{Event, What};
use ovenbird_db::store::{self, ledger::Progress};

use super::{Feed, Service, poison, stream_seq};

impl Service {
    pub(super) async fn apply_events(&self, messages: &[Message]) -> Result<(), store::Error> {
        let mut progress = BTreeMap::new();
        for message in messages {
            match serde_json::from_slice::<Event>(&message.payload) {
                Ok(event) => fold(&mut progress, event, stream_seq(message)),
                Err(error) => poison(Feed::Events, message, &error.to_string()).await,
            }
        }
        let progress: Vec<Progress> = progress.into_values().collect();
        if progress.is_empty() { Ok(()) } else { self.store.build_progress(&progress).await }
    }
}

fn fold(progress: &mut BTreeMap<(uuid::Uuid, u32), Progress>, event: Event, stream_seq: u64) {
    let entry =
        progress.entry((event.build_id.uuid(), event.attempt)).or_insert_with(|| Progress {
            build: event.build_id,
            attempt: event.attempt,
            steps: Vec::new(),
            current_step: 0,
            sandbox: None,
            stream_seq: 0,
        });
    entry.stream_seq = entry.stream_seq.max(stream_seq);
    match event.what {
        What::State { .. } => {}
        What::Sandbox { sandbox_id } => match sandbox_id.parse() {
            Ok(id) => entry.sandbox = Some(entry.sandbox.map_or(id, |before| before.max(id))),
            Err(_) => {
                tracing::warn!(build.id = %event.build_id, sandbox_id, "no sandbox id; ignored")
            }
        },
        What::StepStarted { step, .. } => entry.current_step = entry.current_step.max(step),
        What::StepFinished(step) => entry.steps.push(step),
    }
}
