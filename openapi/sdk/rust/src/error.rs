//! What can go wrong beside the errors of single operations, which [`crate::rest::Error`] tells.

use std::time::Duration;

use crate::rest::types;

/// Why there is no client, no more of a log, or no end of a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key holds characters that no header may have.
    #[error("the API key has characters that no key has")]
    Key,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    /// The API refused, and would again.
    #[error("the API refused: {0}")]
    Refused(String),
    /// The API did not answer, or broke off, too many times in a row without a record in between.
    #[error("the log could not be read in {tries} tries: {last}")]
    Unreachable {
        /// How many.
        tries: u32,
        /// What the last one said.
        last: String,
    },
    /// What was answered is no log record.
    #[error("a record that this version does not understand")]
    Record(#[source] serde_json::Error),
    /// NATS refused the connection or the subscription.
    #[error("NATS refused: {0}")]
    Nats(String),
    /// The build did not end in time.
    #[error("the build did not end within {} s", .0.as_secs())]
    Late(Duration),
}

/// An operation's error that may be another one, or none, at the next try.
#[derive(Debug)]
pub(crate) struct Passing(pub(crate) String);

/// Whether an operation's error passes.
pub(crate) fn judge(error: crate::rest::Error<types::Error>) -> Result<Passing, Error> {
    let text = match &error {
        crate::rest::Error::ErrorResponse(answer) => {
            let said = &answer.error;
            format!("{} {}: {}", answer.status().as_u16(), said.code.as_str(), said.message)
        }
        other => other.to_string(),
    };
    match error.status().map(|status| status.as_u16()) {
        None | Some(408 | 429 | 500..) => match error {
            crate::rest::Error::InvalidRequest(_) => Err(Error::Refused(text)),
            _ => Ok(Passing(text)),
        },
        Some(_) => Err(Error::Refused(text)),
    }
}
