//! What a machine may use of the host: the control group of its slot, and what it says about the machine's end.

use ovenbird_host::{
    Slot,
    cgroup::{self, Cgroups, Group},
    vm::{Ending, memory_limit_mb, threads_max},
};

use super::{Error, Means, room::Shape};

/// The limits of a machine of this size.
fn limits(shape: Shape) -> cgroup::Limits {
    cgroup::Limits {
        memory_bytes: u64::from(memory_limit_mb(shape.memory_mb)) << 20,
        vcpus: shape.vcpus,
        pids: threads_max(shape.vcpus),
    }
}

/// Makes the group that a new machine of a slot starts in.
pub(super) async fn ensure(
    means: &Means,
    slot: Slot,
    shape: Shape,
) -> Result<Option<Group>, Error> {
    blocking(means, move |cgroups| cgroups.ensure(slot, &limits(shape))).await
}

/// Removes the group of a slot, whose machine has ended. None is fine.
pub(super) async fn remove(means: &Means, slot: Slot) -> Result<(), Error> {
    blocking(means, move |cgroups| cgroups.remove(slot)).await
}

async fn blocking<T: Send + 'static>(
    means: &Means,
    work: impl FnOnce(&Cgroups) -> Result<T, cgroup::Error> + Send + 'static,
) -> Result<T, Error> {
    let cgroups = means.cgroups.clone();
    let done = tokio::task::spawn_blocking(move || work(&cgroups)).await;
    Ok(done.map_err(|_| Error::Panicked)??)
}

/// Why a machine ended by itself, in words that go after "it" or "its".
pub(super) fn reason(means: &Means, slot: Slot, shape: Shape, ending: Ending) -> String {
    match ending {
        Ending::Guest => "its guest turned itself off".to_owned(),
        Ending::Process if oom_kills(means, slot) > 0 => format!(
            "its QEMU was killed, for it needed more than its memory limit of {} MiB",
            memory_limit_mb(shape.memory_mb)
        ),
        Ending::Process => "its QEMU ended".to_owned(),
    }
}

/// Since the group was made, which is at each start of a machine.
fn oom_kills(means: &Means, slot: Slot) -> u64 {
    means.cgroups.find(slot).map_or(0, |group| group.oom_kills())
}
