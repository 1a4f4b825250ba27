//! The ways in which a build is interrupted from outside, in the order in which they win.

use std::future::Future;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Why a build is to stop before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The lease is over: another runner may have the build, and nothing may be said about it any more.
    LeaseLost,
    /// Somebody cancelled the build.
    Cancelled,
    /// The build has taken all the time that it may.
    TimeOver,
    /// The runner ends; the build goes back to the queue.
    Drain,
}

/// What a build listens to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Cancelled when the lease is over.
    pub lost: CancellationToken,
    /// Cancelled when somebody cancelled the build.
    pub cancelled: CancellationToken,
    /// When the build's time is over, if it has a limit.
    pub time_over: Option<Instant>,
    /// Cancelled when the runner's drain time is over.
    pub drain: CancellationToken,
}

impl Stop {
    /// The interrupt that is there, if any.
    pub fn now(&self) -> Option<Interrupt> {
        if self.lost.is_cancelled() {
            Some(Interrupt::LeaseLost)
        } else if self.cancelled.is_cancelled() {
            Some(Interrupt::Cancelled)
        } else if self.time_over.is_some_and(|at| at <= Instant::now()) {
            Some(Interrupt::TimeOver)
        } else if self.drain.is_cancelled() {
            Some(Interrupt::Drain)
        } else {
            None
        }
    }

    /// Waits for an interrupt.
    pub async fn interrupted(&self) -> Interrupt {
        let time_over = async {
            match self.time_over {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Interrupt::LeaseLost,
            () = self.cancelled.cancelled() => Interrupt::Cancelled,
            () = time_over => Interrupt::TimeOver,
            () = self.drain.cancelled() => Interrupt::Drain,
        }
    }

    /// Does `work` unless an interrupt comes first; `work` is dropped then.
    ///
    /// # Errors
    /// The interrupt.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        tokio::select! {
            biased;
            interrupt = self.interrupted() => Err(interrupt),
            done = work => Ok(done),
        }
    }
}
