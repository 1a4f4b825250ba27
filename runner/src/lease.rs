//! Keeps one attempt's lease: renews it every third of its time, and says when it is over or the build is
//! cancelled.
//!
//! The lease is counted from before the request was sent, so this runner never believes in it for longer
//! than the desk does. A message on the build's control subject only wakes the renewal: whether the build
//! is cancelled, the desk says.

use futures::StreamExt as _;
use ovenbird_contract::nats::Names;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant, sleep_until, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use crate::desk::{Desk, Held};

/// A desk that is away is asked again after this long.
const RETRY: Duration = Duration::from_millis(500);

/// A lease that is being kept.
#[derive(Debug)]
pub struct Lease {
    task: JoinHandle<()>,
    lost: CancellationToken,
    cancelled: CancellationToken,
    /// A lease whose attempt broke is not kept either: it ends, and the build goes on elsewhere.
    released: DropGuard,
    until: watch::Receiver<Instant>,
}

impl Lease {
    /// Starts renewing a lease of `length` that was claimed by a request sent at `since`.
    pub fn keep(
        client: async_nats::Client,
        names: &Names,
        desk: Desk,
        held: Held,
        length: Duration,
        since: Instant,
    ) -> Self {
        let (until, receiver) = watch::channel(since + length);
        let keeper = Keeper {
            client,
            control: names.control(&held.build_id),
            desk,
            held,
            length,
            until,
            lost: CancellationToken::new(),
            cancelled: CancellationToken::new(),
            released: CancellationToken::new(),
        };
        let lost = keeper.lost.clone();
        let cancelled = keeper.cancelled.clone();
        let released = keeper.released.clone().drop_guard();
        let task = tokio::spawn(keeper.run(since + length / 3).in_current_span());
        Self { task, lost, cancelled, released, until: receiver }
    }

    /// Cancelled when the lease is over.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Cancelled when the desk says that the build is cancelled.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// When the lease ends if it is not renewed any more.
    pub fn until(&self) -> Instant {
        *self.until.borrow()
    }

    /// Stops renewing.
    pub async fn stop(self) {
        drop(self.released);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the lease keeper broke");
        }
    }
}

struct Keeper {
    client: async_nats::Client,
    control: String,
    desk: Desk,
    held: Held,
    length: Duration,
    until: watch::Sender<Instant>,
    lost: CancellationToken,
    cancelled: CancellationToken,
    released: CancellationToken,
}

impl Keeper {
    async fn run(mut self, mut next: Instant) {
        // Without it a cancel is heard at the next renewal.
        let mut control = self.client.subscribe(self.control.clone()).await.ok();
        loop {
            let woken = async {
                match &mut control {
                    Some(control) => control.next().await.is_some(),
                    None => std::future::pending().await,
                }
            };
            let end = *self.until.borrow();
            let open = tokio::select! {
                () = self.released.cancelled() => return,
                () = sleep_until(end) => {
                    tracing::warn!(build.id = %self.held.build_id, "lease ended without renewal");
                    self.lost.cancel();
                    return;
                }
                open = woken => open,
                () = sleep_until(next) => true,
            };
            if !open {
                control = None;
                continue;
            }
            let released = self.released.clone();
            tokio::select! {
                () = released.cancelled() => return,
                renewed = timeout_at(end, self.renew()) => match renewed {
                    Ok(Some(at)) => next = at,
                    Ok(None) => return,
                    // The end is the next thing that happens.
                    Err(_) => {}
                }
            }
        }
    }

    /// When to renew next; nothing when the lease is over.
    async fn renew(&mut self) -> Option<Instant> {
        let sent_at = Instant::now();
        match self.desk.renew(self.held, (self.length / 3).max(RETRY)).await {
            Ok(renewed) => {
                self.length = Duration::from_millis(renewed.lease_ms);
                self.until.send_replace(sent_at + self.length);
                if renewed.cancel {
                    self.cancelled.cancel();
                }
                Some(sent_at + self.length / 3)
            }
            Err(error) if error.refusal().is_some() => {
                tracing::warn!(build.id = %self.held.build_id, %error, "lease lost");
                self.lost.cancel();
                None
            }
            Err(error) => {
                let error = ovenbird_kit::telemetry::chain(&error);
                tracing::warn!(build.id = %self.held.build_id, error, "lease not renewed, trying again");
                Some(Instant::now() + RETRY)
            }
        }
    }
}
