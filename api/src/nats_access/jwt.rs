//! The two tokens with which a nats-server is answered: who the client is, and around it the answer itself. Signed
//! JSON in NATS's own format (`ed25519-nkey`); the claims stand in NATS's ADR-26.
//!
//! Written by hand: the crates that know these types refuse what the server really sends.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use nkeys::KeyPair;
use ovenbird_contract::{id::KeyId, nats_access::Account};
use serde::Deserialize;
use serde_json::{Value, json};

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// A token could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Not three parts.
    #[error("the question is no token")]
    Form,
    /// Not base64.
    #[error("the question cannot be decoded")]
    Decode(#[from] base64::DecodeError),
    /// Not the JSON that is expected.
    #[error("the question has another shape")]
    Shape(#[from] serde_json::Error),
    /// The issuer's key does not sign.
    #[error("the answer cannot be signed")]
    Sign(#[from] nkeys::error::Error),
}

/// What the server asks. It leaves out what is empty.
#[derive(Debug, Deserialize)]
pub(super) struct Question {
    pub(super) server_id: Server,
    /// The name of the client for this connection; the answer is about it.
    pub(super) user_nkey: String,
    pub(super) client_info: ClientInfo,
    #[serde(default)]
    pub(super) connect_opts: ConnectOptions,
}

#[derive(Debug, Deserialize)]
pub(super) struct Server {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ClientInfo {
    /// Its number at its server.
    pub(super) id: u64,
    #[serde(default)]
    pub(super) host: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ConnectOptions {
    #[serde(default)]
    pub(super) auth_token: Option<ovenbird_kit::Secret<String>>,
}

#[derive(Deserialize)]
struct Claims {
    nats: Question,
}

impl Question {
    /// Reads a token. Its signature says nothing: only the server can publish where it comes from.
    pub(super) fn read(token: &[u8]) -> Result<Self, Error> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Form);
        };
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        Ok(claims.nats)
    }
}

/// A client that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) key: KeyId,
    /// The server closes the connection then.
    pub(super) until: DateTime<Utc>,
    /// All that it may subscribe to.
    pub(super) subjects: Vec<String>,
}

/// The answer to `question`: a guest, or why there is none.
pub(super) fn answer(
    issuer: &KeyPair,
    question: &Question,
    decided: Result<&Guest, &str>,
) -> Result<String, Error> {
    let said = match decided {
        Ok(guest) => json!({ "jwt": user(issuer, question, guest)? }),
        Err(why) => json!({ "error": why }),
    };
    let mut claims = claims(issuer, question, &question.server_id.id, "authorization_response");
    merge(&mut claims["nats"], said);
    sign(issuer, &claims)
}

fn user(issuer: &KeyPair, question: &Question, guest: &Guest) -> Result<String, Error> {
    let mut claims = claims(issuer, question, Account::Readers.as_str(), "user");
    // It is found by this name when its key is revoked.
    claims["name"] = guest.key.to_string().into();
    claims["exp"] = guest.until.timestamp().into();
    // An empty list would allow everything.
    let hears = if guest.subjects.is_empty() {
        json!({ "deny": [">"] })
    } else {
        json!({ "allow": guest.subjects })
    };
    let rights = json!({
        "pub": { "deny": [">"] },
        "sub": hears,
        "subs": -1,
        "data": -1,
        "payload": -1,
        "allowed_connection_types": ["STANDARD", "WEBSOCKET"],
    });
    merge(&mut claims["nats"], rights);
    sign(issuer, &claims)
}

fn claims(issuer: &KeyPair, question: &Question, audience: &str, kind: &str) -> Value {
    json!({
        "iss": issuer.public_key(),
        "iat": Utc::now().timestamp(),
        "sub": question.user_nkey,
        "aud": audience,
        "nats": { "type": kind, "version": 2 },
    })
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

fn sign(issuer: &KeyPair, claims: &Value) -> Result<String, Error> {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encode(HEADER.as_bytes()), encode(&serde_json::to_vec(claims)?));
    let signature = issuer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &Value) -> String {
        format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    /// As nats-server 2.15 asks about a client that says nothing.
    fn asked() -> Value {
        json!({ "aud": "nats-authorization-request", "nats": {
            "server_id": { "name": "n", "host": "127.0.0.1", "id": "NSERVER", "version": "2.15.1" },
            "user_nkey": "UCLIENT",
            "client_info": { "host": "127.0.0.1", "id": 7, "kind": "Client", "type": "nats" },
            "connect_opts": { "protocol": 1 },
            "type": "authorization_request", "version": 2,
        }})
    }

    fn read(token: &str) -> Value {
        let claims = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    }

    #[test]
    fn question_with_what_the_server_leaves_out_is_read_and_nonsense_is_not() {
        let question = Question::read(token(&asked()).as_bytes()).unwrap();
        assert_eq!((question.client_info.id, question.user_nkey.as_str()), (7, "UCLIENT"));
        assert!(question.connect_opts.auth_token.is_none());
        for nonsense in ["", "a.b", "a.!.c", "a.e30.c", "a.b.c.d", &token(&json!({"nats": {}}))] {
            assert!(Question::read(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn answer_is_signed_and_a_guest_without_builds_hears_nothing() {
        let issuer = KeyPair::new_account();
        let question = Question::read(token(&asked()).as_bytes()).unwrap();
        let guest = Guest { key: KeyId::new(), until: Utc::now(), subjects: Vec::new() };
        let answer = answer(&issuer, &question, Ok(&guest)).unwrap();
        let (signed, signature) = answer.rsplit_once('.').unwrap();
        issuer.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let outer = read(&answer);
        assert_eq!((&outer["aud"], &outer["sub"]), (&json!("NSERVER"), &json!("UCLIENT")));
        let user = read(outer["nats"]["jwt"].as_str().unwrap());
        assert_eq!(user["aud"], "READERS");
        assert_eq!(user["name"], guest.key.to_string());
        assert_eq!(user["exp"], guest.until.timestamp());
        assert_eq!(user["nats"]["pub"], json!({ "deny": [">"] }));
        assert_eq!(user["nats"]["sub"], json!({ "deny": [">"] }));
    }
}
