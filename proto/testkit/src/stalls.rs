//! How long the machine let this process stand still, so that a test of how fast something is judges no time in which
//! nothing could run.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

const STEP: Duration = Duration::from_millis(10);
/// What is less is a busy machine's everyday.
const LEAST: Duration = Duration::from_millis(500);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Stalls {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    last: Instant,
    sum: Duration,
}

impl Stalls {
    /// From now on.
    pub fn watch() -> Self {
        let seen = Arc::new(Mutex::new(Seen { last: Instant::now(), sum: Duration::ZERO }));
        let watched = Arc::downgrade(&seen);
        thread::spawn(move || {
            while let Some(seen) = watched.upgrade() {
                seen.lock().unwrap_or_else(PoisonError::into_inner).look();
                drop(seen);
                thread::sleep(STEP);
            }
        });
        Self { seen }
    }

    /// What is left of `took`, which has just passed, without the times of half a second or more in which not even a
    /// thread that only sleeps could run; never less than half of it.
    pub fn without(&self, took: Duration) -> Duration {
        let stalled = self.seen.lock().unwrap_or_else(PoisonError::into_inner).look();
        took.saturating_sub(stalled).max(took / 2)
    }
}

impl Seen {
    fn look(&mut self) -> Duration {
        let late = self.last.elapsed().saturating_sub(STEP);
        if late >= LEAST {
            self.sum += late;
        }
        self.last = Instant::now();
        self.sum
    }
}
