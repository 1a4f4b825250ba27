//! The way of a sandbox into existence: each step is a type, and each type knows how to go back.
//!
//! ```text
//!  Plan ──► Placed ──────► Furnished ──────► Launched ──► Ready
//!           directory      disk, network     machine      guest answers
//!  nothing ◄── undo ◄───── undo ◄─────────── undo ◄────── undo
//! ```
//!
//! A step that fails undoes itself and all before it. Once there is a directory, there is a journal in it; when the guest
//! answers, it says so before anybody else hears of it. [`Plan::remove_all`] does the same without knowing how far
//! anything came: for what is found at a start, and for another try after a failed undo.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use ovenbird_guest_protocol::v1::ConfigureRequest;
use ovenbird_host::{
    Identity, Slot,
    cgroup::Cgroups,
    net::{Network, Networks, Policy, TAP},
    storage::{Request, Volume, Volumes},
    vm::{self, Directory, Hypervisor, Machine, MachineSpec, Memory, Nic, Saved, Start, file},
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::{
    Error, SandboxId, confine,
    journal::{Journal, Stage},
    room::Shape,
};
use crate::{
    guest_link::{Arrival, GuestClient, GuestLink, Token},
    kernel::Kernel,
    template::Kind,
};

/// As much of the console as goes into an error.
const CONSOLE_TAIL: usize = 2048;
/// For one short call to a guest that has just answered.
const CONFIGURE_PATIENCE: Duration = Duration::from_secs(5);

/// The host's means.
#[derive(Debug, Clone)]
pub struct Means {
    /// Starts machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Makes disks.
    pub volumes: Arc<dyn Volumes>,
    /// Makes networks.
    pub networks: Arc<dyn Networks>,
    /// Limits machines.
    pub cgroups: Cgroups,
}

/// What the guest begins with.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A boot of this kernel, from its disk.
    Boot(Kernel),
    /// The memory and state of a snapshot's directory.
    Snapshot(PathBuf),
}

impl Origin {
    /// Where a machine of this origin has its memory.
    pub(super) fn memory(&self) -> Memory {
        match self {
            Self::Boot(_) => Memory::Own,
            Self::Snapshot(_) => Memory::CopyOnWrite,
        }
    }

    /// The kind of template that it comes from.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Boot(_) => Kind::Image,
            Self::Snapshot(_) => Kind::Snapshot,
        }
    }
}

/// Everything that is decided about a sandbox before anything of it exists.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) id: SandboxId,
    pub(super) slot: Slot,
    /// For people who read the process list.
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) dir: PathBuf,
    pub(super) shape: Shape,
    pub(super) origin: Origin,
    pub(super) rootfs: PathBuf,
    pub(super) disk_bytes: u64,
    /// What its network lets through.
    pub(super) policy: Policy,
    /// Name servers, for an image that says none.
    pub(super) resolvers: Vec<Ipv4Addr>,
    /// The digest of the kernel that it runs.
    pub(super) kernel: String,
    pub(super) token: Token,
    pub(super) ready_timeout: Duration,
    /// Cancelled when the sandbox is destroyed before it is ready.
    pub(super) cancelled: CancellationToken,
    /// What a restart is told.
    pub(super) journal: Arc<Journal>,
}

impl Plan {
    fn directory_failed(&self, action: &'static str) -> impl Fn(std::io::Error) -> Error {
        let id = self.id.clone();
        move |source| Error::Directory { id: id.clone(), action, source }
    }

    fn go_on(&self) -> Result<(), Error> {
        if self.cancelled.is_cancelled() {
            return Err(Error::Cancelled(self.id.clone()));
        }
        Ok(())
    }

    /// Does all steps.
    ///
    /// # Errors
    /// That of the step that failed; everything is undone then, or the log says what is left.
    pub(super) async fn carry_out(self, means: &Means) -> Result<Ready, Error> {
        let id = self.id.clone();
        let started = Instant::now();
        let placed = self.place()?;
        let furnished = placed.furnish(means).instrument(info_span!("furnish")).await?;
        let furnished_ms = started.elapsed().as_millis();
        let launched = furnished.launch(means).instrument(info_span!("launch")).await?;
        let launched_ms = started.elapsed().as_millis();
        let ready = launched.wait_until_ready(means).instrument(info_span!("guest")).await?;
        if let Err(error) = ready.plan().note_stage(Stage::Running) {
            report(ready.undo(means).await);
            return Err(error);
        }
        let ready_ms = started.elapsed().as_millis();
        tracing::debug!(sandbox.id = %id, furnished_ms, launched_ms, ready_ms, "phases");
        Ok(ready)
    }

    /// The directory, with the files that the machine gets from the start.
    fn place(self) -> Result<Placed, Error> {
        self.go_on()?;
        let directory =
            Directory::create(&self.dir, self.identity).map_err(self.directory_failed("made"))?;
        let placed = Placed { directory, plan: self };
        match placed.plan.note_stage(Stage::Creating).and_then(|()| placed.fill()) {
            Ok(()) => Ok(placed),
            Err(error) => {
                report(placed.undo());
                Err(error)
            }
        }
    }

    /// Removes whatever there is of the sandbox. Repeating it is fine.
    ///
    /// # Errors
    /// The first of them; the rest is tried all the same.
    pub(super) async fn remove_all(&self, means: &Means) -> Result<(), Error> {
        let killed = self.end_machines().await;
        let network = means.networks.remove(self.slot).await.map_err(Error::from);
        let volume = means.volumes.remove(&self.dir).await.map_err(Error::from);
        let cgroup = confine::remove(means, self.slot).await;
        let directory = Directory::remove(&self.dir).map_err(self.directory_failed("removed"));
        killed.and(network).and(volume).and(cgroup).and(directory)
    }

    /// Ends whatever runs as the sandbox's user. Nothing is fine.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) async fn end_machines(&self) -> Result<(), Error> {
        let user = self.identity.uid;
        let kill = move || vm::kill_all_of(user);
        match tokio::task::spawn_blocking(kill).await {
            Ok(killed) => killed.map(drop).map_err(self.directory_failed("vacated")),
            Err(_) => Err(Error::Panicked),
        }
    }
}

/// The error of an undo on the way of another error: it is logged, and the sandbox is looked after again.
fn report(undone: Result<(), Error>) {
    if let Err(error) = undone {
        let error = ovenbird_kit::telemetry::chain(&error);
        tracing::warn!(error, "part of a failed sandbox could not be removed at once");
    }
}

/// There is a directory.
#[derive(Debug)]
struct Placed {
    plan: Plan,
    directory: Directory,
}

impl Placed {
    fn fill(&self) -> Result<(), Error> {
        let (plan, directory) = (&self.plan, &self.directory);
        let fill = || {
            match &plan.origin {
                Origin::Boot(kernel) => {
                    directory.link(&kernel.kernel(), file::KERNEL)?;
                    directory.link(&kernel.initrd(), file::INITRD)?;
                    directory.add(file::MEMORY, u64::from(plan.shape.memory_mb) << 20)?;
                }
                Origin::Snapshot(dir) => {
                    directory.link(&dir.join(file::MEMORY), file::MEMORY)?;
                    directory.link(&dir.join(file::STATE), file::STATE)?;
                }
            }
            Ok(())
        };
        fill().map_err(plan.directory_failed("filled"))
    }

    /// Disk and network, at the same time.
    async fn furnish(self, means: &Means) -> Result<Furnished, Error> {
        let plan = &self.plan;
        let request = Request {
            origin: plan.rootfs.clone(),
            dir: plan.dir.clone(),
            bytes_min: plan.disk_bytes,
            owner: plan.identity,
        };
        let (volume, network) = tokio::join!(
            means.volumes.ensure(&request),
            means.networks.ensure(plan.slot, plan.identity, &plan.policy),
        );
        let both = match (volume, network) {
            (Ok(volume), Ok(network)) => plan.go_on().map(|()| (volume, network)),
            (Err(error), _) => Err(error.into()),
            (_, Err(error)) => Err(error.into()),
        };
        match both {
            Ok((volume, network)) => Ok(Furnished { placed: self, volume, network }),
            Err(error) => {
                report(self.remove_furniture(means).await);
                Err(error)
            }
        }
    }

    async fn remove_furniture(self, means: &Means) -> Result<(), Error> {
        let network = means.networks.remove(self.plan.slot).await.map_err(Error::from);
        let volume = means.volumes.remove(&self.plan.dir).await.map_err(Error::from);
        let cgroup = confine::remove(means, self.plan.slot).await;
        network.and(volume).and(cgroup).and(self.undo())
    }

    fn undo(self) -> Result<(), Error> {
        Directory::remove(self.directory.path()).map_err(self.plan.directory_failed("removed"))
    }
}

/// There are also a disk and a network.
#[derive(Debug)]
pub(super) struct Furnished {
    placed: Placed,
    volume: Volume,
    network: Network,
}

impl Furnished {
    /// What an earlier agent made.
    pub(super) fn found(plan: Plan, volume: Volume, network: Network) -> Self {
        let directory = Directory::found(&plan.dir, plan.identity);
        Self { placed: Placed { plan, directory }, volume, network }
    }

    /// What was decided about the sandbox.
    pub(super) fn plan(&self) -> &Plan {
        &self.placed.plan
    }

    /// Makes a sandbox of any origin one that boots this kernel from this disk, with a new memory.
    ///
    /// # Errors
    /// Those of its directory.
    pub(super) fn boot_from(&mut self, kernel: Kernel, volume: Volume) -> Result<(), Error> {
        let plan = &mut self.placed.plan;
        kernel.digest().clone_into(&mut plan.kernel);
        plan.origin = Origin::Boot(kernel);
        self.volume = volume;
        self.placed.fill()
    }

    /// The machine that its origin asks for.
    pub(super) fn spec(&self) -> MachineSpec {
        let plan = &self.placed.plan;
        MachineSpec {
            name: plan.name.clone(),
            directory: self.placed.directory.clone(),
            vcpus: plan.shape.vcpus,
            memory_mb: plan.shape.memory_mb,
            memory: plan.origin.memory(),
            disk: Some(self.volume.path.clone()),
            nic: Some(Nic { namespace: self.network.namespace.clone(), tap: TAP.to_owned() }),
            kernel_arguments: kernel_arguments(plan),
            cgroup: None,
        }
    }

    async fn launch(self, means: &Means) -> Result<Launched, Error> {
        let start = match self.placed.plan.origin {
            Origin::Boot(_) => Start::Boot,
            Origin::Snapshot(_) => Start::Restore(Saved::Devices),
        };
        let spec = self.spec();
        match self.start(means, spec, start).await {
            Ok(launched) => Ok(launched),
            Err((furnished, error)) => {
                report(furnished.undo(means).await);
                Err(error)
            }
        }
    }

    /// Starts a machine in a control group of its own, and gives everything back when that fails.
    pub(super) async fn start(
        self,
        means: &Means,
        mut spec: MachineSpec,
        start: Start,
    ) -> Result<Launched, (Box<Self>, Error)> {
        let plan = self.plan();
        match confine::ensure(means, plan.slot, plan.shape).await {
            Ok(group) => spec.cgroup = group,
            Err(error) => return Err((Box::new(self), error)),
        }
        match means.hypervisor.launch(&spec, start).await {
            Ok(machine) => Ok(self.with_machine(spec, machine)),
            Err(error) => Err((Box::new(self), error.into())),
        }
    }

    /// With the machine that was started with `spec`.
    pub(super) fn with_machine(self, spec: MachineSpec, machine: Box<dyn Machine>) -> Launched {
        let link = GuestLink::new(machine.guest_socket(), self.placed.plan.token);
        Launched { furnished: self, spec, machine: Arc::from(machine), link }
    }

    pub(super) async fn undo(self, means: &Means) -> Result<(), Error> {
        self.placed.remove_furniture(means).await
    }
}

fn kernel_arguments(plan: &Plan) -> String {
    let mut arguments = format!("ovenbird.token={}", plan.token.to_hex());
    if !plan.resolvers.is_empty() {
        let resolvers: Vec<String> = plan.resolvers.iter().map(Ipv4Addr::to_string).collect();
        arguments.push_str(" ovenbird.dns=");
        arguments.push_str(&resolvers.join(","));
    }
    arguments
}

/// There is also a machine.
#[derive(Debug)]
pub(super) struct Launched {
    furnished: Furnished,
    spec: MachineSpec,
    machine: Arc<dyn Machine>,
    link: GuestLink,
}

impl Launched {
    async fn wait_until_ready(self, means: &Means) -> Result<Ready, Error> {
        let arrival = match self.furnished.placed.plan.origin {
            Origin::Boot(_) => Arrival::Running,
            Origin::Snapshot(_) => Arrival::Restored,
        };
        match self.answered(means, arrival).await {
            Ok(guest) => Ok(Ready { launched: self, guest }),
            Err(error) => {
                report(self.undo(means).await);
                Err(error)
            }
        }
    }

    /// Lets a restored machine run, and waits for the guest, which is told its name.
    pub(super) async fn answered(
        &self,
        means: &Means,
        arrival: Arrival,
    ) -> Result<GuestClient, Error> {
        let patience = self.plan().ready_timeout;
        let guest = self.connected(means, arrival, patience).await?;
        self.configure(guest.clone()).await?;
        Ok(guest)
    }

    /// Lets a machine run that does not, and waits so long for the guest.
    pub(super) async fn connected(
        &self,
        means: &Means,
        arrival: Arrival,
        patience: Duration,
    ) -> Result<GuestClient, Error> {
        let plan = &self.furnished.placed.plan;
        let deadline = Instant::now() + patience;
        if arrival != Arrival::Running {
            self.machine.resume().await?;
        }
        let reason = tokio::select! {
            connected = self.link.connect(arrival, deadline) => match connected {
                Ok(guest) => return Ok(guest),
                Err(error) => ovenbird_kit::telemetry::chain(&error),
            },
            ending = self.machine.ended() => match ending {
                vm::Ending::Guest => "it turned itself off".to_owned(),
                vm::Ending::Process => confine::reason(means, plan.slot, plan.shape, ending),
            },
            () = plan.cancelled.cancelled() => return Err(Error::Cancelled(plan.id.clone())),
        };
        let console = self.machine.console_tail(CONSOLE_TAIL).await;
        Err(Error::NotReady { id: plan.id.clone(), reason, console })
    }

    /// A fork has its template's name until it is told its own.
    async fn configure(&self, mut guest: GuestClient) -> Result<(), Error> {
        let id = &self.furnished.placed.plan.id;
        let hostname = hostname(id);
        let configured =
            timeout(CONFIGURE_PATIENCE, guest.configure(ConfigureRequest { hostname })).await;
        let status = match configured {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => return Ok(()),
            Ok(Err(status)) => status,
            Err(_) => tonic::Status::deadline_exceeded("no answer"),
        };
        Err(Error::Guest { id: id.clone(), action: "be given its name", source: Box::new(status) })
    }

    /// Its guest answers.
    pub(super) fn ready(self, guest: GuestClient) -> Ready {
        Ready { launched: self, guest }
    }

    /// The machine.
    pub(super) fn machine(&self) -> &Arc<dyn Machine> {
        &self.machine
    }

    /// The link to the guest.
    pub(super) fn link(&self) -> &GuestLink {
        &self.link
    }

    /// What was decided about it.
    pub(super) fn plan(&self) -> &Plan {
        self.furnished.plan()
    }

    /// Gives the machine up, which has ended, and tells what it was started with.
    pub(super) fn without_machine(self) -> (Furnished, MachineSpec) {
        self.link.disconnect();
        (self.furnished, self.spec)
    }

    async fn undo(self, means: &Means) -> Result<(), Error> {
        self.link.disconnect();
        let killed = self.machine.kill().await.map_err(Error::from);
        killed.and(self.furnished.undo(means).await)
    }
}

/// The id, as far as it can be a host name.
fn hostname(id: &SandboxId) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = id.as_str().chars().map(known).take(63).collect();
    name.trim_matches('-').to_owned()
}

/// The guest answers.
#[derive(Debug)]
pub(super) struct Ready {
    launched: Launched,
    guest: GuestClient,
}

impl Ready {
    /// A client of the guest.
    pub(super) fn guest(&self) -> GuestClient {
        self.guest.clone()
    }

    /// The machine.
    pub(super) fn machine(&self) -> &Arc<dyn Machine> {
        &self.launched.machine
    }

    /// The link to the guest.
    pub(super) fn link(&self) -> &GuestLink {
        &self.launched.link
    }

    /// What the machine was started with.
    pub(super) fn spec(&self) -> &MachineSpec {
        &self.launched.spec
    }

    /// What was decided about it.
    pub(super) fn plan(&self) -> &Plan {
        &self.launched.furnished.placed.plan
    }

    /// The root disk.
    pub(super) fn volume(&self) -> &Volume {
        &self.launched.furnished.volume
    }

    /// Gives the machine up, which has ended, and tells what it was started with.
    pub(super) fn without_machine(self) -> (Furnished, MachineSpec) {
        self.launched.without_machine()
    }

    /// Takes another client, after the link was connected again.
    pub(super) fn replace_guest(&mut self, guest: GuestClient) {
        self.guest = guest;
    }

    /// Removes the sandbox.
    ///
    /// # Errors
    /// The first of them; the rest is tried all the same.
    pub(super) async fn undo(self, means: &Means) -> Result<(), Error> {
        self.launched.undo(means).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_made_of_ids() {
        let id = |text: &str| SandboxId::new(text).unwrap();
        assert_eq!(hostname(&id("sbx_01.a")), "sbx-01-a");
        assert_eq!(hostname(&id(&"x".repeat(100))).len(), 63);
    }
}
