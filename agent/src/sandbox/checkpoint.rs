//! Root disks that are kept under a name while their sandbox goes on, and put back later.
//!
//! ```text
//!  keep:     freeze the guest's file system, stop ─► copy the disk ─► run, thaw, set the clock
//!  put back: end machine ─► put the disk back ─► boot from it ─► guest answers
//!            └─ fails: the sandbox has stopped, and can be put back again ──┘
//! ```
//!
//! Keeping a disk cuts no call: commands and streams stand still for as long as the copy takes. A sandbox that is put
//! back has its id and its address and nothing else of before: no process, and a memory that begins anew, also when
//! it was made from a snapshot.

use std::sync::Arc;

use ovenbird_guest_protocol::v1::{FreezeRequest, ThawRequest};
use ovenbird_host::{
    storage,
    vm::{Start, file},
};
use ovenbird_kit::telemetry;
use tokio::time::{Duration, Instant, timeout};
use tonic::Code;

use super::{
    Body, Error, Event, InUse, Info, Manager, Sandbox, SandboxId, State,
    create::{Furnished, Ready},
    journal::Stage,
    pause::Asleep,
    save::{guest_result, sync},
};
use crate::guest_link::Arrival;

/// Checkpoints of one sandbox.
const CHECKPOINTS_MAX: usize = 32;
/// For a guest to write what is dirty and to hold its file system still, or to let it go.
const FREEZE_PATIENCE: Duration = Duration::from_secs(120);
/// After which a guest lets its file system go by itself, in its own time, which stands still during the copy.
const FREEZE_HOLD_MS: u64 = 60_000;
/// For a link that broke meanwhile.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(30);

impl Manager {
    /// Keeps a running sandbox's disk under a name; an older checkpoint of that name is replaced. Returns the bytes
    /// it takes. It is done to the end even when nobody waits.
    ///
    /// # Errors
    /// When the sandbox is not running, has too many checkpoints, or its guest or disk does not cooperate: it goes on
    /// all the same.
    pub async fn checkpoint(&self, id: &SandboxId, name: &str) -> Result<u64, Error> {
        storage::check_name(name)?;
        let sandbox = self.find(id)?;
        self.check_open()?;
        let in_use = self.guest(id)?;
        let (manager, name) = (self.clone(), name.to_owned());
        let kept = self.spawn(async move { manager.keep(&sandbox, in_use, &name).await });
        kept.await.unwrap_or(Err(Error::Panicked))
    }

    async fn keep(&self, sandbox: &Arc<Sandbox>, _in_use: InUse, name: &str) -> Result<u64, Error> {
        let started = Instant::now();
        let mut parts = sandbox.parts.lock().await;
        let (State::Running, Some(Body::Awake(ready))) = (sandbox.state(), parts.as_mut()) else {
            return Err(sandbox.wrong_state(sandbox.state()));
        };
        let volumes = &self.means().volumes;
        let names = volumes.checkpoints(&sandbox.plan.dir).await?;
        if names.len() >= CHECKPOINTS_MAX && !names.iter().any(|other| other == name) {
            return Err(Error::Checkpoints { id: sandbox.wish.id.clone(), max: CHECKPOINTS_MAX });
        }
        let is_frozen = freeze(ready).await?;
        let stopped = ready.machine().pause().await;
        let kept = match stopped {
            Ok(()) => volumes.checkpoint(&sandbox.plan.dir, name).await.map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = ready.machine().resume().await {
            let error = Error::from(error);
            sandbox.set_guest(None);
            self.lost(sandbox, &error, ": its machine was lost while its disk was kept");
            return Err(error);
        }
        let went_on = go_on(sandbox, ready, is_frozen).await;
        let bytes = kept?;
        went_on?;
        let (id, milliseconds) = (&sandbox.wish.id, started.elapsed().as_millis());
        tracing::info!(sandbox.id = %id, name, bytes, milliseconds, "disk is kept");
        Ok(bytes)
    }

    /// Ends a sandbox's machine, puts its disk back to a checkpoint, which stays, and boots from it. It is done to the
    /// end even when nobody waits.
    ///
    /// # Errors
    /// When there is no such checkpoint, or the sandbox is neither running nor stopped: nothing has changed then.
    /// Later failures leave it stopped; it can be put back again.
    pub async fn restore_checkpoint(&self, id: &SandboxId, name: &str) -> Result<Info, Error> {
        storage::check_name(name)?;
        let sandbox = self.find(id)?;
        self.check_open()?;
        let names = self.means().volumes.checkpoints(&sandbox.plan.dir).await?;
        if !names.iter().any(|other| other == name) {
            return Err(Error::NoCheckpoint { id: id.clone(), name: name.to_owned() });
        }
        sandbox.apply(Event::Restore).map_err(|refused| sandbox.wrong_state(refused.0))?;
        let (manager, name) = (self.clone(), name.to_owned());
        let restored = self
            .spawn(async move { manager.put_back(&sandbox, &name).await.map(|()| sandbox.info()) });
        restored.await.unwrap_or(Err(Error::Panicked))
    }

    async fn put_back(&self, sandbox: &Arc<Sandbox>, name: &str) -> Result<(), Error> {
        let started = Instant::now();
        sandbox.usage.leave().await;
        let mut parts = sandbox.parts.lock().await;
        sandbox.set_guest(None);
        sandbox.plan.try_note_stage(Stage::Restoring { checkpoint: name.to_owned() });
        let furnished = match parts.take() {
            Some(Body::Awake(ready)) => {
                ready.link().disconnect();
                if let Err(error) = ready.machine().kill().await {
                    let error = Error::from(error);
                    self.lost(sandbox, &error, ": its machine could not be ended");
                    *parts = Some(Body::Awake(ready));
                    return Err(error);
                }
                ready.without_machine().0
            }
            Some(Body::Asleep(asleep)) => asleep.furnished,
            None => return Err(sandbox.wrong_state(sandbox.state())),
        };
        let _permit = self.creates().acquire().await;
        match self.boot_checkpoint(furnished, name).await {
            Ok(ready) => {
                ready.plan().try_note(|record| {
                    record.kernel.clone_from(&ready.plan().kernel);
                    record.memory = ready.spec().memory;
                    record.platform = self.platform();
                    record.stage = Stage::Running;
                });
                let machine = ready.machine().clone();
                sandbox.usage.touch();
                sandbox.usage.stay();
                sandbox.set_guest(Some(ready.guest()));
                *parts = Some(Body::Awake(ready));
                let _ = sandbox.apply(Event::Restored);
                self.watch(sandbox, machine);
                let (id, milliseconds) = (&sandbox.wish.id, started.elapsed().as_millis());
                tracing::info!(sandbox.id = %id, name, milliseconds, "disk is put back");
                Ok(())
            }
            Err((furnished, error)) => {
                let spec = furnished.spec();
                *parts = Some(Body::Asleep(Asleep { furnished: *furnished, spec, saved: None }));
                self.lost(sandbox, &error, ": its checkpoint could not be put back; try again");
                Err(error)
            }
        }
    }

    async fn boot_checkpoint(
        &self,
        mut furnished: Furnished,
        name: &str,
    ) -> Result<Ready, (Box<Furnished>, Error)> {
        let means = self.means();
        let plan = furnished.plan();
        let restored = means.volumes.restore(&plan.dir, name, plan.identity).await;
        let prepared = match restored {
            Ok(volume) => furnished.boot_from(self.kernel().clone(), volume),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = prepared {
            return Err((Box::new(furnished), error));
        }
        let spec = furnished.spec();
        if let Err(error) = spec.directory.discard(file::STATE) {
            tracing::warn!(%error, "state of an earlier machine stays until the sandbox is destroyed");
        }
        let launched = furnished.start(means, spec, Start::Boot).await?;
        match launched.answered(means, Arrival::Running).await {
            Ok(guest) => Ok(launched.ready(guest)),
            Err(error) => {
                if let Err(error) = launched.machine().kill().await {
                    let error = telemetry::chain(&error);
                    tracing::error!(error, "machine that did not come up could not be ended");
                }
                Err((Box::new(launched.without_machine().0), error))
            }
        }
    }
}

/// Makes the guest's disk a whole one; whether it also holds it still. A guest of an older snapshot can only write
/// what is dirty.
async fn freeze(ready: &mut Ready) -> Result<bool, Error> {
    let mut guest = ready.guest();
    let frozen = timeout(FREEZE_PATIENCE, guest.freeze(FreezeRequest { hold_ms: FREEZE_HOLD_MS }));
    match frozen.await {
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            sync(ready).await.map(|()| false)
        }
        // When it comes too late, it ends by itself.
        answer => guest_result(&ready.plan().id, "hold its disk still", answer).map(|()| true),
    }
}

/// Lets a guest that was stopped for a while find the right time, and write again.
async fn go_on(sandbox: &Sandbox, ready: &mut Ready, is_frozen: bool) -> Result<(), Error> {
    let id = ready.plan().id.clone();
    let action = "hold its disk still until it was kept: keep it once more";
    if is_frozen {
        let mut guest = ready.guest();
        let answer = timeout(FREEZE_PATIENCE, guest.thaw(thaw_request())).await;
        match answer {
            Ok(Ok(answer)) if answer.get_ref().was_frozen => return Ok(()),
            Ok(Ok(_)) => {
                let late = tonic::Status::deadline_exceeded("it let go too early");
                return guest_result::<()>(&id, action, Ok(Err(late)));
            }
            _ => {}
        }
    }
    // HELLO sets the clock, too, but ends every open call.
    let deadline = Instant::now() + RECONNECT_PATIENCE;
    let mut guest = match ready.link().connect(Arrival::Resumed, deadline).await {
        Ok(guest) => guest,
        Err(source) => return Err(Error::LinkLost { id, source }),
    };
    ready.replace_guest(guest.clone());
    sandbox.set_guest(Some(guest.clone()));
    if is_frozen {
        let answer = timeout(FREEZE_PATIENCE, guest.thaw(thaw_request())).await;
        return guest_result(&id, action, answer);
    }
    Ok(())
}

fn thaw_request() -> ThawRequest {
    ThawRequest { unix_nanos: crate::guest_link::unix_nanos() }
}
