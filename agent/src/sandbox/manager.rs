//! The register of all sandboxes of this host, and their making and removal.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use ovenbird_host::{
    Instance, Slot, net,
    vm::{self, Machine},
};
use ovenbird_kit::telemetry;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{
    Body, Error, Event, InUse, Info, Limits, Means, Sandbox, SandboxId, Shape, State, Wish,
    confine, create::Ready, idle::Told, journal::Stage, room::Room,
};
use crate::{data_dir::DataDir, kernel::Kernel, metrics::exposed::Metrics, template::Templates};

/// For one sandbox to settle, when it is to be destroyed while something else is being done with it.
const SETTLE_PATIENCE: Duration = Duration::from_secs(240);
/// For tasks that still run when every sandbox is gone.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// As much of a stopped guest's console as goes into the log.
const CONSOLE_TAIL: usize = 2048;

/// What the manager is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent's name among those of its machine.
    pub instance: Instance,
    /// Names and addresses.
    pub network: net::Plan,
    /// Name servers that guests may ask although they are in a private range.
    pub resolvers: Vec<Ipv4Addr>,
    /// Whether a sandbox's creator may open private ranges.
    pub egress_private: bool,
    /// The bandwidth of a sandbox whose creator names none, in kbit/s; 0: no limit.
    pub bandwidth_kbit: u32,
    /// The user of the first slot.
    pub uid_base: u32,
    /// From a machine's start to its guest's first answer.
    pub ready_timeout: Duration,
    /// Sandboxes made at the same time.
    pub creates_at_once: usize,
    /// What the host has.
    pub host: Shape,
    /// How much of its processors and memory is promised, as multiples, unless fixed numbers are configured.
    pub overcommit: (f64, f64),
    /// Bounds of all sandboxes together.
    pub limits: Limits,
    /// The largest sandbox.
    pub largest: Shape,
    /// The largest root disk, in MiB.
    pub disk_mb_max: u32,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    data: Arc<DataDir>,
    means: Means,
    templates: Arc<Templates>,
    kernel: Kernel,
    register: Mutex<Register>,
    creates: Semaphore,
    told: Told,
    counted: Metrics,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// Sandboxes are left to the next agent.
    leaving: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Register {
    pub(super) sandboxes: BTreeMap<SandboxId, Arc<Sandbox>>,
    pub(super) room: Room,
}

impl Register {
    /// Takes in a sandbox that is there already.
    pub(super) fn add_again(
        &mut self,
        sandbox: &Arc<Sandbox>,
        slot: Slot,
        shape: Shape,
        is_asleep: bool,
    ) {
        self.room.take_again(slot, shape, is_asleep);
        self.sandboxes.insert(sandbox.wish.id.clone(), sandbox.clone());
    }
}

impl Manager {
    /// A manager of an empty host.
    pub fn new(
        settings: Settings,
        data: Arc<DataDir>,
        means: Means,
        templates: Arc<Templates>,
        kernel: Kernel,
    ) -> Self {
        let room = Room::new(settings.limits);
        let creates = Semaphore::new(settings.creates_at_once);
        let register = Mutex::new(Register { sandboxes: BTreeMap::new(), room });
        let inner = Inner {
            settings,
            data,
            means,
            templates,
            kernel,
            register,
            creates,
            told: Told::default(),
            counted: Metrics::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            leaving: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn register(&self) -> MutexGuard<'_, Register> {
        self.inner.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn means(&self) -> &Means {
        &self.inner.means
    }

    /// Whether no sandbox is taken any more. Asked while the register is held, so that none slips in.
    pub(super) fn is_closing(&self) -> bool {
        self.inner.closing.is_cancelled()
    }

    /// Whether something long may begin with a sandbox.
    ///
    /// # Errors
    /// [`Error::Closing`]: it would be cut in the middle.
    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.is_closing() { Err(Error::Closing) } else { Ok(()) }
    }

    /// The templates of this host.
    pub fn templates(&self) -> &Arc<Templates> {
        &self.inner.templates
    }

    /// The kernel that images boot.
    pub fn kernel(&self) -> &Kernel {
        &self.inner.kernel
    }

    /// What saved states depend on.
    pub fn platform(&self) -> vm::Platform {
        self.inner.means.hypervisor.platform()
    }

    /// The name of the storage driver.
    pub fn storage_driver(&self) -> &'static str {
        self.inner.means.volumes.driver().name()
    }

    /// What is counted for whoever runs the agent.
    pub fn counted(&self) -> &Metrics {
        &self.inner.counted
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// What is promised to sandboxes.
    pub fn used(&self) -> Shape {
        self.register().room.used()
    }

    /// All sandboxes, by id.
    pub fn list(&self) -> Vec<Info> {
        self.register().sandboxes.values().map(|sandbox| sandbox.info()).collect()
    }

    pub(super) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.register().sandboxes.values().cloned().collect()
    }

    /// The slots that are somebody's.
    pub fn slots(&self) -> Vec<Slot> {
        self.sandboxes().iter().map(|sandbox| sandbox.plan.slot).collect()
    }

    /// Held by whoever starts a machine.
    pub(super) fn creates(&self) -> &Semaphore {
        &self.inner.creates
    }

    /// Sandboxes that were paused for being idle.
    pub(super) fn told(&self) -> &Told {
        &self.inner.told
    }

    /// Sandboxes that were paused for being idle since the last call; each is told once.
    pub fn take_auto_paused(&self) -> Vec<SandboxId> {
        let ids = self.told().drain();
        for sandbox in ids.iter().filter_map(|id| self.find(id).ok()) {
            sandbox.plan.try_note(|record| {
                if let Stage::Paused { untold, .. } = &mut record.stage {
                    *untold = false;
                }
            });
        }
        ids
    }

    pub(super) fn find(&self, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        self.register().sandboxes.get(id).cloned().ok_or_else(|| Error::Unknown(id.clone()))
    }

    /// A client of a running sandbox's guest; counts as use of the sandbox as long as it is held.
    ///
    /// # Errors
    /// When there is none, or it is not running.
    pub fn guest(&self, id: &SandboxId) -> Result<InUse, Error> {
        InUse::begin(self.find(id)?)
    }

    /// Counts as use of the sandbox.
    ///
    /// # Errors
    /// When there is none, or it is not running.
    pub fn ping(&self, id: &SandboxId) -> Result<(), Error> {
        self.guest(id).map(drop)
    }

    /// Makes a sandbox and waits until its guest is ready. It is made to the end even when nobody waits.
    ///
    /// # Errors
    /// Nothing is left of the sandbox then.
    pub async fn create(&self, wish: Wish) -> Result<Info, Error> {
        let sandbox = self.admit(wish)?;
        let manager = self.clone();
        let made = self.spawn(async move { manager.make(sandbox).await });
        made.await.unwrap_or(Err(Error::Panicked))
    }

    /// Runs something to its end, whoever waits for it.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.inner.tasks.spawn(work.in_current_span())
    }

    /// Runs something short that nobody waits for but the manager, when it closes.
    pub fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(work);
    }

    async fn make(&self, sandbox: Arc<Sandbox>) -> Result<Info, Error> {
        let started = std::time::Instant::now();
        let permit = tokio::select! {
            permit = self.inner.creates.acquire() => permit.ok(),
            () = sandbox.cancelled().cancelled() => None,
        };
        let id = &sandbox.wish.id;
        let made = match permit {
            Some(_permit) => sandbox.plan.clone().carry_out(self.means()).await,
            None => Err(Error::Cancelled(id.clone())),
        };
        let kind = sandbox.plan.origin.kind();
        self.counted().create_ended(kind, made.is_ok(), started.elapsed());
        match made {
            Ok(ready) => {
                let milliseconds = started.elapsed().as_millis();
                let template = &sandbox.wish.template;
                tracing::info!(sandbox.id = %id, %template, milliseconds, "sandbox is ready");
                self.enter(&sandbox, ready).await;
                Ok(sandbox.info())
            }
            Err(error) => {
                let reason = telemetry::chain(&error);
                tracing::warn!(sandbox.id = %id, reason, "sandbox could not be made");
                let _ = sandbox.apply(Event::Failed);
                // Undone already: this finds nothing, or tries once more what failed then.
                let removed = sandbox.plan.remove_all(self.means()).await;
                self.removed(&sandbox, removed);
                Err(error)
            }
        }
    }

    /// A sandbox whose guest answers begins to serve.
    async fn enter(&self, sandbox: &Arc<Sandbox>, ready: Ready) {
        let machine = ready.machine().clone();
        sandbox.set_guest(Some(ready.guest()));
        sandbox.usage.touch();
        *sandbox.parts.lock().await = Some(Body::Awake(ready));
        let _ = sandbox.apply(Event::Ready);
        self.watch(sandbox, machine);
    }

    /// Looks after a machine that serves, until it ends.
    pub(super) fn watch(&self, sandbox: &Arc<Sandbox>, machine: Arc<dyn Machine>) {
        let (watched, leaving) = (sandbox.clone(), self.inner.leaving.clone());
        let means = self.means().clone();
        // Ends with the machine, which every removal ends; long after the call that made it.
        self.inner.tasks.spawn(async move {
            let ending = tokio::select! {
                ending = machine.ended() => ending,
                () = leaving.cancelled() => return,
            };
            // While it is saved or paused, its machine ends on purpose. By now it may run on another.
            if watched.settled().await != State::Running {
                return;
            }
            let parts = watched.parts.lock().await;
            let Some(Body::Awake(ready)) = parts.as_ref() else { return };
            if !Arc::ptr_eq(ready.machine(), &machine) {
                return;
            }
            let console = machine.console_tail(CONSOLE_TAIL).await;
            let plan = ready.plan();
            let reason = confine::reason(&means, plan.slot, plan.shape, ending);
            let detail = format!(": {reason}");
            watched.set_detail(&detail);
            if watched.apply(Event::Ended).is_ok() {
                watched.plan.try_note_stage(Stage::Stopped { detail });
                watched.set_guest(None);
                // Calls that run end now, and not when they have waited long enough.
                ready.link().disconnect();
                let id = &watched.wish.id;
                tracing::warn!(sandbox.id = %id, reason, console, "machine ended by itself");
            }
        });
    }

    /// Removes a sandbox and waits until nothing of it is left. One that is still being made, or saved, is
    /// waited for first; several callers share one removal.
    ///
    /// # Errors
    /// When there is none, or something of it cannot be removed: it can be tried again.
    pub async fn destroy(&self, id: &SandboxId) -> Result<(), Error> {
        let sandbox = self.find(id)?;
        sandbox.cancelled().cancel();
        let manager = self.clone();
        let destroyed = self.spawn(async move { manager.destroy_settled(&sandbox).await });
        destroyed.await.unwrap_or(Err(Error::Panicked))
    }

    async fn destroy_settled(&self, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let settle = async {
            loop {
                match sandbox.settled().await {
                    State::Gone => return Ok(()),
                    _ if sandbox.apply(Event::Destroy).is_ok() => {
                        return self.remove(sandbox).await;
                    }
                    // Another caller was faster.
                    _ => {}
                }
            }
        };
        match tokio::time::timeout(SETTLE_PATIENCE, settle).await {
            Ok(result) => result,
            Err(_) => Err(sandbox.wrong_state(sandbox.state())),
        }
    }

    /// Removes all of a sandbox in the state [`State::Destroying`].
    pub(super) async fn remove(&self, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        sandbox.set_guest(None);
        let mut parts = sandbox.parts.lock().await;
        sandbox.plan.try_note_stage(Stage::Destroying);
        let removed = match parts.take() {
            Some(body) => body.undo(self.means()).await,
            None => sandbox.plan.remove_all(self.means()).await,
        };
        drop(parts);
        let Err(error) = removed else {
            self.removed(sandbox, Ok(()));
            return Ok(());
        };
        let first = telemetry::chain(&error);
        tracing::warn!(sandbox.id = %sandbox.wish.id, error = first, "removal failed, trying again");
        let removed = sandbox.plan.remove_all(self.means()).await;
        let outcome = if removed.is_ok() { Ok(()) } else { Err(error) };
        self.removed(sandbox, removed);
        outcome
    }

    /// Notes the end of a removal.
    fn removed(&self, sandbox: &Arc<Sandbox>, removed: Result<(), Error>) {
        let id = &sandbox.wish.id;
        match removed {
            Ok(()) => {
                {
                    let mut register = self.register();
                    register.sandboxes.remove(id);
                    register.room.give_back(sandbox.plan.slot, sandbox.plan.shape);
                }
                let _ = sandbox.apply(Event::Removed);
                tracing::info!(sandbox.id = %id, "sandbox is gone");
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::error!(sandbox.id = %id, error, "sandbox keeps its slot, for it is not gone");
                let _ = sandbox.apply(Event::NotRemoved);
            }
        }
    }

    /// Takes no more sandboxes, removes all there are, and waits for every task, though not for ever.
    pub async fn close(&self) {
        let ids: Vec<SandboxId> = {
            let register = self.register();
            self.inner.closing.cancel();
            register.sandboxes.keys().cloned().collect()
        };
        let destroyed = join_all(ids.iter().map(|id| self.destroy(id))).await;
        for (id, result) in ids.iter().zip(destroyed) {
            match result {
                Ok(()) | Err(Error::Unknown(_)) => {}
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::error!(sandbox.id = %id, error, "sandbox is left for the next start");
                }
            }
        }
        self.inner.tasks.close();
        if tokio::time::timeout(CLOSE_PATIENCE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.inner.tasks.len(),
                "something does not end with its sandbox"
            );
        }
    }

    /// Takes no more sandboxes and ends all calls, but lets sandboxes run or sleep on for the next agent. What is being
    /// made, saved, paused or removed is done to the end first, for at most `patience`. Returns how many there are.
    pub async fn leave(&self, patience: Duration) -> usize {
        let sandboxes = {
            let register = self.register();
            self.inner.closing.cancel();
            register.sandboxes.values().cloned().collect::<Vec<_>>()
        };
        self.inner.leaving.cancel();
        self.inner.tasks.close();
        let calls = join_all(sandboxes.iter().map(|sandbox| sandbox.usage.end()));
        let ended = async { tokio::join!(calls, self.inner.tasks.wait()) };
        if tokio::time::timeout(patience, ended).await.is_err() {
            // As if this agent were killed now.
            tracing::warn!("something takes too long: the next agent finishes or undoes it");
        }
        self.register().sandboxes.len()
    }

    /// Where sandboxes' directories are.
    pub fn sandboxes_dir(&self) -> PathBuf {
        self.inner.data.sandboxes()
    }
}
