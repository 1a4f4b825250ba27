//! The guest's clocks: the check that timers work at all, and the wall clock that HELLO sets.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

const CURRENT_DEVICE: &str = "/sys/devices/system/clockevents/clockevent0/current_device";
/// How long the 1 ms sleep of the check may take. A machine under load is late; one whose timers are
/// dead never wakes.
const CHECK_WITHIN: Duration = Duration::from_secs(3);
/// A clock that is behind by less is left alone: HELLO itself travels for about as long.
const BEHIND_MAX: Duration = Duration::from_millis(10);
/// The same for one that is ahead. Going back is what programs bear worst.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// Why the timers are not to be trusted. The host boots the VM again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the clock event device cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("the kernel has no clock event device: its calibration failed")]
    NoDevice,
    #[error("a sleep of 1 ms did not end within {} s: timer interrupts are dead", CHECK_WITHIN.as_secs())]
    Dead,
    #[error("the check's thread did not start")]
    Thread(#[source] io::Error),
}

/// What the check found.
#[derive(Debug, Clone)]
pub(crate) struct Timer {
    pub(crate) device: String,
    pub(crate) slept: Duration,
}

/// Under load the calibration of the local timer fails once in a while, and Linux then runs on
/// without timers: it answers, but nothing that waits ever wakes.
pub(crate) fn check_timer() -> Result<Timer, Error> {
    let device = fs::read_to_string(CURRENT_DEVICE).map_err(Error::Unreadable)?.trim().to_owned();
    if device.is_empty() {
        return Err(Error::NoDevice);
    }
    let woke = Arc::new(AtomicBool::new(false));
    let sleeper = {
        let woke = woke.clone();
        thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            thread::sleep(Duration::from_millis(1));
            woke.store(true, Ordering::Release);
        })
    }
    .map_err(Error::Thread)?;
    // Yielding instead of waiting: a wait would be one more thing that dead timers never end.
    let started = Instant::now();
    while !woke.load(Ordering::Acquire) {
        if started.elapsed() > CHECK_WITHIN {
            return Err(Error::Dead);
        }
        thread::yield_now();
    }
    let slept = started.elapsed();
    let _ = sleeper.join();
    Ok(Timer { device, slept })
}

/// Sets the wall clock to the host's, if it is off: it stands still while the VM is stopped or saved.
pub(crate) fn set(unix: Duration) -> nix::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if unix.saturating_sub(now) < BEHIND_MAX && now.saturating_sub(unix) < AHEAD_MAX {
        return Ok(());
    }
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(unix))
}

/// Time since boot, suspended time included.
pub(crate) fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
