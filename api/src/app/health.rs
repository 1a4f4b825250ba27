//! Whether the services behind the api answer. Each is asked for itself, all at once, with a deadline.

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
    /// Whether the api serves nothing without it. Postgres alone is: the others are transport, and what needs one of
    /// them says so, or is made good by the sweep.
    pub needed: bool,
}

impl App {
    /// Asks every service.
    pub async fn ready(&self, deadline: Duration) -> [Check; 3] {
        let (postgres, nats, redis) = tokio::join!(
            answers("postgres", deadline, self.store.ping()),
            answers("nats", deadline, self.logs.ping()),
            answers("redis", deadline, self.queue.ping()),
        );
        [
            Check { service: "postgres", ok: postgres, needed: true },
            Check { service: "nats", ok: nats, needed: false },
            Check { service: "redis", ok: redis, needed: false },
        ]
    }
}

async fn answers<E: std::error::Error>(
    service: &'static str,
    deadline: Duration,
    ping: impl Future<Output = Result<(), E>>,
) -> bool {
    let why = match tokio::time::timeout(deadline, ping).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => telemetry::chain(&error),
        Err(_) => format!("no answer within {deadline:?}"),
    };
    tracing::warn!(service, error = why, "a service is not ready");
    false
}
