//! Measures every sandbox that runs, and keeps what it finds with the sandbox.
//!
//! A sandbox without a machine, be it paused or stopped, gets no points: the gap is the pause. Asking for points is no
//! use of a sandbox, or whoever watches it would keep it awake.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ovenbird_host::vm::{Memory, Usage};
use ovenbird_kit::telemetry;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Body, Error, Manager, Sandbox, SandboxId, State, unix_now};
use crate::metrics::rings::{Point, Range, Rings, SAMPLE_EVERY, Sample};

/// For a driver to say what a disk takes. Then the value of before counts.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// What is known of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Readings>);

#[derive(Debug, Default)]
struct Readings {
    rings: Rings,
    last: Option<Reading>,
    disk_bytes: u64,
}

/// A look at a process, to compare the next one with.
#[derive(Debug, Clone, Copy)]
struct Reading {
    pid: u32,
    usage: Usage,
    at: Instant,
}

impl Reading {
    /// The processors that were busy since an earlier look, in percent of one, and the time between; nothing when
    /// that was another process.
    fn since(&self, earlier: &Self) -> Option<(f64, Duration)> {
        if (self.pid, self.usage.began) != (earlier.pid, earlier.usage.began) {
            return None;
        }
        let between = self.at.duration_since(earlier.at);
        let busy = self.usage.cpu.saturating_sub(earlier.usage.cpu);
        let share = busy.as_secs_f64() / between.as_secs_f64();
        share.is_finite().then_some((share * 100.0, between))
    }
}

impl Meter {
    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, reading: Reading, disk_bytes: Option<u64>, unix: i64) {
        let mut readings = self.readings();
        readings.disk_bytes = disk_bytes.unwrap_or(readings.disk_bytes);
        let disk_bytes = readings.disk_bytes;
        let earlier = readings.last.replace(reading);
        if let Some((cpu_pct, covers)) = earlier.and_then(|earlier| reading.since(&earlier)) {
            let mem_bytes = reading.usage.memory;
            readings
                .rings
                .add(Sample { point: Point { unix, cpu_pct, mem_bytes, disk_bytes }, covers });
        }
    }
}

impl Manager {
    /// What a sandbox has used, in any of its states.
    ///
    /// # Errors
    /// When there is none.
    pub fn metrics(&self, id: &SandboxId, range: Range) -> Result<Vec<Point>, Error> {
        Ok(self.find(id)?.meter.readings().rings.points(range))
    }

    /// All of it, by [`Range::ALL`]; it is forgotten at the same moment.
    ///
    /// # Errors
    /// When there is no such sandbox.
    pub fn flush_metrics(&self, id: &SandboxId) -> Result<[Vec<Point>; 3], Error> {
        Ok(self.find(id)?.meter.readings().rings.flush())
    }
}

/// Measures all sandboxes again and again, until `shutdown` is cancelled.
pub async fn run(manager: Manager, shutdown: CancellationToken) {
    let mut samples = interval(SAMPLE_EVERY);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = samples.tick() => {}
            () = shutdown.cancelled() => return,
        }
        for sandbox in manager.sandboxes() {
            tokio::select! {
                () = sample(&manager, &sandbox) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

async fn sample(manager: &Manager, sandbox: &Arc<Sandbox>) {
    let id = &sandbox.wish.id;
    let Some((pid, memory)) = machine(sandbox) else { return };
    let usage = match Usage::of(pid, memory) {
        Ok(usage) => usage,
        // It has ended a moment ago, which is noticed elsewhere.
        Err(error) => {
            tracing::debug!(sandbox.id = %id, %error, "machine cannot be measured");
            return;
        }
    };
    let reading = Reading { pid, usage, at: Instant::now() };
    let disk = match timeout(DISK_PATIENCE, manager.means().volumes.used(&sandbox.plan.dir)).await {
        Ok(Ok(bytes)) => Some(bytes),
        Ok(Err(error)) => {
            let error = telemetry::chain(&error);
            tracing::debug!(sandbox.id = %id, error, "disk cannot be measured");
            None
        }
        Err(_) => None,
    };
    sandbox.meter.add(reading, disk, unix_now());
}

/// The process of a sandbox that runs. One that is being changed at this moment is left out this time.
fn machine(sandbox: &Sandbox) -> Option<(u32, Memory)> {
    if sandbox.state() != State::Running {
        return None;
    }
    let parts = sandbox.parts.try_lock().ok()?;
    let Some(Body::Awake(ready)) = parts.as_ref() else { return None };
    Some((ready.machine().pid(), ready.spec().memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(pid: u32, began: u64, cpu_ms: u64, at: Instant) -> Reading {
        let usage = Usage { cpu: Duration::from_millis(cpu_ms), memory: 7, began };
        Reading { pid, usage, at }
    }

    #[tokio::test(start_paused = true)]
    async fn processor_is_what_was_used_between_two_looks_at_the_same_process() {
        let (meter, start) = (Meter::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        meter.add(reading(1, 1, 10_000, start), Some(5), 100);
        assert!(meter.readings().rings.points(Range::TenMinutes).is_empty());
        meter.add(reading(1, 1, 17_500, after(5)), None, 105);
        let point = Point { unix: 105, cpu_pct: 150.0, mem_bytes: 7, disk_bytes: 5 };
        assert_eq!(meter.readings().rings.points(Range::TenMinutes), [point]);
        // Another process, also one that happens to have the same id, has another past.
        meter.add(reading(1, 2, 50, after(10)), None, 110);
        meter.add(reading(2, 2, 50, after(15)), None, 115);
        // No time has passed.
        meter.add(reading(2, 2, 60, after(15)), None, 115);
        assert_eq!(meter.readings().rings.points(Range::TenMinutes).len(), 1);
    }
}
