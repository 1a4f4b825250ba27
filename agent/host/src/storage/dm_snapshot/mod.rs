//! Disks that the kernel's device-mapper makes of a template's disk and a file of differences, in no time and on
//! any file system.
//!
//! ```text
//!  template's disk ─► loop, read-only, one for all ─┬─────────────► snapshot ─► <dir>/disk ─► machine
//!                                                   └► base (longer)┘   ▲
//!  <dir>/disk.cow ──► loop ─────────────────────────────────────────────┘  grows while the machine writes
//! ```
//!
//! The kernel keeps everything that counts users: a device goes when it is removed and closed, its loop devices
//! with it. What a disk is stands in its directory ([`disk`]), so an agent that starts again takes it up, also
//! after the host did. Devices bear the instance's name ([`names`]) and are swept by it.
//!
//! A disk sets room aside before its machine needs it ([`watch`], [`cow`]). Where the host's file system has none
//! left, a machine's writes fail and its reads go on; such a disk is neither kept nor published any more.

mod cow;
mod disk;
mod flatten;
mod loops;
mod mapper;
mod names;
mod watch;

use std::{
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    cow::Reserve,
    disk::{Disk, Shape},
    mapper::{Busy, Health, Mapper},
    names::Names,
};
use super::{
    Driver, Error, Request, Volume, Volumes,
    own::{self, blocking, failed, kept, look, names_kept},
};
use crate::{Identity, Instance};

/// The directory of the disk that shows whether the host can do it: no sandbox can have this name.
const PROBE: &str = ".dm-probe";
const PROBE_BYTES: u64 = 1 << 20;

/// How the driver works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose devices they are.
    pub instance: Instance,
    /// The room that a disk sets aside for what will be written to it, at first and more at a time; at least 1 MiB.
    pub reserve_bytes: u64,
    /// After which it is looked whether a disk needs more. Half of the reserve must last longer than this.
    pub pause: Duration,
}

/// The `dm_snapshot` driver.
#[derive(Debug)]
pub struct DmVolumes {
    engine: Arc<Engine>,
    watcher: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
    _stops: DropGuard,
}

/// What all calls share.
#[derive(Debug)]
struct Engine {
    instance: Instance,
    mapper: Mapper,
    reserve: Reserve,
    /// Held while the loop device of an origin is looked for or made.
    origins: Mutex<()>,
    watch: watch::Watch,
}

impl DmVolumes {
    /// Tries it out with a small disk in `data_dir`, and begins to look after disks. Needs a runtime.
    ///
    /// # Errors
    /// Says what the host lacks.
    pub async fn open(data_dir: &Path, options: Options) -> Result<Self, Error> {
        let dir = data_dir.join(PROBE);
        let Options { instance, reserve_bytes, pause } = options;
        let opened = move || {
            let engine = Engine {
                instance,
                mapper: Mapper::open()?,
                reserve: Reserve { step: reserve_bytes.max(1 << 20).next_multiple_of(cow::CHUNK) },
                origins: Mutex::default(),
                watch: watch::Watch::default(),
            };
            engine.probe(&dir).map(|()| engine)
        };
        let engine = blocking(move || opened().map_err(Error::NoDmSnapshot)).await?;
        let (engine, stop) = (Arc::new(engine), CancellationToken::new());
        let watcher = tokio::spawn(watch::run(engine.clone(), pause, stop.clone()));
        let stops = stop.clone().drop_guard();
        Ok(Self { engine, watcher: Mutex::new(Some(watcher)), stop, _stops: stops })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let engine = self.engine.clone();
        blocking(move || work(&engine)).await
    }
}

#[async_trait]
impl Volumes for DmVolumes {
    fn driver(&self) -> Driver {
        Driver::DmSnapshot
    }

    async fn ensure(&self, request: &Request) -> Result<Volume, Error> {
        let request = request.clone();
        self.blocking(move |engine| engine.ensure(&request)).await
    }

    async fn publish(&self, dir: &Path, target: &Path) -> Result<u64, Error> {
        let (dir, target) = (dir.to_owned(), target.to_owned());
        self.blocking(move |engine| engine.publish(&dir, &target)).await
    }

    async fn find(&self, dir: &Path) -> Result<Option<Volume>, Error> {
        let dir = dir.to_owned();
        self.blocking(move |engine| engine.find(&dir)).await
    }

    async fn checkpoint(&self, dir: &Path, name: &str) -> Result<u64, Error> {
        let (dir, kept) = (dir.to_owned(), kept(dir, name)?);
        self.blocking(move |engine| engine.checkpoint(&dir, &kept)).await
    }

    async fn checkpoints(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let dir = dir.to_owned();
        blocking(move || names_kept(&dir).map_err(|source| failed("looked for", &dir, source)))
            .await
    }

    async fn restore(&self, dir: &Path, name: &str, owner: Identity) -> Result<Volume, Error> {
        let missing = Error::NoCheckpoint { dir: dir.to_owned(), name: name.to_owned() };
        let (dir, kept) = (dir.to_owned(), kept(dir, name)?);
        self.blocking(move |engine| match look(&kept)? {
            Some(_) => engine.restore(&dir, &kept, owner),
            None => Err(missing),
        })
        .await
    }

    /// Without what is only set aside.
    async fn used(&self, dir: &Path) -> Result<u64, Error> {
        let dir = dir.to_owned();
        self.blocking(move |engine| engine.used(&dir)).await
    }

    async fn remove(&self, dir: &Path) -> Result<(), Error> {
        let dir = dir.to_owned();
        self.blocking(move |engine| engine.remove(&dir)).await
    }

    async fn sweep(&self, keep: &[PathBuf]) -> Result<usize, Error> {
        let keep: Vec<Names> =
            keep.iter().map(|dir| Names::of(&self.engine.instance, dir)).collect();
        self.blocking(move |engine| engine.sweep(&keep)).await
    }

    async fn close(&self) {
        self.stop.cancel();
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watcher) = watcher
            && watcher.await.is_err()
        {
            tracing::error!("the task that looks after disks panicked");
        }
    }
}

impl Engine {
    fn lock_origins(&self) -> MutexGuard<'_, ()> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes, uses and removes a disk that is longer than its origin.
    fn probe(&self, dir: &Path) -> io::Result<()> {
        let disk = Disk::new(self, dir);
        disk.take_apart()?;
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir(dir)?,
        }
        let origin = dir.join("origin");
        let tried = || -> io::Result<()> {
            own::create(&origin)?.set_len(PROBE_BYTES)?;
            let shape = Shape { bytes: PROBE_BYTES * 2, uid: 0, gid: 0 };
            disk.place(&origin, shape)?;
            disk.put_together(shape)?;
            // A file system that is mounted without devices refuses it.
            let node = std::fs::File::options().read(true).write(true).open(disk.node())?;
            node.write_all_at(&[1; 4096], PROBE_BYTES)?;
            node.sync_all()
        };
        let tried = tried();
        let removed = disk.take_apart();
        std::fs::remove_dir_all(dir)?;
        tried.and(removed.map(drop))
    }

    fn ensure(&self, request: &Request) -> Result<Volume, Error> {
        let disk = Disk::new(self, &request.dir);
        self.remove(&request.dir)?;
        let origin = match std::fs::symlink_metadata(&request.origin) {
            Ok(origin) => origin,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoOrigin(request.origin.clone()));
            }
            Err(source) => return Err(failed("looked at", &request.origin, source)),
        };
        if origin.len() % 512 != 0 {
            let source = io::Error::other("its length is no multiple of 512 bytes");
            return Err(failed("used", &request.origin, source));
        }
        let bytes = origin.len().max(request.bytes_min).next_multiple_of(512);
        let shape = Shape::new(bytes, request.owner);
        let made = disk.place(&request.origin, shape).and_then(|()| disk.put_together(shape));
        made.map_err(|source| failed("made", &disk.node(), source))?;
        self.watch.add(&disk.names.disk, request.dir.clone(), bytes);
        Ok(shape.volume())
    }

    fn publish(&self, dir: &Path, target: &Path) -> Result<u64, Error> {
        let disk = Disk::new(self, dir);
        let shape = self.shape(&disk)?;
        self.settle(&disk, dir, "published")?;
        let written = flatten::flatten(&disk.node(), shape.bytes, target);
        let bytes = written.map_err(|source| failed("published", target, source))?;
        self.remove(dir)?;
        Ok(bytes)
    }

    fn find(&self, dir: &Path) -> Result<Option<Volume>, Error> {
        let disk = Disk::new(self, dir);
        let failed = |source| failed("taken up", &disk.node(), source);
        let Some(shape) = disk.shape().map_err(failed)? else { return Ok(None) };
        disk.take_up(shape).map_err(failed)?;
        self.watch.add(&disk.names.disk, dir.to_owned(), shape.bytes);
        Ok(Some(shape.volume()))
    }

    /// Copies the differences, while nothing can be written.
    fn checkpoint(&self, dir: &Path, kept: &Path) -> Result<u64, Error> {
        let disk = Disk::new(self, dir);
        let failed = |source| failed("kept", &disk.node(), source);
        self.settle(&disk, dir, "kept")?;
        self.mapper.suspend(&disk.names.disk).map_err(failed)?;
        let copied = cow::copy(&disk.cow(), kept, false);
        self.mapper.resume(&disk.names.disk).map_err(failed)?;
        let copied = copied.and_then(|copy| copy.metadata()).map_err(failed)?;
        Ok(copied.blocks() * 512)
    }

    fn restore(&self, dir: &Path, kept: &Path, owner: Identity) -> Result<Volume, Error> {
        let disk = Disk::new(self, dir);
        let failed = |source| failed("restored", &disk.node(), source);
        let shape = Shape::new(self.shape(&disk)?.bytes, owner);
        cow::copy(kept, &disk.restored(), true).map_err(failed)?;
        self.watch.forget(&disk.names.disk);
        let restored = (|| {
            // The devices go before the file they are made of changes: nothing takes up a mixture.
            disk.take_apart()?;
            std::fs::rename(disk.restored(), disk.cow())?;
            disk.write(shape)?;
            disk.put_together(shape)
        })();
        // Also one that could not be taken apart: it is still in use.
        self.watch.add(&disk.names.disk, dir.to_owned(), shape.bytes);
        restored.map_err(failed)?;
        Ok(shape.volume())
    }

    fn used(&self, dir: &Path) -> Result<u64, Error> {
        let disk = Disk::new(self, dir);
        let health = self.mapper.health(&disk.names.disk);
        match health.map_err(|source| failed("looked at", &disk.node(), source))? {
            Some(Health::Filled { used, .. }) => Ok(used),
            _ => Ok(look(&disk.cow())?.map_or(0, |cow| cow.blocks() * 512)),
        }
    }

    fn remove(&self, dir: &Path) -> Result<(), Error> {
        let disk = Disk::new(self, dir);
        self.watch.forget(&disk.names.disk);
        disk.remove().map_err(|source| failed("removed", &disk.node(), source))
    }

    fn sweep(&self, keep: &[Names]) -> Result<usize, Error> {
        let swept = || -> io::Result<usize> {
            let disks = self.mapper.names(&names::disk_prefix(&self.instance))?;
            let bases = self.mapper.names(&names::base_prefix(&self.instance))?;
            let mut count = 0;
            for name in disks {
                if !keep.iter().any(|kept| kept.disk == name) {
                    self.watch.forget(&name);
                    count += usize::from(self.remove_device(&name, Busy::Retry)?);
                }
            }
            for name in bases {
                if !keep.iter().any(|kept| kept.base == name) {
                    self.remove_device(&name, Busy::Leave)?;
                }
            }
            self.mapper.remove_all_when_closed(&names::gone_prefix(&self.instance))?;
            Ok(count)
        };
        swept().map_err(|source| failed("swept", Path::new("/dev/mapper"), source))
    }

    /// The disk first: it keeps its base.
    fn remove_devices(&self, names: &Names) -> io::Result<bool> {
        let had_disk = self.remove_device(&names.disk, Busy::Retry)?;
        // Only the disk has it open.
        self.remove_device(&names.base, Busy::Leave)?;
        Ok(had_disk)
    }

    fn remove_device(&self, name: &str, busy: Busy) -> io::Result<bool> {
        self.mapper.remove(name, busy, |minor| names::gone(&self.instance, minor))
    }

    fn shape(&self, disk: &Disk<'_>) -> Result<Shape, Error> {
        let shape = disk.shape().and_then(|shape| shape.ok_or(io::ErrorKind::NotFound.into()));
        shape.map_err(|source| failed("found", &disk.node(), source))
    }

    /// Writes out what the kernel still holds of a disk. One that lost a write is not what its machine takes it for.
    fn settle(&self, disk: &Disk<'_>, dir: &Path, action: &'static str) -> Result<(), Error> {
        let written = std::fs::File::open(disk.node()).and_then(|node| node.sync_all());
        let health = self.mapper.health(&disk.names.disk);
        match health.map_err(|source| failed("looked at", &disk.node(), source))? {
            Some(Health::Overflowed | Health::Invalid) => Err(Error::Overflowed(dir.to_owned())),
            _ => written.map_err(|source| failed(action, &disk.node(), source)),
        }
    }
}
