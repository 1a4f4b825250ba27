//! The end of the machine: everything stopped, the root file system clean, the power off.

use std::time::Duration;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
    },
    unistd::{Pid, sync},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use crate::console::say;

/// Longest time between SIGTERM and SIGKILL.
const GRACE_MAX: Duration = Duration::from_secs(10);
/// How long processes may take to be gone after SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// For the answer of the Shutdown call to reach the host before the power goes.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// Carries the wish to power off from the call to `main`.
pub(crate) struct Power {
    off: Notify,
}

impl Power {
    pub(crate) fn new() -> Self {
        Self { off: Notify::new() }
    }

    /// Stops every process and leaves the root file system clean, so that its image can be used as
    /// it lies. The power goes a moment after this returns.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        signal_all(Signal::SIGTERM);
        if !alone_by(Instant::now() + grace.min(GRACE_MAX)).await {
            signal_all(Signal::SIGKILL);
            if !alone_by(Instant::now() + KILLED_WITHIN).await {
                say!("some processes could not be killed");
            }
        }
        sync();
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(error) = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>) {
            say!("the root file system stays writable: {error}");
        }
        self.off.notify_one();
    }

    /// Returns when the power is to be switched off.
    pub(crate) async fn wait_off(&self) {
        self.off.notified().await;
        sleep(ANSWER_WITHIN).await;
    }
}

/// Signals every process but this one.
fn signal_all(signal: Signal) {
    match kill(Pid::from_raw(-1), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => say!("could not signal the processes: {error}"),
    }
}

/// Waits until this is the only process; whether that came true in time.
async fn alone_by(deadline: Instant) -> bool {
    let alone = async {
        while kill(Pid::from_raw(-1), None).is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout_at(deadline, alone).await.is_ok()
}

/// Switches the machine off, or where that is not to be had resets it: QEMU runs with `-no-reboot`
/// and exits for both.
pub(crate) fn off() -> ! {
    sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    say!("no power off: {error}");
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    panic!("neither off nor reset: {error}");
}
