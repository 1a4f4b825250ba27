//! A sandbox becomes a template: a snapshot with its memory, or an image of its root disk.
//!
//! ```text
//!  name taken? ─► sync guest ─► quiet link, pause, save state ─► end machine ─► hand files over ─► publish
//!                 └── fails: the sandbox goes on ──────────────┘ └── fails: the sandbox is gone ───────┘
//! ```
//!
//! The journal says so before the machine ends. Whatever happens to the agent from then on, either is there whole: a
//! restart finds the disk with the sandbox, which sleeps or has stopped then, or with the template, which it finishes.
//! The sandbox's files become the template's by renaming, so nothing is copied. A fork has no memory file of its own:
//! its state is saved with the whole memory and loaded once into a paused machine that has one. That state is kept
//! until there is the one that goes with the file.

use std::{path::Path, sync::Arc, time::Duration};

use ovenbird_guest_protocol::v1::{ShutdownRequest, SyncRequest, UnfollowExecsRequest};
use ovenbird_host::vm::{Ending, Memory, Saved, Start, file};
use tokio::time::{Instant, timeout};

use super::{
    Body, Error, Event, Manager, Sandbox, SandboxId, confine,
    create::{Plan, Ready},
    journal::Stage,
    pause::contents,
    unix_now,
};
use crate::{
    guest_link::Arrival,
    name::TemplateName,
    template::{Draft, Kind, Manifest, Reservation, VERSION},
};

/// For a guest to write what is dirty.
const SYNC_PATIENCE: Duration = Duration::from_secs(120);
/// For a guest to end its processes and turn itself off.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);
/// Of that, for the processes.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// For a guest to notice that its link was closed, and to clear up after it. Whatever it has not done when it is
/// saved, every fork does first.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// A fork's state with its memory, while the one without is being saved.
pub(super) const WHOLE_STATE: &str = "state+whole";
/// For a guest that goes on after a save that failed.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(10);

impl Manager {
    /// Makes a template of a running sandbox and removes the sandbox. Returns the template's size. It is done to
    /// the end even when nobody waits.
    ///
    /// # Errors
    /// When the name is taken, the sandbox is not running, or its guest does not cooperate: nothing has changed
    /// then. Later failures remove the sandbox, and no template is left.
    pub async fn save(
        &self,
        id: &SandboxId,
        kind: Kind,
        name: &TemplateName,
    ) -> Result<u64, Error> {
        let sandbox = self.find(id)?;
        self.check_open()?;
        if kind == Kind::Snapshot {
            self.check_platform(&sandbox.plan)?;
        }
        let reservation = self.templates().reserve(kind, name)?;
        sandbox.apply(Event::Save).map_err(|refused| sandbox.wrong_state(refused.0))?;
        let manager = self.clone();
        let saved = self.spawn(async move { manager.save_now(&sandbox, kind, reservation).await });
        saved.await.unwrap_or(Err(Error::Panicked))
    }

    async fn save_now(
        &self,
        sandbox: &Arc<Sandbox>,
        kind: Kind,
        reservation: Reservation,
    ) -> Result<u64, Error> {
        let started = std::time::Instant::now();
        let mut parts = sandbox.parts.lock().await;
        let Some(Body::Awake(ready)) = parts.as_mut() else {
            return Err(sandbox.wrong_state(sandbox.state()));
        };
        sandbox.set_guest(None);
        let saving = Stage::Saving { kind, template: reservation.name().to_string() };
        let ended = match kind {
            Kind::Snapshot => self.freeze(ready, saving).await,
            Kind::Image => shut_down(ready, saving).await,
        };
        if let Err(Stuck { error, machine_is_lost: false }) = ended {
            sandbox.set_guest(Some(ready.guest()));
            let _ = sandbox.apply(Event::NotSaved);
            return Err(error);
        }
        let published = match ended {
            Ok(()) => self.publish(ready, kind, reservation).await,
            Err(stuck) => Err(stuck.error),
        };
        drop(parts);
        let _ = sandbox.apply(Event::Saved);
        self.remove(sandbox).await?;
        let (id, milliseconds) = (&sandbox.wish.id, started.elapsed().as_millis());
        match &published {
            Ok(bytes) => {
                tracing::info!(sandbox.id = %id, bytes, milliseconds, "template is published")
            }
            Err(error) => {
                let error = ovenbird_kit::telemetry::chain(error);
                tracing::error!(sandbox.id = %id, error, "template could not be published");
            }
        }
        published
    }

    /// Leaves memory, state and disk of a machine that has ended.
    async fn freeze(&self, ready: &mut Ready, saving: Stage) -> Result<(), Stuck> {
        unfollow(ready).await.map_err(Stuck::goes_on)?;
        sync(ready).await.map_err(Stuck::goes_on)?;
        ready.link().disconnect();
        tokio::time::sleep(QUIET).await;
        let saved = async {
            ready.machine().pause().await?;
            ready.machine().save(contents(ready)).await
        };
        if let Err(error) = saved.await {
            return Err(wake(ready, error.into()).await);
        }
        ready.plan().try_note_stage(saving);
        ready.machine().kill().await.map_err(Stuck::lost)?;
        match contents(ready) {
            Saved::Devices => Ok(()),
            Saved::DevicesAndMemory => self.give_own_memory(ready).await.map_err(Stuck::lost),
        }
    }

    /// Loads a state that contains the memory into a machine whose memory is a file, and saves that.
    async fn give_own_memory(&self, ready: &Ready) -> Result<(), Error> {
        let mut spec = ready.spec().clone();
        spec.memory = Memory::Own;
        let id = ready.plan().id.clone();
        spec.directory.add(file::MEMORY, u64::from(spec.memory_mb) << 20).map_err(|source| {
            Error::Directory { id: id.clone(), action: "given a memory", source }
        })?;
        let (slot, shape) = (ready.plan().slot, ready.plan().shape);
        spec.cgroup = confine::ensure(self.means(), slot, shape).await?;
        let start = Start::Restore(Saved::DevicesAndMemory);
        let machine = self.means().hypervisor.launch(&spec, start).await?;
        let whole = spec.directory.path().join(WHOLE_STATE);
        let kept = std::fs::rename(spec.directory.path().join(file::STATE), whole);
        let saved = match kept {
            Ok(()) => machine.save(Saved::Devices).await.map_err(Error::from),
            Err(source) => Err(Error::Directory { id: id.clone(), action: "looked after", source }),
        };
        machine.kill().await?;
        saved?;
        ready.plan().note(|record| record.memory = Memory::Own)?;
        let discarded = spec.directory.discard(WHOLE_STATE);
        discarded.map_err(|source| Error::Directory { id, action: "cleared", source })
    }

    /// Turns the files of an ended machine into a template.
    async fn publish(
        &self,
        ready: &Ready,
        kind: Kind,
        reservation: Reservation,
    ) -> Result<u64, Error> {
        let mut draft = reservation.draft()?;
        let dir = &ready.plan().dir;
        self.means().volumes.publish(dir, &draft.rootfs()).await?;
        if kind == Kind::Snapshot {
            self.add_memory(ready, dir, &mut draft)?;
        }
        let published = tokio::task::spawn_blocking(move || draft.publish()).await;
        Ok(published.map_err(|_| Error::Panicked)??)
    }

    fn add_memory(&self, ready: &Ready, dir: &Path, draft: &mut Draft) -> Result<(), Error> {
        for name in [file::MEMORY, file::STATE] {
            draft.take(&dir.join(name), name)?;
        }
        draft.describe(manifest(ready.plan(), ready.volume().bytes));
        Ok(())
    }
}

/// Of a snapshot that is made of a sandbox's files.
pub(super) fn manifest(plan: &Plan, disk_bytes: u64) -> Manifest {
    Manifest {
        version: VERSION,
        // Of the QEMU that wrote the state: the agent may have been given another one since.
        platform: plan.journal.record().platform,
        kernel: plan.kernel.clone(),
        vcpus: plan.shape.vcpus,
        memory_mb: plan.shape.memory_mb,
        disk_bytes,
        token: plan.token,
        created_at_unix: unix_now(),
        files: std::collections::BTreeMap::new(),
    }
}

/// A machine could not be brought to where its files can be taken.
pub(super) struct Stuck {
    pub(super) error: Error,
    /// Whether the sandbox can not go on.
    pub(super) machine_is_lost: bool,
}

impl Stuck {
    pub(super) fn goes_on(error: impl Into<Error>) -> Self {
        Self { error: error.into(), machine_is_lost: false }
    }

    pub(super) fn lost(error: impl Into<Error>) -> Self {
        Self { error: error.into(), machine_is_lost: true }
    }
}

/// What runs now runs in every fork, where nobody reads its output: it must not wait for a reader there.
async fn unfollow(ready: &Ready) -> Result<(), Error> {
    let mut guest = ready.guest();
    let answer = timeout(SYNC_PATIENCE, guest.unfollow_execs(UnfollowExecsRequest {})).await;
    guest_result(&ready.plan().id, "let its commands go on alone", answer)
}

pub(super) async fn sync(ready: &Ready) -> Result<(), Error> {
    let mut guest = ready.guest();
    let synced = timeout(SYNC_PATIENCE, guest.sync(SyncRequest {})).await;
    guest_result(&ready.plan().id, "write its disk", synced)
}

pub(super) fn guest_result<T>(
    id: &SandboxId,
    action: &'static str,
    result: Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>,
) -> Result<(), Error> {
    let status = match result {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(status)) => status,
        Err(_) => tonic::Status::deadline_exceeded("no answer"),
    };
    Err(Error::Guest { id: id.clone(), action, source: Box::new(status) })
}

/// Lets a machine go on whose state could not be saved.
pub(super) async fn wake(ready: &mut Ready, error: Error) -> Stuck {
    if let Err(error) = ready.machine().resume().await {
        return Stuck::lost(error);
    }
    let deadline = Instant::now() + RECONNECT_PATIENCE;
    match ready.link().connect(Arrival::Resumed, deadline).await {
        Ok(guest) => {
            ready.replace_guest(guest);
            Stuck::goes_on(error)
        }
        Err(source) => Stuck::lost(Error::LinkLost { id: ready.plan().id.clone(), source }),
    }
}

/// Lets the guest unmount its root disk and turn itself off, so that the image is clean.
async fn shut_down(ready: &Ready, saving: Stage) -> Result<(), Stuck> {
    sync(ready).await.map_err(Stuck::goes_on)?;
    let id = &ready.plan().id;
    let grace_ms = u64::try_from(SHUTDOWN_GRACE.as_millis()).unwrap_or(0);
    let mut guest = ready.guest();
    // Its answer can be lost in its end, so the end alone counts.
    let _ = timeout(SHUTDOWN_PATIENCE, guest.shutdown(ShutdownRequest { grace_ms })).await;
    ready.plan().try_note_stage(saving);
    let ended = timeout(SHUTDOWN_PATIENCE, ready.machine().ended()).await;
    ready.link().disconnect();
    ready.machine().kill().await.map_err(Stuck::lost)?;
    match ended {
        Ok(Ending::Guest) => Ok(()),
        _ => Err(Stuck::lost(Error::StillOn(id.clone()))),
    }
}
