//! Root disks: made from a template's disk, handed over as a template's disk.
//!
//! [`Volumes`] is what the agent sees; the drivers differ in how a new disk shares the template's blocks.
//! Which template or sandbox a disk belongs to is known to the caller only.

mod files;
mod sparse;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use files::FileVolumes;

use crate::Identity;

/// How root disks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// Shared blocks on a file system that can clone files (XFS, btrfs).
    Reflink,
    /// A sparse copy, on any file system.
    Copy,
}

impl Driver {
    /// The name in configuration and in `GetHost`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::Copy => "copy",
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
    /// The template's disk; never written to.
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

    /// Removes the disk. No disk is fine.
    async fn remove(&self, dir: &Path) -> Result<(), Error>;
}
