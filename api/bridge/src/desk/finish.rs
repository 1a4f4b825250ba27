//! `desk.finish`: waits for the ledger, ends the build in one transaction, then writes the terminal record
//! of its log. The answer does not depend on the record: the sweep writes it when this cannot.

use std::time::Duration;

use async_nats::service;
use ovenbird_contract::desk::{FinishRequest, Finished, LogPosition, Reply};
use ovenbird_db::store::{
    finish::{Ended, Request},
    lease::Holder,
};
use ovenbird_kit::telemetry::chain;
use tokio::time::Instant;

use super::{Desk, lease_refused, note, read, send, unavailable};

/// The ledger is asked again after this long at first, and at most.
const APPLIED_FIRST: Duration = Duration::from_millis(5);
const APPLIED_LONGEST: Duration = Duration::from_millis(100);

impl Desk {
    pub(super) async fn answer_finish(&self, request: &service::Request) -> &'static str {
        let ended = match read(request) {
            Ok(message) => self.finish(message).await,
            Err(refusal) => Err(Reply::Refused(refusal)),
        };
        match ended {
            Ok(ended) => {
                let outcome = send(request, &Reply::Ok(Finished {})).await;
                self.states.tell(ended.build, ended.attempt, ended.status).await;
                outcome
            }
            Err(refused) => send(request, &refused).await,
        }
    }

    async fn finish(&self, message: FinishRequest) -> Result<Ended, Reply<Finished>> {
        let FinishRequest { build_id, attempt, runner_id, outcome, log, event_stream_seq } =
            message;
        note(build_id, attempt);
        let holder = Holder { build: build_id, attempt, runner: runner_id };
        self.applied(&holder, event_stream_seq, self.finish_wait).await;
        let request = Request { holder, outcome, log };
        let ended = match self.store.build_finish(&request).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(why)) => return Err(lease_refused(why)),
            Err(error) => return Err(unavailable(&error)),
        };
        tracing::info!(build.id = %build_id, attempt, status = %ended.status, "build ended");
        self.log_ends(&ended, log).await;
        self.next_turns(build_id).await;
        Ok(ended)
    }

    /// Waits until the row holds the steps that the runner told of, within bounds: a build must end
    /// also while the ledger is behind, and its last steps come later then.
    pub(super) async fn applied(&self, holder: &Holder, stream_seq: u64, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pause = APPLIED_FIRST;
        while Instant::now() < until {
            match self.store.build_events_applied(holder, stream_seq).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::info!(error = chain(&error), "cannot see how far the ledger is");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(APPLIED_LONGEST);
        }
        tracing::warn!(build.id = %holder.build, stream_seq, "the ledger is behind; going on without it");
    }

    async fn log_ends(&self, ended: &Ended, at: LogPosition) {
        if ended.log_end_written {
            return;
        }
        match self.log.end(ended, Some(at)).await {
            Ok(seq) => {
                self.metrics.build_ended(ended.status);
                if let Err(error) = self.store.build_log_ended(ended.build, seq).await {
                    tracing::info!(build.id = %ended.build, error = chain(&error), "left to the sweep");
                }
            }
            Err(error) => {
                tracing::warn!(
                    build.id = %ended.build, error = chain(&error),
                    "the log's end is not written; the sweep does it"
                );
            }
        }
    }
}
