//! `desk.finish`: waits for the ledger, ends the build in one transaction, then writes the terminal record
//! of its log. The answer does not depend on the record: the sweep writes it when this cannot, and until the ledger
//! has it.

use std::time::Duration;

use async_nats::service;
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{FinishRequest, Finished, LogPosition, Outcome, RefusalCode, ReleaseRequest, Reply},
};
use ovenbird_db::store::{
    finish::{Ended, Request, Said},
    lease::{Expired, Holder, Refused},
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
        let success = matches!(outcome, Outcome::Succeeded(_));
        let log_seq = if success { log.next_seq.saturating_sub(1) } else { 0 };
        let applied = self.applied(&holder, Said { event_stream_seq, log_seq }, self.finish_wait);
        if !applied.await && success {
            self.log_is_whole(&holder, log).await?;
        }
        let request = Request { holder, outcome };
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

    /// Waits until Postgres holds what the runner said, within bounds: a build must end also while the ledger is
    /// behind, and the rest comes later then. Answers whether it does.
    pub(super) async fn applied(&self, holder: &Holder, said: Said, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut pause = APPLIED_FIRST;
        while Instant::now() < until {
            match self.store.build_applied(holder, said).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::info!(error = chain(&error), "cannot see how far the ledger is");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(APPLIED_LONGEST);
        }
        tracing::warn!(build.id = %holder.build, ?said, "the ledger is behind; going on without it");
        false
    }

    /// A success whose log NATS lost before it was stored is an attempt that is lost, like one that NATS' loss found
    /// in mid-step.
    async fn log_is_whole(&self, holder: &Holder, at: LogPosition) -> Result<(), Reply<Finished>> {
        let said = Said { event_stream_seq: 0, log_seq: at.next_seq.saturating_sub(1) };
        if self.store.build_applied(holder, said).await.map_err(|error| unavailable(&error))? {
            return Ok(());
        }
        let seen = self.log.seen(holder.build, 0).await.map_err(|error| unavailable(&error))?;
        if seen.at.stream_seq >= at.stream_seq {
            return Ok(());
        }
        let message = "NATS lost the end of the build's log before it was stored".to_owned();
        let why = "the log is lost".to_owned();
        let lost = Some(Reason { code: ReasonCode::Internal, message, step: None, tail: None });
        let Holder { build: build_id, attempt, runner: runner_id } = *holder;
        match self.release(ReleaseRequest { build_id, attempt, runner_id, why, lost }).await {
            Ok(Expired { build, attempt, status, .. }) => {
                self.states.tell(build, attempt, status).await;
                Err(lease_refused(Refused::Stale { attempt }))
            }
            Err(Reply::Refused(refusal)) if refusal.code == RefusalCode::Unavailable => {
                Err(Reply::Refused(refusal))
            }
            // Whether it may end all the same, the statement that ends it decides.
            Err(_) => Ok(()),
        }
    }

    async fn log_ends(&self, ended: &Ended, at: LogPosition) {
        if ended.log_end_written {
            return;
        }
        if let Err(error) = self.log.end(ended, Some(at)).await {
            tracing::warn!(
                build.id = %ended.build, error = chain(&error),
                "the log's end is not written; the sweep does it"
            );
        }
    }
}
