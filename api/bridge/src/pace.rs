//! How long to wait before something that failed is tried again: twice as long each time, within bounds,
//! and not at all once the process is to stop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Grows with each failure, back to the first pause with each success.
#[derive(Debug)]
pub(crate) struct Pace {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pace {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// What the services here use towards Postgres, Redis and NATS.
    pub(crate) fn services() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(3))
    }

    pub(crate) fn succeeded(&mut self) {
        self.next = self.first;
    }

    /// Waits after a failure; `false` when the process is to stop.
    pub(crate) async fn failed(&mut self, shutdown: &CancellationToken) -> bool {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        sleep(pause, shutdown).await
    }
}

/// Sleeps; `false` when the process is to stop.
pub(crate) async fn sleep(time: Duration, shutdown: &CancellationToken) -> bool {
    shutdown.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
}
