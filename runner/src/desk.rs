//! The runner's side of the desk: requests over NATS, each with a time limit and bounded repetition.
//!
//! Every request may be repeated: the desk answers the same runner the same. So an answer that was lost, or
//! a desk that is away, only costs time; how much of it there is, the caller says.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use ovenbird_contract::{
    build::Reason,
    desk::LogPosition,
    desk::{
        Claim, ClaimRequest, FinishRequest, Finished, Outcome, Refusal, RefusalCode,
        ReleaseRequest, Released, RenewRequest, Renewed, Reply,
    },
    id::{BuildId, RunnerId},
    job::Job,
    nats::Names,
};
use ovenbird_kit::telemetry::trace;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Duration, Instant};

/// One request waits this long; `finish` waits up to 3 s for the ledger at the desk.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(3);

/// Why the desk's answer is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The desk refuses; nothing changed.
    #[error("the desk refuses: {} ({:?})", .0.message, .0.code)]
    Refused(Refusal),
    /// No desk answered in time; what was asked may be done or not.
    #[error("no desk answers")]
    Away(#[source] async_nats::RequestError),
    /// The answer has no known shape: desk and runner are of different versions.
    #[error("the desk's answer cannot be read")]
    BadAnswer(#[source] serde_json::Error),
}

impl Error {
    /// The desk's refusal, where it is a final one.
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused(refusal) if refusal.code != RefusalCode::Unavailable => {
                Some(refusal.code)
            }
            _ => None,
        }
    }
}

/// One attempt of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// The build.
    pub build_id: BuildId,
    /// The attempt.
    pub attempt: u32,
}

/// Asks the desk in the name of one runner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    client: async_nats::Client,
    names: Names,
    runner_id: RunnerId,
    trace: Arc<str>,
}

impl Desk {
    /// For the runner `runner_id`.
    pub fn new(client: async_nats::Client, names: Names, runner_id: RunnerId) -> Self {
        Self { client, names, runner_id, trace: "".into() }
    }

    /// The same desk, asked within a trace (a W3C `traceparent`; empty means none).
    #[must_use]
    pub fn traced(mut self, traceparent: &str) -> Self {
        self.trace = traceparent.into();
        self
    }

    /// Who asks.
    pub fn runner_id(&self) -> RunnerId {
        self.runner_id
    }

    /// Claims the build of `job`; the plan stays JSON, so that a plan of another version can be answered for.
    ///
    /// # Errors
    /// As every request; repeated until `until`.
    pub async fn claim(
        &self,
        job: &Job,
        until: Instant,
    ) -> Result<Claim<serde_json::Value>, Error> {
        let request = ClaimRequest {
            build_id: job.build_id,
            attempt: job.attempt,
            runner_id: self.runner_id,
        };
        self.repeated("claim", &request, until).await
    }

    /// Renews the lease; asked once, for at most `timeout`.
    ///
    /// # Errors
    /// As every request.
    pub async fn renew(&self, held: Held, timeout: Duration) -> Result<Renewed, Error> {
        let request = RenewRequest {
            build_id: held.build_id,
            attempt: held.attempt,
            runner_id: self.runner_id,
        };
        self.once("renew", encode(&request), timeout).await
    }

    /// Ends the build.
    ///
    /// # Errors
    /// As every request; repeated until `until`.
    pub async fn finish(
        &self,
        held: Held,
        outcome: Outcome,
        log: LogPosition,
        event_stream_seq: u64,
        until: Instant,
    ) -> Result<(), Error> {
        let request = FinishRequest {
            build_id: held.build_id,
            attempt: held.attempt,
            runner_id: self.runner_id,
            outcome,
            log,
            event_stream_seq,
        };
        self.repeated::<_, Finished>("finish", &request, until).await.map(drop)
    }

    /// Gives the build back to the queue: for another runner to go on with, or as `lost`.
    ///
    /// # Errors
    /// As every request; repeated until `until`.
    pub async fn release(
        &self,
        held: Held,
        why: &str,
        lost: Option<&Reason>,
        until: Instant,
    ) -> Result<(), Error> {
        let request = ReleaseRequest {
            build_id: held.build_id,
            attempt: held.attempt,
            runner_id: self.runner_id,
            why: why.to_owned(),
            lost: lost.cloned(),
        };
        self.repeated::<_, Released>("release", &request, until).await.map(drop)
    }

    async fn repeated<Q: Serialize, R: DeserializeOwned>(
        &self,
        verb: &str,
        request: &Q,
        until: Instant,
    ) -> Result<R, Error> {
        let payload = encode(request);
        let mut delay = RETRY_FIRST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = REQUEST_TIMEOUT.min(left.max(RETRY_FIRST));
            let error = match self.once(verb, payload.clone(), timeout).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.refusal().is_some() => return Err(error),
                Err(error) => error,
            };
            if Instant::now() + delay >= until {
                return Err(error);
            }
            tracing::debug!(
                verb,
                error = ovenbird_kit::telemetry::chain(&error),
                "asking the desk again"
            );
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_LONGEST);
        }
    }

    async fn once<R: DeserializeOwned>(
        &self,
        verb: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<R, Error> {
        let mut request = async_nats::Request::new().payload(payload).timeout(Some(timeout));
        if let Some(traceparent) = trace::present(&self.trace) {
            let mut headers = HeaderMap::new();
            headers.insert(trace::TRACEPARENT, traceparent);
            request = request.headers(headers);
        }
        let answer =
            self.client.send_request(self.names.desk(verb), request).await.map_err(Error::Away)?;
        match serde_json::from_slice(&answer.payload).map_err(Error::BadAnswer)? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(Error::Refused(refusal)),
        }
    }
}

fn encode<Q: Serialize>(request: &Q) -> Bytes {
    serde_json::to_vec(request).expect("a request has no map with other keys than text").into()
}
