//! In Kubernetes: how busy this runner is, for the controller that ends the cheapest pods of a Deployment first when
//! there are to be fewer. The cost is the number of builds that run here, so idle runners go before busy ones.
//!
//! ```text
//! slots ─► busy (watch) ─► PATCH …/pods/<own name>: controller.kubernetes.io/pod-deletion-cost
//! ```
//!
//! A hint and nothing else: a busy runner that is ended all the same hands its builds over. So nothing waits for this,
//! and what fails is tried again until the next change. The API server is asked rarely: a change that comes soon after
//! another one waits, and only the newest is told.

use std::time::Duration;

use ovenbird_kit::{Secret, secret, telemetry::chain};
use reqwest::{Certificate, Client, StatusCode, header::CONTENT_TYPE};
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::config;

/// The annotation, of Kubernetes 1.22 and newer.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// One answer of the API server.
const DEADLINE: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// The settings cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `pod.ca` cannot be read.
    #[error("pod.ca: {} cannot be read", path.display())]
    Ca {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `pod.ca` is no certificate, or `pod.api` no https address.
    #[error("the [pod] section cannot be used: check pod.api and pod.ca")]
    Unusable(#[source] reqwest::Error),
}

/// A cost was not told.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error("pod.token")]
    Token(#[from] secret::Error),
    #[error("the API server does not answer")]
    Away(#[from] reqwest::Error),
    #[error("the API server says {0}: look at the Role of the runners")]
    Refused(StatusCode),
}

/// Tells the cost of this runner's pod.
#[derive(Debug)]
pub struct Service {
    client: Client,
    url: String,
    config: config::Pod,
    busy: watch::Receiver<usize>,
}

impl Service {
    /// For the pod of `config`, whenever `busy`, the number of builds that run here, changes.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot be used.
    pub fn new(config: config::Pod, busy: watch::Receiver<usize>) -> Result<Self, Error> {
        let pem = std::fs::read(&config.ca)
            .map_err(|source| Error::Ca { path: config.ca.clone(), source })?;
        let authority = Certificate::from_pem(&pem).map_err(Error::Unusable)?;
        let client = Client::builder()
            // The token is for this server alone.
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_built_in_root_certs(false)
            .add_root_certificate(authority)
            .timeout(DEADLINE)
            .build()
            .map_err(Error::Unusable)?;
        let config::Pod { api, namespace, name, .. } = &config;
        let url =
            format!("{}/api/v1/namespaces/{namespace}/pods/{name}", api.trim_end_matches('/'));
        Ok(Self { client, url, config, busy })
    }

    /// Runs until `stop`: a pod that ends has no cost any more.
    pub async fn run(mut self, stop: CancellationToken) {
        // Nothing yet: a container that is started anew in its pod finds what the one before it told.
        let mut told = None;
        let mut delay = RETRY_FIRST;
        loop {
            let busy = &mut self.busy;
            let changed = busy.wait_for(|now| Some(*now) != told);
            let now = match stop.run_until_cancelled(changed).await {
                Some(Ok(now)) => *now,
                Some(Err(_)) | None => return,
            };
            let pause = match stop.run_until_cancelled(self.tell(now)).await {
                None => return,
                Some(Ok(())) => {
                    told = Some(now);
                    delay = RETRY_FIRST;
                    self.config.every
                }
                Some(Err(error)) => {
                    let pause = delay;
                    delay = RETRY_LONGEST.min(delay * 2);
                    tracing::warn!(error = chain(&error), "the pod's deletion cost is not told");
                    pause
                }
            };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn tell(&self, busy: usize) -> Result<(), NotTold> {
        // Kubernetes replaces the token before it expires.
        let token = Secret::read(&self.config.token)?;
        let patch = json!({ "metadata": { "annotations": { DELETION_COST: busy.to_string() } } });
        let answer = self
            .client
            .patch(&self.url)
            .bearer_auth(token.expose())
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string())
            .send()
            .await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(NotTold::Refused(status)),
        }
    }
}
