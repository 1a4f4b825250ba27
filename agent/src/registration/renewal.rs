//! Keeps a registered agent's certificate from ending: once two thirds of its time are over another one is asked for,
//! and shown from then on. Sandboxes, calls and connections do not notice.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use ovenbird_kit::telemetry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{ask, client::Client, file, file::Identity};
use crate::server::Acceptor;

/// The clock is looked at this often at least: it may be set, and a host may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two tries that failed: a fiftieth of the certificate's time, within these.
const PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(5 * 60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Renewal {
    client: Client,
    identity: Identity,
    path: PathBuf,
    /// For a key that the api does not know any more.
    token_file: Option<PathBuf>,
    address: String,
    /// The certificate came just now.
    is_new: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Given(#[from] super::Error),
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("the new certificate cannot be shown")]
    Tls(#[from] crate::server::TlsError),
}

impl Renewal {
    pub(super) fn new(
        client: Client,
        identity: Identity,
        path: PathBuf,
        token_file: Option<PathBuf>,
        address: String,
        is_new: bool,
    ) -> Self {
        Self { client, identity, path, token_file, address, is_new }
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, acceptor: Acceptor, shutdown: CancellationToken) {
        // At once where there is a token: it may be a new one, of a host that was announced anew.
        let has_token = self.token_file.as_ref().is_some_and(|file| file.exists());
        let mut is_due = has_token && !self.is_new;
        let renewing = async {
            while let Some((at, pause)) = self.times() {
                if !std::mem::take(&mut is_due) {
                    until(at).await;
                }
                match self.renew(&acceptor).await {
                    Ok(expires_at) => tracing::info!(%expires_at, "certificate renewed"),
                    Err(error) => {
                        let over = self.identity.certificate.as_ref().map(|held| held.expires_at);
                        tracing::warn!(
                            error = telemetry::chain(&error),
                            expires_at = over.map(|at| at.to_rfc3339()),
                            "certificate is not renewed"
                        );
                    }
                }
                // Also after a success: where the clocks differ by much, the next one is due at once.
                sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(renewing).await;
    }

    /// When to renew, and the pause before it is tried again.
    fn times(&self) -> Option<(DateTime<Utc>, Duration)> {
        let held = self.identity.certificate.as_ref()?;
        Some(times(held.issued_at, held.expires_at))
    }

    pub(super) async fn renew(&mut self, acceptor: &Acceptor) -> Result<DateTime<Utc>, Error> {
        let given = ask(&self.client, &self.identity, self.token_file.as_ref(), &self.address);
        let given = given.await?;
        let before = (self.identity.certificate.clone(), self.identity.address.clone());
        let expires_at = given.held_by(&mut self.identity, &self.address).expires_at;
        let shown = self.show(acceptor);
        if shown.is_err() {
            // What is shown or kept is the old one, and so is the time for the next try.
            (self.identity.certificate, self.identity.address) = before;
        }
        shown.map(|()| expires_at)
    }

    /// Whose the certificate is.
    #[cfg(test)]
    pub(super) fn host_id(&self) -> Option<&str> {
        self.identity.certificate.as_ref().map(|held| held.host_id.as_str())
    }

    fn show(&self, acceptor: &Acceptor) -> Result<(), Error> {
        if let Some(pem) = self.identity.pem() {
            acceptor.exchange(&pem)?;
        }
        Ok(file::write(&self.path, &self.identity)?)
    }
}

fn times(issued_at: DateTime<Utc>, expires_at: DateTime<Utc>) -> (DateTime<Utc>, Duration) {
    let lifetime = (expires_at - issued_at).max(TimeDelta::zero());
    let pause = (lifetime / 50).to_std().unwrap_or_default();
    (issued_at + lifetime * 2 / 3, pause.clamp(*PAUSE.start(), *PAUSE.end()))
}

async fn until(at: DateTime<Utc>) {
    while let Ok(left) = (at - Utc::now()).to_std() {
        sleep(left.min(LOOK_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_after_two_thirds_and_is_tried_again_often_enough() {
        let start = Utc::now();
        let of = |lifetime: TimeDelta| {
            let (at, pause) = times(start, start + lifetime);
            (at - start, pause)
        };
        assert_eq!(of(TimeDelta::days(6)), (TimeDelta::days(4), Duration::from_secs(300)));
        assert_eq!(of(TimeDelta::hours(3)), (TimeDelta::hours(2), Duration::from_secs(216)));
        assert_eq!(of(TimeDelta::seconds(-1)), (TimeDelta::zero(), Duration::from_secs(1)));
    }
}
