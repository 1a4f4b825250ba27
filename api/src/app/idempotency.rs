//! Requests that may be sent again: the first one is carried out, the others get its answer for [`KEPT`].
//!
//! - A request counts as the same when key, operation and `Idempotency-Key` are the same. With another path or
//!   body it is refused.
//! - While it is carried out the others wait, for [`WAIT`] at most.
//! - An answer that refused (4xx) is not kept: nothing was done, and the request may be mended and sent again.
//! - After a fault (5xx) or a crash nobody knows what was done. It is carried out again then, for a resource of the
//!   same id, so that what the first one made is found and not made twice.
//! - An answer may hold a secret, such as a new key. It is sealed under a key that follows from the text of the
//!   caller's API key, or of the browser's session, which Ovenbird does not have: who reads the table learns nothing.

use std::time::Duration;

use ovenbird_contract::id::KeyId;
use ovenbird_db::store::idempotency::{Claim, Claimed, Slot};
use ovenbird_kit::telemetry;
use rand::{TryRngCore as _, rngs::OsRng};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hkdf, hmac,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{App, Error};

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
    /// The text of that key, or of the session that stands for it.
    pub secret: &'a str,
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
    /// [`Error::IdempotencyConflict`]; [`Error::IdempotencyHeld`] when the same request is still being carried
    /// out; [`Error::AnswerNotKept`]; Postgres.
    pub async fn idempotency_begin(&self, ask: &Ask<'_>) -> Result<Turn, Error> {
        let seal =
            Seal::of(ask.secret).map_err(|Unspecified| not_sealed("no keys follow".into()))?;
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
        let (end, [mut pause, pause_max]) = (Instant::now() + WAIT, LOOK);
        loop {
            match self.store.idempotency_claim(&claim).await? {
                Claimed::Yours { resource } => {
                    let again = resource != claim.resource;
                    return Ok(Turn::Act(Box::new(Held { claim, seal, resource, again })));
                }
                Claimed::Conflict => return Err(Error::IdempotencyConflict),
                Claimed::Answered(None) => return Err(Error::AnswerNotKept),
                Claimed::Answered(Some(sealed)) => return Ok(Turn::Replay(seal.open(sealed)?)),
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

    /// Keeps the answer of a request that was carried out; `None` for one that cannot be kept. When that fails the
    /// request will be carried out again for the same resource.
    pub async fn idempotency_answer(&self, held: &Held, answer: Option<&Answer>) {
        let kept = async {
            let sealed = answer.map(|answer| held.seal.seal(answer)).transpose()?;
            Ok::<_, Error>(self.store.idempotency_answer(&held.claim, sealed).await?)
        };
        if let Err(error) = kept.await {
            tracing::warn!(error = telemetry::chain(&error), "an answer is not kept");
        }
    }

    /// Forgets a request that was refused, or lets go of one of which nobody knows what it did.
    pub async fn idempotency_give_up(&self, held: &Held, did_nothing: bool) {
        let given_up = if did_nothing && !held.again {
            self.store.idempotency_drop(&held.claim).await
        } else {
            self.store.idempotency_let_go(&held.claim).await
        };
        if let Err(error) = given_up {
            tracing::warn!(error = telemetry::chain(&error), "a hold ends by itself");
        }
    }
}

/// Keys that follow from the text of an API key, or of a session.
struct Seal {
    answers: LessSafeKey,
    requests: hmac::Key,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    fn of(secret: &str) -> Result<Self, Unspecified> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ovenbird idempotency 1");
        let secret = salt.extract(secret.as_bytes());
        let answers = UnboundKey::from(secret.expand(&[b"answers"], &CHACHA20_POLY1305)?);
        let requests = hmac::Key::from(secret.expand(&[b"requests"], hmac::HMAC_SHA256)?);
        Ok(Self { answers: LessSafeKey::new(answers), requests })
    }

    /// JSON counts as what it says, not how it is written.
    fn fingerprint(&self, path: &str, body: &[u8]) -> [u8; 32] {
        let plain = serde_json::from_slice::<serde_json::Value>(body).map(|it| it.to_string());
        let mut context = hmac::Context::with_key(&self.requests);
        context.update(path.as_bytes());
        context.update(b"\n");
        context.update(plain.as_ref().map_or(body, |plain| plain.as_bytes()));
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    fn seal(&self, answer: &Answer) -> Result<Vec<u8>, Error> {
        let mut bytes = serde_json::to_vec(answer).map_err(|error| not_sealed(error.into()))?;
        let mut nonce = [0; NONCE_LEN];
        OsRng.try_fill_bytes(&mut nonce).map_err(|error| not_sealed(error.into()))?;
        let once = Nonce::assume_unique_for_key(nonce);
        self.answers
            .seal_in_place_append_tag(once, Aad::empty(), &mut bytes)
            .map_err(|Unspecified| not_sealed("it is too long".into()))?;
        Ok([&nonce[..], &bytes].concat())
    }

    fn open(&self, mut sealed: Vec<u8>) -> Result<Answer, Error> {
        let (nonce, bytes) = sealed
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or_else(|| not_opened("it is too short".into()))?;
        let once = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .answers
            .open_in_place(once, Aad::empty(), bytes)
            .map_err(|Unspecified| not_opened("it is damaged, or another key's".into()))?;
        serde_json::from_slice(opened).map_err(|error| not_opened(error.into()))
    }
}

fn not_sealed(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::internal("sealing an answer", error)
}

fn not_opened(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::internal("opening a sealed answer", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_back_with_the_same_key_only() {
        let answer =
            Answer { status: 201, location: None, body: "{\"key\":\"ovb_secret\"}".into() };
        let seal = Seal::of("one").unwrap();
        let sealed = seal.seal(&answer).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("ovb_secret"));
        assert_eq!(seal.open(sealed.clone()).unwrap(), answer);
        assert!(Seal::of("two").unwrap().open(sealed.clone()).is_err());
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(seal.open(damaged).is_err(), "{place}");
        }
        assert!(seal.open(Vec::new()).is_err());
    }

    #[test]
    fn request_is_the_same_when_its_json_says_the_same() {
        let seal = Seal::of("one").unwrap();
        let first = seal.fingerprint("/a", b"{\"x\":1,\"y\":[2]}");
        assert_eq!(seal.fingerprint("/a", b" {\"y\": [2], \"x\": 1}"), first);
        assert_ne!(seal.fingerprint("/b", b"{\"x\":1,\"y\":[2]}"), first);
        assert_ne!(seal.fingerprint("/a", b"{\"x\":1,\"y\":[3]}"), first);
        assert_ne!(Seal::of("two").unwrap().fingerprint("/a", b"{\"x\":1,\"y\":[2]}"), first);
    }
}
