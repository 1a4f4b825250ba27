//! Requests that may be sent again: the first one is carried out, the others get its answer for [`KEPT`].
//!
//! - A request counts as the same when key, operation and `Idempotency-Key` are the same. With another path or
//!   body it is refused.
//! - While it is carried out the others wait, for [`WAIT`] at most.
//! - An answer that refused (4xx) is not kept: nothing was done, and the request may be mended and sent again.
//! - After a fault (5xx) or a crash nobody knows what was done. It is carried out again then, for a resource of the
//!   same id, so that what the first one made is found and not made twice. Where it is known that nothing was made it
//!   is a new request.
//! - An answer may hold a secret, such as a new key. It is sealed ([`super::seal`]): who reads the table learns nothing.

use std::time::Duration;

use ovenbird_contract::id::KeyId;
use ovenbird_db::store::idempotency::{Claim, Claimed, Slot};
use ovenbird_kit::telemetry;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    App, Error,
    rate::Bucket,
    seal::{Roots, Seal},
};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Others leave a request alone for so long after its holder was last heard of.
const HOLD: Duration = Duration::from_secs(30);
/// A holder is heard of this often.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How long a request waits for the same one before it.
const WAIT: Duration = Duration::from_secs(10);
/// First pause between two looks; each is twice as long as the one before, up to the second.
const LOOK: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// Largest answer that is kept, in bytes.
pub const ANSWER_MAX: usize = 1024 * 1024;

/// A request with an `Idempotency-Key`.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Who sends it.
    pub caller: KeyId,
    /// What follows from the text of that key.
    pub roots: &'a Roots,
    /// The operation's id.
    pub operation: &'a str,
    /// The `Idempotency-Key`.
    pub key: &'a str,
    /// The path, with the query.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// An answer, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// Where what was made is.
    pub location: Option<String>,
    /// The body; JSON, or empty.
    pub body: String,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Turn {
    /// Carry it out, and then say how it ended.
    Act(Box<Held>),
    /// Answer what was answered before.
    Replay(Answer),
}

/// A request that is this process' to carry out.
#[derive(Debug)]
pub struct Held {
    claim: Claim,
    seal: Seal,
    /// The id of what it makes.
    pub resource: Uuid,
    /// Somebody may have carried it out before.
    pub again: bool,
}

impl App {
    /// Whether to carry a request out.
    ///
    /// # Errors
    /// [`Error::TooManyRepeats`]; [`Error::IdempotencyConflict`]; [`Error::IdempotencyHeld`] when the same request is still being carried
    /// out; [`Error::AnswerNotKept`]; Postgres.
    pub async fn idempotency_begin(&self, ask: &Ask<'_>) -> Result<Turn, Error> {
        let seal = Seal::of(ask.roots).map_err(not_sealed)?;
        let claim = Claim {
            slot: Slot {
                api_key: ask.caller,
                operation: ask.operation.to_owned(),
                key: ask.key.to_owned(),
            },
            fingerprint: seal.fingerprint(ask.path, ask.body),
            resource: Uuid::now_v7(),
            holder: Uuid::new_v4(),
            hold: HOLD,
            kept: KEPT,
        };
        let standing = self.rate_take(Bucket::Repeats(ask.caller)).await;
        if standing.is_some_and(|standing| !standing.granted) {
            return Err(Error::TooManyRepeats);
        }
        let (end, [mut pause, pause_max]) = (Instant::now() + WAIT, LOOK);
        loop {
            match self.store.idempotency_claim(&claim).await? {
                Claimed::Yours { resource } => {
                    let again = resource != claim.resource;
                    return Ok(Turn::Act(Box::new(Held { claim, seal, resource, again })));
                }
                Claimed::Conflict => return Err(Error::IdempotencyConflict),
                Claimed::Answered(None) => return Err(Error::AnswerNotKept),
                Claimed::Answered(Some(sealed)) => {
                    let answer = seal.open(sealed).map_err(not_opened)?;
                    let answer = serde_json::from_slice(&answer).map_err(not_opened)?;
                    return Ok(Turn::Replay(answer));
                }
                Claimed::Held if Instant::now() + pause > end => {
                    return Err(Error::IdempotencyHeld);
                }
                Claimed::Held => tokio::time::sleep(pause).await,
            }
            pause = pause_max.min(pause * 2);
        }
    }

    /// Says that the request is still being carried out.
    pub async fn idempotency_renew(&self, held: &Held) {
        match self.store.idempotency_renew(&held.claim).await {
            Ok(true) => {}
            // Who has it now makes the same resource.
            Ok(false) => tracing::warn!("an idempotent request was taken over"),
            Err(error) => {
                tracing::warn!(error = telemetry::chain(&error), "a hold is not renewed");
            }
        }
    }

    /// Keeps the answer of a request that was carried out; `None` for one that cannot be kept, as is one that is over
    /// what is kept of one key. When that fails the request will be carried out again for the same resource.
    pub async fn idempotency_answer(&self, held: &Held, answer: Option<&Answer>) {
        let kept = async {
            let seal = |answer: &Answer| {
                held.seal.seal(serde_json::to_vec(answer).map_err(not_sealed)?).map_err(not_sealed)
            };
            let mut sealed = answer.map(seal).transpose()?;
            if let Some(bytes) = &sealed {
                let kib = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(u32::MAX);
                let bucket = Bucket::Kept(held.claim.slot.api_key);
                if self.rate_take_many(bucket, kib).await.is_some_and(|it| !it.granted) {
                    sealed = None;
                }
            }
            Ok::<_, Error>(self.store.idempotency_answer(&held.claim, sealed).await?)
        };
        if let Err(error) = kept.await {
            tracing::warn!(error = telemetry::chain(&error), "an answer is not kept");
        }
    }

    /// Forgets a request of which nothing is left, or lets go of one of which nobody knows what it did.
    pub async fn idempotency_give_up(&self, held: &Held, forget: bool) {
        let given_up = if forget {
            self.store.idempotency_drop(&held.claim).await
        } else {
            self.store.idempotency_let_go(&held.claim).await
        };
        if let Err(error) = given_up {
            tracing::warn!(error = telemetry::chain(&error), "a hold ends by itself");
        }
    }
}

fn not_sealed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("sealing an answer", error)
}

fn not_opened(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("opening a sealed answer", error)
}
