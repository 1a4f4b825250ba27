//! From a job to a claim: what a slot does with what it fetched.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use ovenbird_contract::{
    desk::{Refusal, RefusalCode},
    id::BuildId,
    job::Job,
};
use ovenbird_kit::telemetry::trace;
use tokio::time::{Duration, Instant};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    attempt::{self, Shared},
    desk::{Error, Held},
    queue::Verdict,
};

/// How long a claim is asked for. Jobs come again by themselves.
const CLAIM_FOR: Duration = Duration::from_secs(20);
/// How long it is tried to give an attempt back whose claim was not answered; its lease ends by itself.
const GIVEN_BACK_FOR: Duration = Duration::from_secs(2);
const AWAY_AGAIN: Duration = Duration::from_secs(5);
/// When the desk does not say when there may be room.
const ROOM_AGAIN: Duration = Duration::from_secs(5);
/// A job that comes again while its build runs here: the next attempt's, when this one is just being given up.
const RUNNING_AGAIN: Duration = Duration::from_secs(5);

/// Works on jobs, any number at once. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    shared: Shared,
    running: Arc<Mutex<HashSet<BuildId>>>,
}

impl Worker {
    /// With nothing running.
    pub fn new(shared: Shared) -> Self {
        Self { shared, running: Arc::default() }
    }

    /// Claims the job's build and runs it to the end of this attempt, in the trace of the job.
    pub async fn work(&self, job: Job) -> Verdict {
        let span = tracing::info_span!(
            "attempt",
            otel.kind = "consumer",
            otel.status_code = Empty,
            build.id = %job.build_id,
            attempt = job.attempt,
            runner.id = %self.shared.desk.runner_id(),
            host.id = Empty,
            claim = Empty,
            ending = Empty,
            trace.id = Empty,
        );
        trace::join(&span, &job.trace);
        self.work_in_span(job).instrument(span).await
    }

    async fn work_in_span(&self, job: Job) -> Verdict {
        // The server redelivers a job when it heard nothing for too long, to this runner too; the desk
        // would answer it with the claim that is being worked on.
        let Some(_running) = Running::begin(&self.running, job.build_id) else {
            return Verdict::Again(RUNNING_AGAIN);
        };
        let metrics = &self.shared.metrics;
        let _busy = metrics.slot_busy();
        let since = Instant::now();
        let desk = self.shared.desk.clone().traced(&job.trace);
        let claim = desk.claim(&job, since + CLAIM_FOR).await;
        let word = metrics.claim_answered(&claim, since.elapsed());
        Span::current().record("claim", word);
        let claim = match claim {
            Ok(claim) => claim,
            Err(error) => return self.not_claimed(&job, &error).await,
        };
        Box::pin(attempt::run(&self.shared, claim, since, &job.trace)).await;
        Verdict::Ack
    }

    async fn not_claimed(&self, job: &Job, error: &Error) -> Verdict {
        if let Error::Refused(refusal) = error
            && let Some(verdict) = refused(job, refusal)
        {
            return verdict;
        }
        let chain = ovenbird_kit::telemetry::chain(error);
        tracing::warn!(build.id = %job.build_id, error = chain, "claim not answered");
        // The attempt may have begun all the same: given back, it is no lost one.
        let held = Held { build_id: job.build_id, attempt: job.attempt };
        let until = Instant::now() + GIVEN_BACK_FOR;
        match self.shared.desk.release(held, "its claim was not answered", None, until).await {
            Ok(()) => Verdict::Ack,
            Err(_) => Verdict::Again(AWAY_AGAIN),
        }
    }
}

/// What becomes of a job that the desk refused; nothing when it only could not decide.
fn refused(job: &Job, refusal: &Refusal) -> Option<Verdict> {
    Some(match refusal.code {
        RefusalCode::NotFound | RefusalCode::NotClaimable | RefusalCode::StaleAttempt => {
            tracing::info!(build.id = %job.build_id, attempt = job.attempt, "job is of no use any more");
            Verdict::Ack
        }
        RefusalCode::KeyLimit => {
            tracing::info!(build.id = %job.build_id, why = refusal.message, "not its turn");
            Verdict::Ack
        }
        RefusalCode::NoCapacity => {
            let again = refusal.retry_after_ms.map_or(ROOM_AGAIN, Duration::from_millis);
            tracing::info!(build.id = %job.build_id, why = refusal.message, "no host for the build yet");
            Verdict::NoRoom(again)
        }
        RefusalCode::BadRequest => {
            tracing::error!(build.id = %job.build_id, why = refusal.message, "desk cannot read the claim");
            Verdict::Again(AWAY_AGAIN)
        }
        RefusalCode::Unavailable => return None,
    })
}

/// A build that this process works on; ends with its value, in a panic too.
struct Running {
    all: Arc<Mutex<HashSet<BuildId>>>,
    build_id: BuildId,
}

impl Running {
    fn begin(all: &Arc<Mutex<HashSet<BuildId>>>, build_id: BuildId) -> Option<Self> {
        let fresh = all.lock().unwrap_or_else(PoisonError::into_inner).insert(build_id);
        fresh.then(|| Self { all: Arc::clone(all), build_id })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.build_id);
    }
}
