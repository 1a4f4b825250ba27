//! The start of an agent on a host where an earlier one was: its sandboxes are taken over, and whatever belongs to
//! none of them is removed.
//!
//! ```text
//!  directories ─► journals ─► course of each ─► go on, sleep, stop, or remove ─► sweep the rest
//! ```
//!
//! All of it happens before anybody is served, so that nobody sees a sandbox on its way, and nobody is given a slot
//! that is still somebody's. What a sandbox's idle limit has counted is not kept: it begins anew. Commands of calls
//! that were open go on in the guest until their own time is over; detached ones are what they were.

use std::{
    collections::BTreeSet,
    fs::Permissions,
    io,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::StreamExt;
use ovenbird_guest_protocol::v1::ThawRequest;
use ovenbird_host::{
    Slot,
    storage::Volume,
    vm::{self, Adopted, Directory, Memory, Saved, file},
};
use ovenbird_kit::telemetry;
use tokio::time::{Duration, timeout};

use super::{
    Body, Error, Manager, Sandbox, SandboxId, Shape, State, Wish,
    create::{Furnished, Origin, Plan, Ready},
    journal::{self, Record, Stage},
    pause::Asleep,
    recovery::{Course, Facts, course},
    save::{WHOLE_STATE, manifest},
};
use crate::{
    guest_link::{Arrival, unix_nanos},
    name::TemplateName,
    template::{Given, Kind, Rest, Templates},
};

/// Sandboxes that are looked after at the same time.
const AT_ONCE: usize = 16;
/// For one short call to a guest that has just answered.
const THAW_PATIENCE: Duration = Duration::from_secs(5);

/// For a guest of an earlier agent to answer, in times of what a new one has. All of them are asked at once, and what
/// does not answer is lost, which a busy host is no reason for.
const ANSWER_PATIENCE: u32 = 3;

/// What became of an earlier agent's sandboxes, and how much else was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Sandboxes that run on.
    pub running: usize,
    /// Sandboxes that are paused still.
    pub paused: usize,
    /// Sandboxes without a machine; each says why.
    pub stopped: usize,
    /// Sandboxes that were half-made, or to be removed.
    pub removed: usize,
    /// Processes, networks, disks and directories that belonged to no sandbox.
    pub strays: usize,
}

/// A sandbox's journal, with what it names checked.
struct Left {
    id: SandboxId,
    template: TemplateName,
    record: Record,
    foreign: Option<&'static str>,
}

impl Manager {
    /// See the module. Call it once, before anything is created.
    ///
    /// # Errors
    /// When the host cannot be looked through, or strays cannot be removed. A sandbox that cannot be removed is kept
    /// as broken.
    pub async fn take_over(&self) -> Result<TakenOver, Error> {
        let root = self.sandboxes_dir();
        let left = self.left(&root).map_err(leftovers(&root))?;
        let states: Vec<State> = futures::stream::iter(left)
            .map(|left| self.recover(left))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let count = |state| states.iter().filter(|other| **other == state).count();
        let taken = TakenOver {
            running: count(State::Running),
            paused: count(State::Paused),
            stopped: count(State::Stopped),
            removed: count(State::Gone),
            strays: self.sweep(&root).await?,
        };
        let TakenOver { running, paused, stopped, removed, strays } = taken;
        if stopped + removed + strays > 0 {
            tracing::warn!(
                running,
                paused,
                stopped,
                removed,
                strays,
                "took over from an agent that was killed"
            );
        } else if running + paused > 0 {
            tracing::info!(running, paused, "took over from an earlier agent");
        }
        Ok(taken)
    }

    /// The journals of all sandboxes. Those without one are swept.
    fn left(&self, root: &Path) -> io::Result<Vec<Left>> {
        let (boot, mut slots, mut all) = (journal::boot_id(), BTreeSet::new(), Vec::new());
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let Some(record) = Record::read(&entry.path())? else { continue };
            let names = (SandboxId::new(&record.id), TemplateName::new(&record.template));
            let (Ok(id), Ok(template)) = names else { continue };
            if id.as_str() != name {
                continue;
            }
            let slot = Slot(record.slot);
            if !slots.insert(slot) {
                // A copy. Its network is the other's, so it is swept like what has no journal.
                continue;
            }
            let foreign = if record.version > journal::VERSION {
                Some("its journal is of a newer agent")
            } else if record.boot != boot {
                Some("the host has restarted since")
            } else if record.user != self.user(slot) || record.host_ip != self.host_ip(slot) {
                Some("it was made with other settings: uid_base or subnet")
            } else {
                None
            };
            all.push(Left { id, template, record, foreign });
        }
        Ok(all)
    }

    /// Brings one sandbox to a state that does not pass. [`State::Gone`]: nothing of it is left.
    async fn recover(&self, left: Left) -> State {
        let Left { id, template, record, foreign } = left;
        // What it began with is of no interest any more.
        let origin = match record.memory {
            Memory::Own => Origin::Boot(self.kernel().clone()),
            Memory::CopyOnWrite => Origin::Snapshot(PathBuf::new()),
        };
        let plan = self.plan(record.clone(), id.clone(), origin, PathBuf::new(), 0);
        let course = match look(&plan, &record, foreign, self.templates()) {
            Ok(facts) => course(&record.stage, facts),
            // What runs in its directory is ended, whatever it is.
            Err(error) => match course(&record.stage, Facts::unknown(foreign)) {
                Course::Stop { .. } => {
                    Course::Stop { detail: format!(": it could not be looked at: {error}") }
                }
                course => course,
            },
        };
        tracing::info!(sandbox.id = %id, stage = ?record.stage, ?course, "sandbox of an earlier agent");
        let sandbox = |plan| Sandbox::again(plan, wish(&id, &template, &record), &record);
        match course {
            Course::GoOn => match self.go_on(plan.clone(), record.memory).await {
                Ok(ready) => {
                    let machine = ready.machine().clone();
                    let sandbox = sandbox(plan);
                    sandbox.set_guest(Some(ready.guest()));
                    let sandbox =
                        self.enter_again(sandbox, State::Running, Some(Body::Awake(ready)));
                    self.watch(&sandbox, machine);
                    State::Running
                }
                Err(detail) => self.stop(sandbox(plan), &detail).await,
            },
            Course::Sleep { saved, untold } => match self.lay_down(&plan, Some(saved)).await {
                Ok(asleep) => {
                    plan.try_note_stage(Stage::Paused { saved, untold });
                    self.enter_again(sandbox(plan), State::Paused, Some(Body::Asleep(asleep)));
                    if untold {
                        self.told().add(id);
                    }
                    State::Paused
                }
                Err(error) => self.broken(sandbox(plan), &error),
            },
            Course::Stop { detail } => self.stop(sandbox(plan), &detail).await,
            Course::Finish { kind, template } => {
                let finished = self.finish(&plan, kind, &template).await;
                match finished.and(plan.remove_all(self.means()).await) {
                    Ok(()) => {
                        tracing::warn!(sandbox.id = %id, template, "template of an earlier agent is finished");
                        State::Gone
                    }
                    Err(error) => self.broken(sandbox(plan), &error),
                }
            }
            Course::Remove { why } => match plan.remove_all(self.means()).await {
                Ok(()) => {
                    tracing::warn!(sandbox.id = %id, why, "sandbox of an earlier agent is removed");
                    State::Gone
                }
                Err(error) => self.broken(sandbox(plan), &error),
            },
        }
    }

    /// Its machine runs, with its network and its disk, and its guest answers; or why not.
    async fn go_on(&self, plan: Plan, memory: Memory) -> Result<Ready, String> {
        let because = |what: &str, error: &dyn std::error::Error| {
            format!(": {what}: {}", telemetry::chain(error))
        };
        let network = match self.means().networks.adopt(plan.slot).await {
            Ok(Some(network)) => network,
            Ok(None) => return Err(": its network was lost while no agent ran".to_owned()),
            Err(error) => return Err(because("its network cannot be looked at", &error)),
        };
        let volume = match self.means().volumes.find(&plan.dir).await {
            Ok(Some(volume)) => volume,
            Ok(None) => return Err(": its disk was lost while no agent ran".to_owned()),
            Err(error) => return Err(because("its disk cannot be looked at", &error)),
        };
        let furnished = Furnished::found(plan, volume, network);
        let mut spec = furnished.spec();
        spec.memory = memory;
        let Adopted { machine, is_paused } = match self.means().hypervisor.adopt(&spec).await {
            Ok(Some(adopted)) => adopted,
            Ok(None) => return Err(": its QEMU ended while no agent ran".to_owned()),
            Err(error) => return Err(because("its QEMU cannot be taken over", &error)),
        };
        // Of a pause that came to nothing: it no longer belongs to the memory.
        if let Err(error) = spec.directory.discard(file::STATE) {
            tracing::warn!(%error, "state of a running sandbox stays until it is destroyed");
        }
        let launched = furnished.with_machine(spec, machine);
        let arrival = if is_paused { Arrival::Resumed } else { Arrival::Running };
        let patience = launched.plan().ready_timeout * ANSWER_PATIENCE;
        match launched.connected(self.means(), arrival, patience).await {
            Ok(mut guest) => {
                // Its disk may have been about to be kept. An older guest does not know the call, nor a hold.
                let thaw = guest.thaw(ThawRequest { unix_nanos: unix_nanos() });
                if let Ok(Ok(answer)) = timeout(THAW_PATIENCE, thaw).await
                    && answer.get_ref().was_frozen
                {
                    tracing::info!("a disk that was held still is let go");
                }
                Ok(launched.ready(guest))
            }
            Err(error) => Err(because("its guest did not answer the next agent", &error)),
        }
    }

    /// Publishes what a sandbox has given its disk to.
    async fn finish(&self, plan: &Plan, kind: Kind, template: &str) -> Result<(), Error> {
        plan.end_machines().await?;
        let (templates, plan) = (self.templates().clone(), plan.clone());
        let name =
            TemplateName::new(template).map_err(|error| Error::Invalid(error.to_string()))?;
        let finished = tokio::task::spawn_blocking(move || {
            let rest = (kind == Kind::Snapshot).then(|| Rest {
                dir: &plan.dir,
                files: [file::MEMORY, file::STATE],
                manifest: manifest(&plan, 0),
            });
            templates.finish(kind, &name, rest)
        });
        finished.await.map_err(|_| Error::Panicked)?.map(drop).map_err(Error::from)
    }

    /// Without a machine, and with everything else.
    async fn lay_down(&self, plan: &Plan, saved: Option<Saved>) -> Result<Asleep, Error> {
        let means = self.means();
        plan.end_machines().await?;
        let network = match means.networks.adopt(plan.slot).await? {
            Some(network) => network,
            None => means.networks.ensure(plan.slot, plan.identity, &plan.policy).await?,
        };
        let volume = means.volumes.find(&plan.dir).await?;
        let Some(volume) = volume else {
            let source = io::Error::new(io::ErrorKind::NotFound, "its disk is missing");
            return Err(Error::Directory { id: plan.id.clone(), action: "used", source });
        };
        own_again(plan, &volume).map_err(|source| Error::Directory {
            id: plan.id.clone(),
            action: "used",
            source,
        })?;
        let memory = plan.journal.record().memory;
        let furnished = Furnished::found(plan.clone(), volume, network);
        let mut spec = furnished.spec();
        spec.memory = memory;
        Ok(Asleep { furnished, spec, saved })
    }

    async fn stop(&self, sandbox: Sandbox, detail: &str) -> State {
        match self.lay_down(&sandbox.plan, None).await {
            Ok(asleep) => {
                tracing::warn!(sandbox.id = %sandbox.wish.id, "sandbox of an earlier agent has stopped{detail}");
                sandbox.set_detail(detail);
                sandbox.plan.try_note_stage(Stage::Stopped { detail: detail.to_owned() });
                self.enter_again(sandbox, State::Stopped, Some(Body::Asleep(asleep)));
                State::Stopped
            }
            Err(error) => self.broken(sandbox, &error),
        }
    }

    /// Can only be destroyed.
    fn broken(&self, sandbox: Sandbox, error: &Error) -> State {
        let error = telemetry::chain(error);
        tracing::error!(sandbox.id = %sandbox.wish.id, error, "sandbox of an earlier agent is broken");
        sandbox.set_detail(&format!(": {error}; destroy it"));
        self.enter_again(sandbox, State::Broken, None);
        State::Broken
    }

    /// Registers a sandbox that is there already.
    fn enter_again(&self, sandbox: Sandbox, state: State, body: Option<Body>) -> Arc<Sandbox> {
        let sandbox = Sandbox { parts: tokio::sync::Mutex::new(body), ..sandbox };
        sandbox.state.send_replace(state);
        let sandbox = Arc::new(sandbox);
        let (slot, shape) = (sandbox.plan.slot, sandbox.plan.shape);
        self.register().add_again(&sandbox, slot, shape, state == State::Paused);
        sandbox
    }

    /// Removes whatever belongs to none of the sandboxes that are registered by now. Returns how many things.
    async fn sweep(&self, root: &Path) -> Result<usize, Error> {
        let sandboxes = self.sandboxes();
        let keep: Vec<PathBuf> = sandboxes.iter().map(|s| s.plan.dir.clone()).collect();
        let slots: BTreeSet<Slot> = sandboxes.iter().map(|s| s.plan.slot).collect();
        let machines: Vec<(PathBuf, u32)> =
            sandboxes.iter().map(|s| (s.plan.dir.clone(), s.plan.identity.uid)).collect();
        let (dir, users) = (root.to_owned(), self.users());
        let kill = move || vm::kill_strays(&dir, &users, &machines);
        let killed = tokio::task::spawn_blocking(kill).await;
        let killed = killed.map_err(|_| Error::Panicked)?.map_err(leftovers(root))?;
        let networks = self.means().networks.list().await?;
        let networks: Vec<Slot> = networks.into_iter().filter(|s| !slots.contains(s)).collect();
        for slot in &networks {
            self.means().networks.remove(*slot).await?;
        }
        let disks = self.means().volumes.sweep(&keep).await?;
        let directories = remove_others(root, &keep).map_err(leftovers(root))?;
        self.templates().sweep()?;
        Ok(killed.len() + networks.len() + disks + directories)
    }
}

impl Sandbox {
    /// One that is there already.
    fn again(plan: Plan, wish: Wish, record: &Record) -> Self {
        let sandbox = Self::new(plan, wish, record.host_ip);
        sandbox.usage.was_used_at(record.noted_at_unix);
        sandbox
    }
}

fn look(
    plan: &Plan,
    record: &Record,
    foreign: Option<&'static str>,
    templates: &Templates,
) -> io::Result<Facts> {
    let has = |name: &str| plan.dir.join(name).is_file();
    let (saved, is_whole) = match record.memory {
        Memory::Own => (Saved::Devices, false),
        Memory::CopyOnWrite => (Saved::DevicesAndMemory, has(WHOLE_STATE)),
    };
    let given = match &record.stage {
        Stage::Saving { kind, template } => {
            TemplateName::new(template).map_or(Given::Nothing, |name| templates.given(*kind, &name))
        }
        _ => Given::Nothing,
    };
    let has_state = is_whole || has(file::STATE);
    let machines = vm::count_in(&plan.dir, plan.identity.uid)?;
    Ok(Facts { foreign, machines, has_state, saved, given })
}

/// Gives back what was about to be handed over, when no machine runs: the disk is the machine's, and a fork's state is
/// the one with its memory.
fn own_again(plan: &Plan, volume: &Volume) -> io::Result<()> {
    let (dir, owner) = (&plan.dir, plan.identity);
    if volume.path.is_relative() {
        let disk = dir.join(&volume.path);
        lchown(&disk, Some(owner.uid), Some(owner.gid))?;
        std::fs::set_permissions(&disk, Permissions::from_mode(0o600))?;
    }
    if plan.journal.record().memory == Memory::Own {
        return Ok(());
    }
    match std::fs::rename(dir.join(WHOLE_STATE), dir.join(file::STATE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn wish(id: &SandboxId, template: &TemplateName, record: &Record) -> Wish {
    Wish {
        id: id.clone(),
        template: template.clone(),
        shape: Shape { vcpus: record.vcpus, memory_mb: record.memory_mb },
        disk_mb: 0,
        timeout_sec: record.timeout_sec,
        policy: record.policy.clone(),
        build_id: record.build_id.clone(),
    }
}

fn leftovers(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Leftovers { path, source }
}

fn remove_others(root: &Path, keep: &[PathBuf]) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if keep.contains(&entry.path()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            Directory::remove(&entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
        removed += 1;
    }
    Ok(removed)
}
