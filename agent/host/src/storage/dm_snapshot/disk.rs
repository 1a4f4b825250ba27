//! One sandbox's disk: its files, and the devices that are made of them.
//!
//! ```text
//!  <dir>/disk.origin   a link of the template's disk: it outlives the template     ─┐
//!  <dir>/disk.cow      what differs from it, root's alone                           ├─► devices
//!  <dir>/disk.json     length and owner: the files above are complete              ─┘
//!  <dir>/disk          the node of the device, the machine's
//! ```
//!
//! The files say all, the kernel nothing that they do not: what it has lost is put together from them again. A disk
//! that is longer than its origin has a base of its own, the origin followed by zeros. Blocking.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, chown},
    path::{Path, PathBuf},
};

use devicemapper::Device;
use nix::{
    libc::makedev,
    sys::stat::{Mode, SFlag, mknod},
};
use serde::{Deserialize, Serialize};

use super::{
    Engine, cow,
    loops::{Access, Loop},
    mapper::Target,
    names::{self, Names},
};
use crate::{
    Identity,
    storage::{Volume, own},
};

/// What the files do not say by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) bytes: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Shape {
    pub(super) fn new(bytes: u64, owner: Identity) -> Self {
        Self { bytes, uid: owner.uid, gid: owner.gid }
    }

    /// As the machine has it.
    pub(super) fn volume(self) -> Volume {
        Volume { path: PathBuf::from(own::DISK), bytes: self.bytes }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    engine: &'a Engine,
    dir: &'a Path,
    pub(super) names: Names,
}

impl<'a> Disk<'a> {
    pub(super) fn new(engine: &'a Engine, dir: &'a Path) -> Self {
        Self { engine, dir, names: Names::of(&engine.instance, dir) }
    }

    /// The node of the device.
    pub(super) fn node(&self) -> PathBuf {
        self.dir.join(own::DISK)
    }

    /// The file of the differences.
    pub(super) fn cow(&self) -> PathBuf {
        self.dir.join("disk.cow")
    }

    /// A file of differences that will be the disk's in a moment.
    pub(super) fn restored(&self) -> PathBuf {
        self.dir.join("disk.restored")
    }

    fn origin(&self) -> PathBuf {
        self.dir.join("disk.origin")
    }

    fn shape_file(&self) -> PathBuf {
        self.dir.join("disk.json")
    }

    /// Makes the files of a new disk, the last of them saying that they are complete. There is none yet.
    pub(super) fn place(&self, origin: &Path, shape: Shape) -> io::Result<()> {
        std::fs::hard_link(origin, self.origin())?;
        cow::create(&self.cow(), self.engine.reserve.first(shape.bytes))?;
        self.write(shape)
    }

    /// Makes this the disk's shape.
    pub(super) fn write(&self, shape: Shape) -> io::Result<()> {
        own::replace(&self.shape_file(), |file| Ok(serde_json::to_writer(file, &shape)?)).map(drop)
    }

    /// The disk's shape, when its files are complete.
    pub(super) fn shape(&self) -> io::Result<Option<Shape>> {
        let path = self.shape_file();
        match own::open(OpenOptions::new().read(true), &path) {
            Ok(file) => Ok(Some(serde_json::from_reader(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the devices and the node. None of them is there yet; all of them are taken apart when this fails.
    pub(super) fn put_together(&self, shape: Shape) -> io::Result<()> {
        let made = self.make_devices(shape).and_then(|device| self.make_node(device, shape));
        if made.is_err() {
            self.take_apart()?;
        }
        made
    }

    fn make_devices(&self, shape: Shape) -> io::Result<Device> {
        let origin = own::open(OpenOptions::new().read(true), &self.origin())?;
        let origin_bytes = origin.metadata()?.len();
        let cow = own::open(OpenOptions::new().read(true).write(true), &self.cow())?;
        // Until the devices hold them, these values keep the loop devices.
        let origin_loop = {
            let _one_at_a_time = self.engine.lock_origins();
            Loop::shared(&origin, &names::mark(&self.engine.instance, "origin"))?
        };
        let mark = names::mark(&self.engine.instance, "cow");
        let cow_loop = Loop::attach(&cow, Access::Write, &mark)?;
        let mapper = &self.engine.mapper;
        let mut base = origin_loop.number()?;
        if shape.bytes > origin_bytes {
            let sectors = origin_bytes / 512;
            let rest = shape.bytes / 512 - sectors;
            let table = [
                target(0, sectors, "linear", format!("{base} 0")),
                target(sectors, rest, "zero", String::new()),
            ];
            base = mapper.create(&self.names.base, &table, true)?.to_string();
        }
        let parameters = format!("{base} {} PO {}", cow_loop.number()?, cow::CHUNK_SECTORS);
        let table = [target(0, shape.bytes / 512, "snapshot", parameters)];
        mapper.create(&self.names.disk, &table, false)
    }

    /// The node in the directory, so that the machine needs no way to any other.
    fn make_node(&self, device: Device, shape: Shape) -> io::Result<()> {
        let node = self.node();
        own::remove_file(&node)?;
        let number = makedev(device.major, device.minor);
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number)?;
        chown(&node, Some(shape.uid), Some(shape.gid))
    }

    /// Takes up the devices of a disk whose files are complete, or makes them again.
    pub(super) fn take_up(&self, shape: Shape) -> io::Result<()> {
        let mapper = &self.engine.mapper;
        let is_whole = mapper.parameters(&self.names.disk, "snapshot")?.is_some();
        match mapper.find(&self.names.disk)? {
            Some((device, true)) if is_whole => {
                // An agent may have died while it held them back.
                mapper.resume(&self.names.disk)?;
                if self.has_node(device) { Ok(()) } else { self.make_node(device, shape) }
            }
            _ => {
                self.take_apart()?;
                self.put_together(shape)
            }
        }
    }

    fn has_node(&self, device: Device) -> bool {
        let number = makedev(device.major, device.minor);
        let found = std::fs::symlink_metadata(self.node());
        found.is_ok_and(|found| found.file_type().is_block_device() && found.rdev() == number)
    }

    /// Removes the node and the devices; the loop devices go with them. Returns whether there was a disk.
    pub(super) fn take_apart(&self) -> io::Result<bool> {
        own::remove_file(&self.node())?;
        self.engine.remove_devices(&self.names)
    }

    /// Removes all there is of the disk but its checkpoints. Repeating it is fine.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.take_apart()?;
        for path in [self.shape_file(), self.cow(), self.restored(), self.origin()] {
            own::remove_file(&path)?;
        }
        Ok(())
    }
}

fn target(start: u64, sectors: u64, kind: &'static str, parameters: String) -> Target {
    Target { start, sectors, kind, parameters }
}
