//! The two calls of the api that an agent makes. The shapes stand in `openapi/openapi.json`: `host_register`,
//! `host_renew`.

use std::{path::PathBuf, time::Duration};

use ovenbird_kit::Secret;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::file::{Certificate, Identity};

const CONNECT_TIME: Duration = Duration::from_secs(5);
const CALL_TIME: Duration = Duration::from_secs(20);
/// Far above what the api answers.
const ANSWER_MAX: usize = 256 * 1024;
/// Of what a refusal says in its own words.
const MESSAGE_MAX: usize = 500;

/// A call that gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `registration.api`.
    #[error("registration.api is no URL of the form https://host or http://host: {0:?}")]
    Url(String),
    /// `registration.ca`.
    #[error("registration.ca: {} holds no certificate (PEM)", .0.display())]
    Ca(PathBuf),
    /// Nobody answered.
    #[error("the api does not answer")]
    Away(#[source] reqwest::Error),
    /// It answered that it cannot now.
    #[error("the api cannot do it now: it answers {0}")]
    Busy(StatusCode),
    /// It will not, however often it is asked.
    #[error("the api refuses it: {message} ({code})")]
    Refused {
        /// A stable word.
        code: String,
        /// What it said.
        message: String,
    },
    /// Something else than the api answered.
    #[error("the answer is none of the api's: is registration.api right?")]
    Answer,
}

impl Error {
    /// Whether asking again is of no use.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Url(_) | Self::Ca(_) | Self::Refused { .. } => true,
            // A proxy may answer in its place while it starts.
            Self::Away(_) | Self::Busy(_) | Self::Answer => false,
        }
    }
}

/// The api.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    api: Url,
}

impl Client {
    /// The api of an identity.
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        let bad = || Error::Url(identity.api.clone());
        let api: Url = identity.api.trim_end_matches('/').parse().map_err(|_| bad())?;
        if !matches!(api.scheme(), "http" | "https") || api.host_str().is_none() {
            return Err(bad());
        }
        let is_near = matches!(api.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if api.scheme() == "http" && !is_near {
            tracing::warn!(%api, "the token goes to the api unprotected, and so does its answer: use https");
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(CALL_TIME)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("ovenbird-agent/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &identity.api_ca {
            let bad = || Error::Ca(path.clone());
            let text = std::fs::read(path).map_err(|_| bad())?;
            let bundle = reqwest::Certificate::from_pem_bundle(&text).map_err(|_| bad())?;
            http = bundle.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(Self { http: http.build().map_err(Error::Away)?, api })
    }

    pub(super) async fn register(
        &self,
        token: &Secret<String>,
        csr: &str,
        address: &str,
    ) -> Result<Certificate, Error> {
        let body = json!({ "token": token.expose(), "csr": csr, "address": address });
        self.post("register", &body).await
    }

    pub(super) async fn renew(&self, csr: &str) -> Result<Certificate, Error> {
        self.post("renew", &json!({ "csr": csr })).await
    }

    async fn post(&self, call: &str, body: &Value) -> Result<Certificate, Error> {
        let url = format!("{}/v1/hosts/{call}", self.api.as_str().trim_end_matches('/'));
        let response = self.http.post(url).json(body).send().await.map_err(Error::Away)?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Error::Busy(status));
        }
        let answer = whole(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|_| Error::Answer);
        }
        let Refusal { error } = serde_json::from_slice(&answer).map_err(|_| Error::Answer)?;
        let end = error.message.floor_char_boundary(MESSAGE_MAX);
        Err(Error::Refused { code: error.code, message: error.message[..end].to_owned() })
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
}

async fn whole(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::Away)? {
        if answer.len() + chunk.len() > ANSWER_MAX {
            return Err(Error::Answer);
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_must_be_a_url_over_http() {
        let of = |api: &str| Client::new(&Identity::new(api.into(), None).unwrap());
        assert!(of("https://ovenbird.example/").is_ok() && of("http://127.0.0.1:8080").is_ok());
        for bad in ["", "ovenbird.example", "ftp://ovenbird.example", "https://"] {
            let error = of(bad).unwrap_err();
            assert!(
                error.is_refusal() && error.to_string().contains("registration.api"),
                "{error}"
            );
        }
        let ca = Some(PathBuf::from("/no/such.pem"));
        let error = Client::new(&Identity::new("https://a".into(), ca).unwrap()).unwrap_err();
        assert!(error.to_string().contains("/no/such.pem"), "{error}");
    }
}
