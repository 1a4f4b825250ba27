//! What keeps answers that may hold a secret from whoever reads the table: they are sealed under keys that follow from
//! the text of the caller's API key, which Ovenbird does not have.
//!
//! ```text
//! API key's text ──► Roots ──► Seal: answers are sealed, requests hashed
//!                      │ ▲
//!       signs in, sealed ▼ opened, with each request
//!                 the session's row, under the session's text
//! ```
//!
//! So a request counts as the same whichever session of its key it comes with.

use ovenbird_kit::Secret;
use rand::{TryRngCore as _, rngs::OsRng};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hkdf, hmac,
};

const ROOTS: &[u8] = b"ovenbird idempotency 1";
const SESSIONS: &[u8] = b"ovenbird session 1";
/// Length of each key: those of ChaCha20-Poly1305 and HMAC-SHA256.
const LENGTH: usize = 32;

/// Something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random(#[from] rand::rand_core::OsError),
    /// No keys follow, or the text is too long.
    #[error("the cipher does not take it")]
    Cipher,
    /// It is damaged, or sealed under another key.
    #[error("it is damaged, or another key's")]
    NotOpened,
}

impl From<Unspecified> for Error {
    fn from(Unspecified: Unspecified) -> Self {
        Self::Cipher
    }
}

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        LENGTH
    }
}

fn derive(salt: &[u8], text: &str, info: &[u8]) -> Result<[u8; LENGTH], Error> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(text.as_bytes());
    let mut key = [0; LENGTH];
    secret.expand(&[info], Length)?.fill(&mut key)?;
    Ok(key)
}

/// The keys that follow from a text.
#[derive(Debug)]
pub struct Roots {
    answers: Secret<[u8; LENGTH]>,
    requests: Secret<[u8; LENGTH]>,
}

impl Roots {
    /// Those of an API key's text.
    ///
    /// # Errors
    /// [`Error::Cipher`].
    pub fn of(text: &str) -> Result<Self, Error> {
        let key = |info| Ok::<_, Error>(Secret::new(derive(ROOTS, text, info)?));
        Ok(Self { answers: key(b"answers")?, requests: key(b"requests")? })
    }

    /// Sealed for whoever has the session of this text.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Cipher`].
    pub fn seal(&self, session: &str) -> Result<Vec<u8>, Error> {
        let bytes = [*self.answers.expose(), *self.requests.expose()].concat();
        seal(&cipher(&derive(SESSIONS, session, b"repeats")?)?, bytes)
    }

    /// What [`Roots::seal`] has sealed.
    ///
    /// # Errors
    /// [`Error::NotOpened`].
    pub fn open(sealed: Vec<u8>, session: &str) -> Result<Self, Error> {
        let bytes = open(&cipher(&derive(SESSIONS, session, b"repeats")?)?, sealed)?;
        let (answers, requests) = bytes.split_first_chunk().ok_or(Error::NotOpened)?;
        let requests = requests.try_into().map_err(|_| Error::NotOpened)?;
        Ok(Self { answers: Secret::new(*answers), requests: Secret::new(requests) })
    }
}

/// Seals answers, and hashes requests.
pub struct Seal {
    answers: LessSafeKey,
    requests: hmac::Key,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// With these keys.
    ///
    /// # Errors
    /// [`Error::Cipher`].
    pub fn of(roots: &Roots) -> Result<Self, Error> {
        let requests = hmac::Key::new(hmac::HMAC_SHA256, roots.requests.expose());
        Ok(Self { answers: cipher(roots.answers.expose())?, requests })
    }

    /// A keyed hash of a request's path and body. JSON counts as what it says, not how it is written.
    pub fn fingerprint(&self, path: &str, body: &[u8]) -> [u8; 32] {
        let plain = serde_json::from_slice::<serde_json::Value>(body).map(|it| it.to_string());
        let mut context = hmac::Context::with_key(&self.requests);
        context.update(path.as_bytes());
        context.update(b"\n");
        context.update(plain.as_ref().map_or(body, |plain| plain.as_bytes()));
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    /// Seals an answer.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Cipher`].
    pub fn seal(&self, answer: Vec<u8>) -> Result<Vec<u8>, Error> {
        seal(&self.answers, answer)
    }

    /// What [`Seal::seal`] has sealed.
    ///
    /// # Errors
    /// [`Error::NotOpened`].
    pub fn open(&self, sealed: Vec<u8>) -> Result<Vec<u8>, Error> {
        open(&self.answers, sealed)
    }
}

fn cipher(key: &[u8; LENGTH]) -> Result<LessSafeKey, Error> {
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?))
}

fn seal(cipher: &LessSafeKey, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE_LEN];
    OsRng.try_fill_bytes(&mut nonce)?;
    let once = Nonce::assume_unique_for_key(nonce);
    cipher.seal_in_place_append_tag(once, Aad::empty(), &mut bytes)?;
    Ok([&nonce[..], &bytes].concat())
}

fn open(cipher: &LessSafeKey, mut sealed: Vec<u8>) -> Result<Vec<u8>, Error> {
    let (nonce, bytes) = sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or(Error::NotOpened)?;
    let once = Nonce::assume_unique_for_key(*nonce);
    let opened = cipher.open_in_place(once, Aad::empty(), bytes);
    Ok(opened.map_err(|Unspecified| Error::NotOpened)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal_of(text: &str) -> Seal {
        Seal::of(&Roots::of(text).unwrap()).unwrap()
    }

    #[test]
    fn answer_is_read_back_with_the_same_key_only() {
        let answer = b"{\"key\":\"ovb_secret\"}".to_vec();
        let seal = seal_of("one");
        let sealed = seal.seal(answer.clone()).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("ovb_secret"));
        assert_eq!(seal.open(sealed.clone()).unwrap(), answer);
        assert!(seal_of("two").open(sealed.clone()).is_err());
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(seal.open(damaged).is_err(), "{place}");
        }
        assert!(seal.open(Vec::new()).is_err());
    }

    #[test]
    fn every_session_of_a_key_leads_to_the_same_seal_and_no_other_text_does() {
        let (one, two) = (Roots::of("key").unwrap(), Roots::of("key").unwrap());
        let (first, second) = (one.seal("first").unwrap(), two.seal("second").unwrap());
        assert_ne!(first, second);
        assert!(Roots::open(first.clone(), "second").is_err());
        let opened = |sealed, text| Seal::of(&Roots::open(sealed, text).unwrap()).unwrap();
        let expected = seal_of("key").fingerprint("/a", b"{}");
        assert_eq!(opened(first, "first").fingerprint("/a", b"{}"), expected);
        assert_eq!(opened(second, "second").fingerprint("/a", b"{}"), expected);
        assert_ne!(seal_of("first").fingerprint("/a", b"{}"), expected);
    }

    #[test]
    fn request_is_the_same_when_its_json_says_the_same() {
        let seal = seal_of("one");
        let first = seal.fingerprint("/a", b"{\"x\":1,\"y\":[2]}");
        assert_eq!(seal.fingerprint("/a", b" {\"y\": [2], \"x\": 1}"), first);
        assert_ne!(seal.fingerprint("/b", b"{\"x\":1,\"y\":[2]}"), first);
        assert_ne!(seal.fingerprint("/a", b"{\"x\":1,\"y\":[3]}"), first);
        assert_ne!(seal_of("two").fingerprint("/a", b"{\"x\":1,\"y\":[2]}"), first);
    }
}
