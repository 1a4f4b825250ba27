//! A sandbox gives its memory back, and gets it again: hibernation to its own directory.
//!
//! ```text
//!  pause:   end calls ─► quiet link, stop, save state ─► end machine ─► give room back
//!           └─ fails: the sandbox goes on ──────────┘
//!  resume:  take room ─► new machine loads state ─► runs ─► guest answers ─► state is deleted
//!           └─ fails: still paused ─────────────┘    └─ does not: stop, save again: still paused
//! ```
//!
//! Network, disk, slot and address are kept all the time, so the new machine finds the world of the old one. A guest
//! whose memory is its own file has all of it there: the state is that of the devices, some 100 KB. A fork's memory
//! is a template's file plus pages of its process, so its state holds the whole memory; the resumed machine has it in
//! a file of its own, and the next pause is a cheap one.
//!
//! The journal says paused once the state is complete, before the machine ends, and running before the new machine
//! does. Nothing is synced to the medium: a paused sandbox outlives its agent, not its host.

use std::sync::Arc;

use futures::FutureExt;
use ovenbird_host::vm::{Ending, MachineSpec, Memory, Saved, Start, file};
use ovenbird_kit::telemetry;

use super::{
    Body, Error, Event, Info, Manager, Means, Refused, Sandbox, SandboxId, State,
    create::{Furnished, Launched, Plan, Ready},
    journal::Stage,
    save::{QUIET, Stuck, wake},
};
use crate::{guest_link::Arrival, template::difference};

/// A sandbox without a machine: paused, or on its way to another machine.
#[derive(Debug)]
pub(super) struct Asleep {
    pub(super) furnished: Furnished,
    /// What its machine was started with.
    pub(super) spec: MachineSpec,
    /// What [`file::STATE`] holds; `None`: there is nothing to go on from.
    pub(super) saved: Option<Saved>,
}

impl Asleep {
    pub(super) async fn undo(self, means: &Means) -> Result<(), Error> {
        self.furnished.undo(means).await
    }

    pub(super) fn plan(&self) -> &Plan {
        self.furnished.plan()
    }
}

/// What the state of a machine has to hold.
pub(super) fn contents(ready: &Ready) -> Saved {
    match ready.spec().memory {
        Memory::Own => Saved::Devices,
        Memory::CopyOnWrite => Saved::DevicesAndMemory,
    }
}

impl Manager {
    /// Pauses a sandbox; one that is paused stays so. It is done to the end even when nobody waits.
    ///
    /// # Errors
    /// When it is in a state that cannot be paused, or its state could not be saved: it goes on then, unless the
    /// error says that its machine is lost.
    pub async fn pause(&self, id: &SandboxId) -> Result<(), Error> {
        let sandbox = self.find(id)?;
        loop {
            self.check_open()?;
            if sandbox.state() == State::Running {
                self.check_platform(&sandbox.plan)?;
            }
            match sandbox.apply(Event::Pause) {
                Ok(_) => return self.pause_applied(sandbox, false).await,
                Err(Refused(State::Paused)) => return Ok(()),
                // Another caller is at it.
                Err(Refused(State::Pausing | State::Resuming)) => drop(sandbox.settled().await),
                Err(Refused(state)) => return Err(sandbox.wrong_state(state)),
            }
        }
    }

    /// Pauses a sandbox that nobody has used for its idle limit. Returns whether it was so.
    pub(super) async fn pause_when_idle(&self, sandbox: &Arc<Sandbox>) -> Result<bool, Error> {
        self.check_platform(&sandbox.plan)?;
        let may_pause = || sandbox.usage.is_idle() && !self.is_closing();
        if sandbox.apply_if(Event::Pause, may_pause).is_err() {
            return Ok(false);
        }
        self.pause_applied(sandbox.clone(), true).await?;
        Ok(true)
    }

    /// Whether a state that a sandbox's machine leaves can be loaded here. It runs on whatever it was started with, also
    /// when this agent has been given something else.
    pub(super) fn check_platform(&self, plan: &Plan) -> Result<(), Error> {
        match difference(&plan.journal.record().platform, &self.platform()) {
            Some(reason) => Err(Error::Elsewhere { id: plan.id.clone(), reason }),
            None => Ok(()),
        }
    }

    async fn pause_applied(&self, sandbox: Arc<Sandbox>, was_idle: bool) -> Result<(), Error> {
        let manager = self.clone();
        let paused = self.spawn(async move { manager.pause_now(&sandbox, was_idle).await });
        paused.await.unwrap_or(Err(Error::Panicked))
    }

    async fn pause_now(&self, sandbox: &Arc<Sandbox>, was_idle: bool) -> Result<(), Error> {
        let started = std::time::Instant::now();
        sandbox.usage.leave().await;
        let mut parts = sandbox.parts.lock().await;
        let mut ready = match parts.take() {
            Some(Body::Awake(ready)) => ready,
            other => {
                *parts = other;
                return Err(sandbox.wrong_state(sandbox.state()));
            }
        };
        sandbox.set_guest(None);
        let saved = contents(&ready);
        let id = &sandbox.wish.id;
        match hibernate(&mut ready, saved, was_idle).await {
            Ok(()) => {
                let (furnished, spec) = ready.without_machine();
                *parts = Some(Body::Asleep(Asleep { furnished, spec, saved: Some(saved) }));
                self.register().room.sleep(sandbox.plan.slot, sandbox.plan.shape);
                let _ = sandbox.apply(Event::Paused);
                let milliseconds = started.elapsed().as_millis();
                tracing::info!(sandbox.id = %id, milliseconds, "sandbox is paused");
                Ok(())
            }
            Err(Stuck { error, machine_is_lost }) => {
                sandbox.usage.stay();
                if machine_is_lost {
                    self.lost(sandbox, &error, ": its machine was lost while it was being paused");
                } else {
                    sandbox.set_guest(Some(ready.guest()));
                    let _ = sandbox.apply(Event::NotPaused);
                }
                *parts = Some(Body::Awake(ready));
                Err(error)
            }
        }
    }

    /// Notes that a sandbox has neither a machine nor a state to go on from.
    pub(super) fn lost(&self, sandbox: &Arc<Sandbox>, error: &Error, detail: &str) {
        let (id, error) = (&sandbox.wish.id, telemetry::chain(error));
        tracing::error!(sandbox.id = %id, error, "sandbox has stopped{detail}");
        sandbox.set_detail(detail);
        let _ = sandbox.apply(Event::Ended);
        sandbox.plan.try_note_stage(Stage::Stopped { detail: detail.to_owned() });
    }

    /// Resumes a sandbox and sets its idle limit to `timeout_sec`, counted from then; one that runs gets the limit
    /// only. It is done to the end even when nobody waits.
    ///
    /// # Errors
    /// When it is in a state that cannot be resumed, there is no room for it, or it did not come up: it stays paused
    /// then, unless the error says that its machine is lost.
    pub async fn resume(&self, id: &SandboxId, timeout_sec: i32) -> Result<Info, Error> {
        let sandbox = self.find(id)?;
        loop {
            self.check_open()?;
            match sandbox.apply(Event::Resume) {
                Ok(_) => break,
                Err(Refused(State::Running)) => {
                    sandbox.set_timeout(timeout_sec);
                    return Ok(sandbox.info());
                }
                // Another caller is at it.
                Err(Refused(State::Pausing | State::Resuming)) => drop(sandbox.settled().await),
                Err(Refused(state)) => return Err(sandbox.wrong_state(state)),
            }
        }
        let manager = self.clone();
        let resumed = self.spawn(async move {
            manager.resume_now(&sandbox, timeout_sec).await.map(|()| sandbox.info())
        });
        resumed.await.unwrap_or(Err(Error::Panicked))
    }

    async fn resume_now(&self, sandbox: &Arc<Sandbox>, timeout_sec: i32) -> Result<(), Error> {
        let started = std::time::Instant::now();
        let mut parts = sandbox.parts.lock().await;
        let asleep = match parts.take() {
            Some(Body::Asleep(asleep)) => asleep,
            other => {
                *parts = other;
                return Err(sandbox.wrong_state(sandbox.state()));
            }
        };
        let (slot, shape) = (sandbox.plan.slot, sandbox.plan.shape);
        if let Err(error) = self.register().room.wake(slot, shape) {
            *parts = Some(Body::Asleep(asleep));
            let _ = sandbox.apply(Event::NotResumed);
            return Err(error.into());
        }
        let _permit = self.creates().acquire().await;
        let id = &sandbox.wish.id;
        match asleep.wake(self.means()).await {
            Ok(ready) => {
                let machine = ready.machine().clone();
                sandbox.set_timeout(timeout_sec);
                sandbox.usage.stay();
                sandbox.set_guest(Some(ready.guest()));
                *parts = Some(Body::Awake(ready));
                let _ = sandbox.apply(Event::Resumed);
                self.watch(sandbox, machine);
                let milliseconds = started.elapsed().as_millis();
                tracing::info!(sandbox.id = %id, milliseconds, "sandbox is resumed");
                Ok(())
            }
            Err((asleep, error)) => {
                if asleep.saved.is_some() {
                    self.register().room.sleep(slot, shape);
                    let reason = telemetry::chain(&error);
                    tracing::warn!(sandbox.id = %id, reason, "sandbox could not be resumed, it stays paused");
                    let _ = sandbox.apply(Event::NotResumed);
                } else {
                    self.lost(sandbox, &error, ": its machine was lost while it was being resumed");
                }
                *parts = Some(Body::Asleep(asleep));
                Err(error)
            }
        }
    }
}

/// Puts everything of a machine into its files, and ends it.
async fn hibernate(ready: &mut Ready, saved: Saved, was_idle: bool) -> Result<(), Stuck> {
    ready.link().disconnect();
    tokio::time::sleep(QUIET).await;
    let stopped = async {
        ready.machine().pause().await?;
        // A guest that has turned itself off would be resumed turned off.
        if let Some(ending) = ready.machine().ended().now_or_never() {
            return Ok(Some(ending));
        }
        ready.machine().save(saved).await?;
        ready.plan().note_stage(Stage::Paused { saved, untold: was_idle })?;
        Ok::<_, Error>(None)
    };
    match stopped.await {
        Ok(None) => ready.machine().kill().await.map_err(Stuck::lost),
        Ok(Some(ending)) => {
            let reason = match ending {
                Ending::Guest => "it turned itself off",
                Ending::Process => "its QEMU ended",
            };
            let id = ready.plan().id.clone();
            Err(Stuck::lost(Error::NotPaused { id, reason }))
        }
        Err(error) => Err(wake(ready, error).await),
    }
}

impl Asleep {
    /// Gets the guest to answer on a new machine. When that fails, it is what it was, or there is nothing to go on
    /// from any more.
    async fn wake(mut self, means: &Means) -> Result<Ready, (Self, Error)> {
        let Some(saved) = self.saved else {
            let id = self.plan().id.clone();
            return Err((self, Error::NotPaused { id, reason: "it has no saved state" }));
        };
        let platform = self.plan().journal.record().platform;
        if let Some(reason) = difference(&platform, &means.hypervisor.platform()) {
            let id = self.plan().id.clone();
            return Err((self, Error::Elsewhere { id, reason }));
        }
        if saved == Saved::DevicesAndMemory
            && let Err(error) = self.add_memory()
        {
            return Err((self, error));
        }
        let mut spec = self.spec.clone();
        spec.memory = Memory::Own;
        let start = Start::Restore(saved);
        let launched = match self.furnished.start(means, spec, start).await {
            Ok(launched) => launched,
            Err((furnished, error)) => {
                return Err((Self { furnished: *furnished, ..self }, error));
            }
        };
        let noted = launched.plan().note(|record| {
            record.memory = Memory::Own;
            record.stage = Stage::Running;
        });
        if let Err(error) = noted {
            // It has not run, so the state is what it was.
            let ended = launched.machine().kill().await;
            let (furnished, _) = launched.without_machine();
            let saved = ended.is_ok().then_some(saved);
            return Err((Self { furnished, spec: self.spec, saved }, error));
        }
        match launched.answered(means, Arrival::Resumed).await {
            Ok(guest) => {
                // Memory and disk have gone on: the state no longer belongs to them.
                let discarded = self.spec.directory.discard(file::STATE);
                if let Err(error) = discarded {
                    tracing::warn!(%error, "state of a resumed sandbox stays until it is destroyed");
                }
                Ok(launched.ready(guest))
            }
            Err(error) => {
                let (asleep, again) = lie_down(launched).await;
                if let Err(again) = again {
                    let again = telemetry::chain(&again);
                    tracing::warn!(again, "guest that did not answer could not be saved again");
                }
                Err((asleep, error))
            }
        }
    }

    /// A file for the memory that is in the state. That of a fork is its template's until then.
    fn add_memory(&mut self) -> Result<(), Error> {
        let bytes = u64::from(self.spec.memory_mb) << 20;
        match self.spec.directory.add(file::MEMORY, bytes) {
            Ok(_) => Ok(()),
            Err(source) => {
                let id = self.plan().id.clone();
                Err(Error::Directory { id, action: "given a memory", source })
            }
        }
    }
}

/// Pauses a machine again that has run without an answer of its guest. Its memory is its own file.
async fn lie_down(launched: Launched) -> (Asleep, Result<(), Error>) {
    launched.link().disconnect();
    tokio::time::sleep(QUIET).await;
    let machine = launched.machine().clone();
    let saved = async {
        machine.pause().await?;
        if machine.ended().now_or_never().is_some() {
            return Ok(None);
        }
        machine.save(Saved::Devices).await?;
        let saved = Saved::Devices;
        launched.plan().note_stage(Stage::Paused { saved, untold: false })?;
        Ok::<_, Error>(Some(saved))
    };
    let saved = saved.await;
    let killed = machine.kill().await;
    let (furnished, spec) = launched.without_machine();
    match (saved, killed) {
        (Ok(saved), Ok(())) => (Asleep { furnished, spec, saved }, Ok(())),
        (Err(error), _) => (Asleep { furnished, spec, saved: None }, Err(error)),
        // It may still run, so nothing else may.
        (_, Err(error)) => (Asleep { furnished, spec, saved: None }, Err(error.into())),
    }
}
