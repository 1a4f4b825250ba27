//! Root disks: made from a template's disk, handed over as a template's disk.
//!
//! [`Volumes`] is what the agent sees; the drivers differ in how a new disk shares the template's blocks.
//! Which template or sandbox a disk belongs to is known to the caller only.

mod dm_snapshot;
mod files;
mod own;
mod sparse;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use dm_snapshot::{DmVolumes, Options as DmOptions};
pub use files::FileVolumes;

use crate::Identity;

/// The longest name of a checkpoint, in bytes.
pub const CHECKPOINT_NAME_MAX: usize = 128;

/// How root disks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// Shared blocks on a file system that can clone files (XFS, btrfs).
    Reflink,
    /// A sparse copy, on any file system.
    Copy,
    /// A device of the kernel's device-mapper: the template's disk and a file of differences.
    DmSnapshot,
}

impl Driver {
    /// The name in configuration and in `GetHost`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::Copy => "copy",
            Self::DmSnapshot => "dm_snapshot",
        }
    }
}

/// A disk could not be made, handed over or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template's disk does not exist (any more).
    #[error("disk image {} does not exist", .0.display())]
    NoOrigin(PathBuf),
    /// The file system is full.
    #[error("no room on the file system of {}", .0.display())]
    Full(PathBuf),
    /// The file system cannot clone files.
    #[error("the file system of {} cannot clone files: set storage to \"copy\"", .0.display())]
    NoReflink(PathBuf),
    /// The host has no device-mapper, or not all that a snapshot needs.
    #[error(
        "this host cannot make dm snapshots: it needs the modules dm-snapshot, dm-zero and loop, and device files in data_dir"
    )]
    NoDmSnapshot(#[source] std::io::Error),
    /// The host had no room for what the machine wrote.
    #[error("the disk in {} has lost writes because the host had no room for them; its machine sees I/O errors", .0.display())]
    Overflowed(PathBuf),
    /// The sandbox has no checkpoint of that name.
    #[error("there is no checkpoint {name:?} of the disk in {}", dir.display())]
    NoCheckpoint {
        /// The sandbox's directory.
        dir: PathBuf,
        /// What it was asked for by.
        name: String,
    },
    /// A name that a checkpoint cannot have.
    #[error(
        "checkpoint name {0:?} is not 1 to {CHECKPOINT_NAME_MAX} of [a-z0-9._-], the first a letter or digit"
    )]
    CheckpointName(String),
    /// Anything else the kernel refused.
    #[error("disk {} cannot be {action}", path.display())]
    Io {
        /// What was tried, as a participle.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// What a new disk shall be.
#[derive(Debug, Clone)]
pub struct Request {
    /// The template's disk; never written to. It lies on the file system of `dir`, and its length is a multiple of
    /// 512 bytes.
    pub origin: PathBuf,
    /// The sandbox's own directory, which exists.
    pub dir: PathBuf,
    /// At least this many bytes long; the origin's length when that is more.
    pub bytes_min: u64,
    /// Who may read and write it.
    pub owner: Identity,
}

/// A disk that a machine can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// As the machine opens it: relative to the sandbox's directory, or a device.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A driver of root disks. A sandbox has one disk, which its directory names.
///
/// Calls about one directory follow each other; those about different ones come at the same time.
#[async_trait]
pub trait Volumes: std::fmt::Debug + Send + Sync {
    /// Which driver this is.
    fn driver(&self) -> Driver;

    /// Makes the disk. A half-made one of an earlier call is replaced. Afterwards the disk exists and
    /// belongs to its owner, or an error says why not and [`Volumes::remove`] leaves nothing.
    async fn ensure(&self, request: &Request) -> Result<Volume, Error>;

    /// Hands the disk of a machine that no longer runs over as the plain file `target`, owned by root and
    /// read-only, not yet synced to the medium. Returns the bytes it occupies. The disk is gone afterwards.
    async fn publish(&self, dir: &Path, target: &Path) -> Result<u64, Error>;

    /// The disk of a sandbox that an earlier agent made and whose machine still runs, or may run again; `None`
    /// when there is none. From here on it is looked after as if this driver had made it.
    async fn find(&self, dir: &Path) -> Result<Option<Volume>, Error>;

    /// Keeps the disk as it is now under a name of `[a-z0-9][a-z0-9._-]*`, while its machine is paused or has
    /// ended. An older checkpoint of that name is replaced whole, or stays when this fails. It lies in the
    /// sandbox's directory and goes with it. Returns the bytes it occupies.
    async fn checkpoint(&self, dir: &Path, name: &str) -> Result<u64, Error>;

    /// The names of a sandbox's checkpoints, in any order.
    async fn checkpoints(&self, dir: &Path) -> Result<Vec<String>, Error>;

    /// Makes the disk of a machine that no longer runs what it was at a checkpoint, which stays. Should this
    /// fail, the disk is the old one or the restored one, never a mixture.
    async fn restore(&self, dir: &Path, name: &str, owner: Identity) -> Result<Volume, Error>;

    /// The bytes that the disk occupies by itself, for the metrics; 0 without a disk.
    async fn used(&self, dir: &Path) -> Result<u64, Error>;

    /// Removes the disk. No disk is fine.
    async fn remove(&self, dir: &Path) -> Result<(), Error>;

    /// Removes what an agent of this instance left in the kernel for sandboxes whose directories are not among
    /// `keep`: called at start, when those directories may be gone already. Returns how many disks that were.
    async fn sweep(&self, keep: &[PathBuf]) -> Result<usize, Error>;

    /// Ends what the driver does in the background, and waits for it. Disks stay as they are.
    async fn close(&self);
}

/// Which driver is wanted, and what each needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where templates and sandboxes lie.
    pub data_dir: PathBuf,
    /// None: the best that this host can do, which is a reflink, else a dm snapshot, else a copy.
    pub driver: Option<Driver>,
    /// For a driver of dm snapshots.
    pub dm: DmOptions,
}

/// Opens a driver, which [`Volumes::close`] ends. Needs a runtime.
///
/// # Errors
/// When the host lacks what the wanted driver needs.
pub async fn open(options: Options) -> Result<Arc<dyn Volumes>, Error> {
    let Options { data_dir, driver, dm } = options;
    Ok(match driver {
        Some(Driver::DmSnapshot) => Arc::new(DmVolumes::open(&data_dir, dm).await?),
        Some(Driver::Reflink) => Arc::new(FileVolumes::reflink(&data_dir)?),
        Some(Driver::Copy) => Arc::new(FileVolumes::copy()),
        None => best(&data_dir, dm).await?,
    })
}

async fn best(data_dir: &Path, dm: DmOptions) -> Result<Arc<dyn Volumes>, Error> {
    match FileVolumes::reflink(data_dir) {
        Err(Error::NoReflink(_)) => {}
        opened => return Ok(Arc::new(opened?)),
    }
    match DmVolumes::open(data_dir, dm).await {
        Ok(volumes) => Ok(Arc::new(volumes)),
        Err(error) => {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(reason, "{error}; every disk is a whole copy");
            Ok(Arc::new(FileVolumes::copy()))
        }
    }
}

/// Whether a text can be a checkpoint's name.
///
/// # Errors
/// [`Error::CheckpointName`].
pub fn check_name(name: &str) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(known);
    let rest = name.bytes().all(|byte| known(byte) || b"._-".contains(&byte));
    if first && rest && name.len() <= CHECKPOINT_NAME_MAX {
        return Ok(());
    }
    // Not all of it: an error that is too long for its transport ends the caller's connection.
    Err(Error::CheckpointName(name.chars().take(CHECKPOINT_NAME_MAX).collect()))
}
