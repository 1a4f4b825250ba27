//! What has to be known about a sandbox after its agent has ended: `journal.json` in the sandbox's directory, root's
//! alone.
//!
//! It is written before the act, and only before acts that change what is true about the sandbox when the agent ends
//! at that moment:
//!
//! | stage | is noted | from then on counts |
//! |---|---|---|
//! | creating | when there is a directory, and nothing else | nothing: nobody was answered |
//! | running | before the creation is answered; before a resumed machine runs | the machine |
//! | paused | when the state is complete, before the machine ends | the state, and no machine |
//! | restoring | before the machine ends whose disk is put back | the disk |
//! | saving | before the machine ends whose files become a template's; for an image, once its guest turns itself off | the disk: the template's, or the sandbox's |
//! | stopped | when the machine has ended, or was lost | the disk |
//! | destroying | before anything is removed | nothing |
//!
//! So a sandbox that is being paused, checkpointed or made ready to be saved is a running one here, and one that is
//! being resumed is a paused one until its machine runs. What a restart makes of it is decided in `recovery`.
//!
//! A journal is replaced by renaming, and is not synced to the medium: it has to outlive the agent, for which the
//! kernel's memory is good enough. It need not outlive the host, for no machine does; it names the host's boot.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ovenbird_host::{
    net::Policy,
    storage::Driver,
    vm::{Memory, Platform, Saved},
};
use ovenbird_kit::telemetry;
use serde::{Deserialize, Serialize};

use super::{Error, create::Plan, unix_now};
use crate::{guest_link::Token, template::Kind};

/// The journal's name in a sandbox's directory.
pub(super) const FILE: &str = "journal.json";
/// The next one, while it is being written.
const NEW: &str = "journal.json+new";
/// The version of this build. Fields are only ever added.
pub(super) const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub(super) enum Stage {
    Creating,
    Running,
    Paused {
        /// What the state contains.
        saved: Saved,
        /// The idle reaper did it, and nobody has been told yet.
        untold: bool,
    },
    Restoring {
        checkpoint: String,
    },
    Saving {
        kind: Kind,
        template: String,
    },
    Stopped {
        /// Why, for messages.
        detail: String,
    },
    Destroying,
}

/// One sandbox, as it is journalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`VERSION`] of whoever wrote it.
    pub(super) version: u32,
    /// The host's boot.
    pub(super) boot: String,
    pub(super) id: String,
    /// Also where its network and its control group are found.
    pub(super) slot: u16,
    /// The user and group of its machine.
    pub(super) user: u32,
    pub(super) host_ip: Ipv4Addr,
    pub(super) template: String,
    pub(super) build_id: String,
    pub(super) vcpus: u32,
    pub(super) memory_mb: u32,
    pub(super) timeout_sec: i32,
    pub(super) policy: Policy,
    /// The digest of the kernel that it runs.
    pub(super) kernel: String,
    #[serde(serialize_with = "crate::template::hex", deserialize_with = "crate::template::unhex")]
    pub(super) token: Token,
    /// How its disk is made; nothing of an earlier version.
    #[serde(default)]
    pub(super) storage: Option<Driver>,
    /// Where its machine has its memory.
    pub(super) memory: Memory,
    /// What its machine was started on, which is not always what the next agent has.
    pub(super) platform: Platform,
    pub(super) created_at_unix: i64,
    /// When this was written.
    pub(super) noted_at_unix: i64,
    pub(super) stage: Stage,
}

impl Record {
    /// The record in a sandbox's directory. `None` when there is none, or what there is cannot be read.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&text) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "journal cannot be read");
                Ok(None)
            }
        }
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(NEW);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, dir.join(FILE))
    }
}

/// The journal of one sandbox.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    /// As it stands in the file.
    record: Mutex<Record>,
}

impl Journal {
    /// The journal of a directory. Nothing is written.
    pub(super) fn new(dir: PathBuf, record: Record) -> Self {
        Self { dir, record: Mutex::new(record) }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is noted.
    pub(super) fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Notes a change. When that fails, the file says what it said before.
    fn note(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut record = self.lock();
        let mut next = record.clone();
        change(&mut next);
        next.noted_at_unix = unix_now();
        next.write(&self.dir)?;
        *record = next;
        Ok(())
    }
}

impl Plan {
    /// Notes what counts from now on.
    ///
    /// # Errors
    /// Those of the directory: the act must not follow then.
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let action = "given a journal";
        let noted = self.journal.note(change);
        noted.map_err(|source| Error::Directory { id: self.id.clone(), action, source })
    }

    /// Notes what counts from now on, where the act follows all the same: without the note, a restart may find a
    /// sandbox stopped that would have been something better.
    pub(super) fn try_note(&self, change: impl FnOnce(&mut Record)) {
        match self.note(change) {
            Ok(()) => {}
            // Its removal has come past the directory.
            Err(Error::Directory { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let (id, error) = (&self.id, telemetry::chain(&error));
                tracing::warn!(sandbox.id = %id, error, "journal of a sandbox is behind");
            }
        }
    }

    /// [`Plan::note`] of a stage alone.
    pub(super) fn note_stage(&self, stage: Stage) -> Result<(), Error> {
        self.note(|record| record.stage = stage)
    }

    /// [`Plan::try_note`] of a stage alone.
    pub(super) fn try_note_stage(&self, stage: Stage) {
        self.try_note(|record| record.stage = stage);
    }
}

/// How the disks of an earlier agent's sandboxes are made, by their journals; nothing without any.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn storage_of(sandboxes: &Path) -> io::Result<Option<Driver>> {
    let boot = boot_id();
    for entry in fs::read_dir(sandboxes)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let found = Record::read(&entry.path())?.filter(|record| record.boot == boot);
        if let Some(driver) = found.and_then(|record| record.storage) {
            return Ok(Some(driver));
        }
    }
    Ok(None)
}

/// The host's boot.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
pub(super) fn record(stage: Stage) -> Record {
    Record {
        version: VERSION,
        boot: boot_id(),
        id: "a".into(),
        slot: 3,
        user: 300_003,
        host_ip: Ipv4Addr::new(10, 201, 0, 9),
        template: "minimal".into(),
        build_id: "bld_1".into(),
        vcpus: 1,
        memory_mb: 256,
        timeout_sec: 60,
        policy: Policy::default(),
        kernel: "00".into(),
        token: Token::new([7; 16]),
        storage: Some(Driver::Copy),
        memory: Memory::Own,
        platform: Platform {
            hypervisor: "qemu 10.0.2".into(),
            accelerator: ovenbird_host::vm::Accelerator::Tcg,
            cpu: "max".into(),
            devices: "microvm-1".into(),
            tsc_khz: 2_000_000,
        },
        created_at_unix: 1,
        noted_at_unix: 2,
        stage,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn stages() -> Vec<Stage> {
        vec![
            Stage::Creating,
            Stage::Running,
            Stage::Paused { saved: Saved::DevicesAndMemory, untold: true },
            Stage::Restoring { checkpoint: "base".into() },
            Stage::Saving { kind: Kind::Image, template: "tpl_1".into() },
            Stage::Stopped { detail: ": its guest turned itself off".into() },
            Stage::Destroying,
        ]
    }

    #[test]
    fn what_is_noted_is_read_again_and_is_roots_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let journal = Journal::new(dir.path().to_owned(), record(Stage::Creating));
        for stage in stages() {
            journal.note(|record| record.stage = stage.clone()).unwrap();
            let read = Record::read(dir.path()).unwrap().unwrap();
            assert_eq!((&read.stage, &read), (&stage, &journal.record()));
        }
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn disks_are_of_the_driver_that_is_noted_since_the_hosts_start() {
        let sandboxes = tempfile::tempdir().unwrap();
        let note = |name: &str, record: Record| {
            let dir = sandboxes.path().join(name);
            fs::create_dir(&dir).unwrap();
            record.write(&dir).unwrap();
        };
        note("old", Record { boot: "another".into(), ..record(Stage::Running) });
        note("older", Record { storage: None, ..record(Stage::Running) });
        assert_eq!(storage_of(sandboxes.path()).unwrap(), None);
        note("a", record(Stage::Running));
        assert_eq!(storage_of(sandboxes.path()).unwrap(), Some(Driver::Copy));
    }

    #[test]
    fn note_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().to_owned(), record(Stage::Running));
        journal.note(|_| {}).unwrap();
        let before = Record::read(dir.path()).unwrap();
        fs::create_dir(dir.path().join(NEW)).unwrap();
        assert!(journal.note(|record| record.stage = Stage::Destroying).is_err());
        assert_eq!(Record::read(dir.path()).unwrap(), before);
        assert_eq!(Some(journal.record()), before);
    }

    #[test]
    fn journal_survives_later_fields_and_half_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut json = serde_json::to_value(record(Stage::Running)).unwrap();
        json["something_new"] = serde_json::json!(1);
        let text = json.to_string();
        fs::write(dir.path().join(FILE), &text).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record(Stage::Running)));
        fs::write(dir.path().join(FILE), &text[..text.len() / 2]).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
    }
}
