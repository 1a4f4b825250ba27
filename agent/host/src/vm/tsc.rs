//! How fast this host's time stamp counter runs.
//!
//! A microvm with ACPI has no timer that Linux could calibrate the counter with, and hangs without the
//! number on its command line. Under TCG the guest's counter is the host's.

use std::{io, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// Long enough for an error below 100 ppm on a busy machine.
const WINDOW: Duration = Duration::from_millis(100);
const ROUNDS: usize = 3;

fn nanoseconds() -> io::Result<i128> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)?;
    Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
}

#[allow(unsafe_code)]
fn counter() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The counter read between two clock readings that are as close together as they get.
fn sample() -> io::Result<(i128, u64)> {
    let mut best = (i128::MAX, 0, 0);
    for _ in 0..16 {
        let before = nanoseconds()?;
        let ticks = counter();
        let after = nanoseconds()?;
        if after - before < best.0 {
            best = (after - before, before + (after - before) / 2, ticks);
        }
    }
    Ok((best.1, best.2))
}

/// Measures the counter in kHz, as the median of three windows. Blocking, 0.3 s.
pub fn measure_khz() -> io::Result<u64> {
    let mut rounds = [0_u64; ROUNDS];
    for round in &mut rounds {
        let (start, start_ticks) = sample()?;
        std::thread::sleep(WINDOW);
        let (end, end_ticks) = sample()?;
        let ticks = i128::from(end_ticks.wrapping_sub(start_ticks));
        *round = u64::try_from(ticks * 1_000_000 / (end - start).max(1)).unwrap_or(0);
    }
    rounds.sort_unstable();
    match rounds[ROUNDS / 2] {
        0..100_000 => Err(io::Error::other("the time stamp counter does not run")),
        khz => Ok(khz),
    }
}

#[cfg(test)]
mod tests {
    use super::measure_khz;

    #[test]
    fn two_measurements_agree() {
        let (a, b) = (measure_khz().unwrap(), measure_khz().unwrap());
        assert!(a.abs_diff(b) < a / 1000, "{a} kHz, {b} kHz");
    }
}
