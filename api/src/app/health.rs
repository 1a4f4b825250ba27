//! Whether the services that the api needs answer. Each is asked for itself, all at once, with a deadline.

use std::{future::Future, time::Duration};

use ovenbird_kit::telemetry;

use super::App;

/// One service's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `postgres`, `nats` or `redis`.
    pub service: &'static str,
    /// Whether it answered in time.
    pub ok: bool,
}

impl App {
    /// Asks every service.
    pub async fn ready(&self, deadline: Duration) -> [Check; 3] {
        let (postgres, nats, redis) = tokio::join!(
            check("postgres", deadline, self.store.ping()),
            check("nats", deadline, self.logs.ping()),
            check("redis", deadline, self.queue.ping()),
        );
        [postgres, nats, redis]
    }
}

async fn check<E: std::error::Error>(
    service: &'static str,
    deadline: Duration,
    ping: impl Future<Output = Result<(), E>>,
) -> Check {
    let why = match tokio::time::timeout(deadline, ping).await {
        Ok(Ok(())) => return Check { service, ok: true },
        Ok(Err(error)) => telemetry::chain(&error),
        Err(_) => format!("no answer within {deadline:?}"),
    };
    tracing::warn!(service, error = why, "a service is not ready");
    Check { service, ok: false }
}
