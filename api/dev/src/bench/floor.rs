//! The floor: what QEMU itself needs for each measure, on the same files, with nobody in between.
//!
//! Counted is what a machine cannot do without: its folder and files, its disk made by the same means, the
//! process, its state loaded or saved, the guest's first answer; for a template also its way onto the medium. Not
//! counted is the network: taps are there before, since a host can have them ready. They lie in the host's own
//! namespace, without addresses. There is no user of its own, no control group and no journal.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fs_err as fs;
use futures::future::try_join_all;
use ovenbird_guest_protocol::{Arrival, Token};

use super::{
    command_line::CommandLine,
    guest::Guest,
    machine::{DISK, INITRD, KERNEL, MEMORY, Machine, STATE},
    stage::{Stage, Storage},
};

/// A machine and its guest.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) machine: Machine,
    pub(super) guest: Guest,
    tap: String,
}

/// What forks begin with.
#[derive(Debug, Clone)]
pub(super) struct Template {
    dir: PathBuf,
    token: Token,
}

/// A machine that sleeps on the disk.
#[derive(Debug)]
pub(super) struct Paused {
    dir: PathBuf,
    token: Token,
    tap: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Floor {
    root: PathBuf,
    image: PathBuf,
    storage: Storage,
    memory_bytes: u64,
    boot: CommandLine,
    fork: CommandLine,
    taps: Vec<String>,
    /// Machines so far.
    count: usize,
}

impl Floor {
    /// A floor for machines like the two of the agent's whose command lines these are.
    pub(super) fn new(
        stage: &Stage,
        boot: CommandLine,
        fork: CommandLine,
        memory_mb: u64,
    ) -> anyhow::Result<Self> {
        let root = stage.floor_dir();
        fs::create_dir(&root)?;
        for (from, name) in [(stage.kernel(), KERNEL), (stage.initrd(), INITRD)] {
            fs::copy(from, root.join(name))?;
        }
        Ok(Self {
            root,
            image: stage.image(),
            storage: stage.storage(),
            memory_bytes: memory_mb << 20,
            boot,
            fork,
            taps: stage.taps().to_vec(),
            count: 0,
        })
    }

    fn new_dir(&mut self) -> PathBuf {
        self.count += 1;
        self.root.join(self.count.to_string())
    }

    fn take_tap(&mut self) -> anyhow::Result<String> {
        self.taps.pop().context("more bare machines at once than taps")
    }

    /// A machine that boots, up to its guest's first answer.
    pub(super) async fn boot(&mut self) -> anyhow::Result<Bare> {
        let (dir, tap) = (self.new_dir(), self.take_tap()?);
        let token = Token::new(rand::random());
        fs::create_dir(&dir)?;
        for name in [KERNEL, INITRD] {
            fs::hard_link(self.root.join(name), dir.join(name))?;
        }
        fs::File::create(dir.join(MEMORY))?.set_len(self.memory_bytes)?;
        self.storage.make_disk(&self.image, &dir.join(DISK)).await?;
        let machine = Machine::start(&dir, &self.boot, &tap, token).await?;
        let guest = machine.guest(Arrival::Running).await?;
        Ok(Bare { machine, guest, tap })
    }

    /// A fork, up to its guest's first answer.
    pub(super) async fn fork(&mut self, template: &Template) -> anyhow::Result<Bare> {
        let (dir, tap) = (self.new_dir(), self.take_tap()?);
        self.fork_in(dir, tap, template).await
    }

    async fn fork_in(
        &self,
        dir: PathBuf,
        tap: String,
        template: &Template,
    ) -> anyhow::Result<Bare> {
        fs::create_dir(&dir)?;
        for name in [MEMORY, STATE] {
            fs::hard_link(template.dir.join(name), dir.join(name))?;
        }
        self.storage.make_disk(&template.dir.join(DISK), &dir.join(DISK)).await?;
        let mut machine = Machine::start(&dir, &self.fork, &tap, template.token).await?;
        machine.go_on().await?;
        let guest = machine.guest(Arrival::Restored).await?;
        Ok(Bare { machine, guest, tap })
    }

    /// That many forks at once; each has ended a command.
    pub(super) async fn forks(
        &mut self,
        template: &Template,
        count: usize,
    ) -> anyhow::Result<Vec<Bare>> {
        let mut places = Vec::new();
        for _ in 0..count {
            places.push((self.new_dir(), self.take_tap()?));
        }
        let this = &*self;
        let forks = places.into_iter().map(|(dir, tap)| async move {
            let bare = this.fork_in(dir, tap, template).await?;
            bare.guest.exec(super::COMMAND, &[]).await?;
            anyhow::Ok(bare)
        });
        try_join_all(forks).await
    }

    /// Its memory goes to the disk.
    pub(super) async fn pause(&mut self, bare: Bare) -> anyhow::Result<Paused> {
        let Bare { machine, guest, tap } = bare;
        drop(guest);
        let (dir, token) = (machine.dir().to_owned(), machine.token());
        machine.save().await?;
        Ok(Paused { dir, token, tap })
    }

    /// Wakes it, up to its guest's first answer.
    pub(super) async fn resume(&mut self, paused: Paused) -> anyhow::Result<Bare> {
        let Paused { dir, token, tap } = paused;
        let mut machine = Machine::start(&dir, &self.boot.resuming(), &tap, token).await?;
        machine.go_on().await?;
        let guest = machine.guest(Arrival::Resumed).await?;
        Ok(Bare { machine, guest, tap })
    }

    /// Makes a template of a machine that was booted; the machine ends.
    pub(super) async fn snapshot(&mut self, bare: Bare) -> anyhow::Result<Template> {
        bare.guest.sync().await?;
        let Paused { dir, token, tap } = self.pause(bare).await?;
        self.taps.push(tap);
        to_medium(&dir, &[MEMORY, STATE, DISK]).await?;
        Ok(Template { dir, token })
    }

    /// Turns the guest off and keeps its disk.
    pub(super) async fn flatten(&mut self, bare: Bare) -> anyhow::Result<()> {
        let Bare { machine, guest, tap } = bare;
        guest.sync().await?;
        guest.shut_down().await;
        let dir = machine.dir().to_owned();
        machine.turned_off().await?;
        self.taps.push(tap);
        to_medium(&dir, &[DISK]).await
    }

    /// Ends it and removes its files.
    pub(super) async fn remove(&mut self, bare: Bare) -> anyhow::Result<()> {
        let dir = bare.machine.dir().to_owned();
        bare.machine.end().await?;
        self.taps.push(bare.tap);
        Ok(fs::remove_dir_all(dir)?)
    }
}

/// Syncs files, as whoever publishes them has to.
async fn to_medium(dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    let files: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    tokio::task::spawn_blocking(move || {
        files.iter().try_for_each(|file| fs::File::open(file)?.sync_all())
    })
    .await??;
    Ok(())
}
