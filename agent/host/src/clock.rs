//! Whether the host's clock follows another one, by the kernel's own word (`adjtimex(2)`).

use std::io;

/// Whether some program keeps the clock right. Logs of several hosts, certificates and guests' clocks rely on it.
///
/// # Errors
/// Those of the kernel.
pub fn is_synchronised() -> io::Result<bool> {
    #[allow(unsafe_code)]
    // SAFETY: all fields are numbers, for which zero is a value; `modes` 0 changes nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    #[allow(unsafe_code)]
    // SAFETY: the kernel writes to the structure, which outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    match state {
        -1 => Err(io::Error::last_os_error()),
        libc::TIME_ERROR => Ok(false),
        _ => Ok(clock.status & libc::STA_UNSYNC == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_says_whether_the_clock_is_kept() {
        let said = is_synchronised().unwrap();
        assert_eq!(is_synchronised().unwrap(), said, "asking changes nothing");
    }
}
