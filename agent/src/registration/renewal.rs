//! Keeps a registered agent's certificate from ending: once two thirds of its time are over another one is asked for,
//! and shown from then on. Sandboxes, calls and connections do not notice.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use ovenbird_kit::telemetry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{client::Client, file, file::Identity, request};
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
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no signing request can be made")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Api(#[from] super::client::Error),
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("the new certificate cannot be shown")]
    Tls(#[from] crate::server::TlsError),
}

impl Renewal {
    pub(super) fn new(client: Client, identity: Identity, path: PathBuf) -> Self {
        Self { client, identity, path }
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, acceptor: Acceptor, shutdown: CancellationToken) {
        let renewing = async {
            while let Some((at, pause)) = self.times() {
                until(at).await;
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

    async fn renew(&mut self, acceptor: &Acceptor) -> Result<DateTime<Utc>, Error> {
        let certificate = self.client.renew(&request(&self.identity)?).await?;
        let expires_at = certificate.expires_at;
        self.identity.certificate = Some(certificate);
        if let Some(pem) = self.identity.pem() {
            acceptor.exchange(&pem)?;
        }
        file::write(&self.path, &self.identity)?;
        Ok(expires_at)
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
