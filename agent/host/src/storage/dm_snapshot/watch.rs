//! Looks after disks in use: makes each longer before it overflows.
//!
//! The task has no input of its own: at each turn it looks at what the kernel says of every disk it knows. What it
//! cannot help it logs once for each disk.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io,
    mem::Discriminant,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Engine, cow, disk::Disk, loops::Loop, mapper::Health};
use crate::storage::{Error, own};

/// One disk.
#[derive(Debug)]
struct Watched {
    dir: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_forgotten: bool,
    reported: Option<Discriminant<Trouble>>,
}

/// The disks to look after, by their device's name.
#[derive(Debug, Default)]
pub(super) struct Watch {
    disks: Mutex<HashMap<String, Arc<Watched>>>,
}

impl Watch {
    /// From now on.
    pub(super) fn add(&self, name: &str, dir: PathBuf, bytes: u64) {
        let watched = Arc::new(Watched { dir, bytes, state: Mutex::default() });
        locked(&self.disks).insert(name.to_owned(), watched);
    }

    /// No longer; when this returns nothing happens to the disk any more.
    pub(super) fn forget(&self, name: &str) {
        let watched = locked(&self.disks).remove(name);
        if let Some(watched) = watched {
            locked(&watched.state).is_forgotten = true;
        }
    }

    fn all(&self) -> Vec<(String, Arc<Watched>)> {
        let disks = locked(&self.disks);
        disks.iter().map(|(name, watched)| (name.clone(), watched.clone())).collect()
    }
}

/// Runs until it is told to stop.
pub(super) async fn run(engine: Arc<Engine>, pause: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let disks = engine.watch.all();
        if disks.is_empty() {
            continue;
        }
        let engine = engine.clone();
        let look = tokio::task::spawn_blocking(move || {
            for (name, watched) in disks {
                look_after(&engine, &name, &watched);
            }
        });
        look.await.expect("looking after disks does not panic");
    }
}

/// What cannot be helped.
#[derive(Debug)]
enum Trouble {
    /// So many bytes can still be written.
    Full {
        left: u64,
    },
    Overflowed,
    Lost,
    Other(io::Error),
}

impl Trouble {
    fn text(&self) -> String {
        match self {
            Self::Full { left } => format!(
                "disk gets no more room, the file system is full: its machine can write {} KiB before it sees I/O errors",
                left / 1024
            ),
            Self::Overflowed => {
                "disk had no room for a write: its machine sees I/O errors and can only read".into()
            }
            Self::Lost => "disk is lost: its machine sees I/O errors".into(),
            Self::Other(error) => format!("disk cannot be looked after: {error}"),
        }
    }
}

fn look_after(engine: &Engine, name: &str, watched: &Watched) {
    let mut state = locked(&watched.state);
    if state.is_forgotten {
        return;
    }
    let trouble = match engine.mapper.health(name) {
        // It is being taken apart by somebody else.
        Ok(None) => None,
        Ok(Some(Health::Overflowed)) => Some(Trouble::Overflowed),
        Ok(Some(Health::Invalid)) => Some(Trouble::Lost),
        Ok(Some(Health::Filled { used, total })) => {
            let next = engine.reserve.next(used, total, watched.bytes);
            let grown = next.map_or(Ok(()), |bytes| grow(engine, name, watched, bytes));
            grown.err().map(|error| match own::failed("given room", &watched.dir, error) {
                Error::Io { source, .. } => Trouble::Other(source),
                _ => Trouble::Full { left: total - used },
            })
        }
        Err(error) => Some(Trouble::Other(error)),
    };
    let kind = trouble.as_ref().map(std::mem::discriminant);
    if let Some(trouble) = trouble
        && state.reported != kind
    {
        tracing::error!(dir = %watched.dir.display(), "{}", trouble.text());
    }
    state.reported = kind;
}

fn grow(engine: &Engine, name: &str, watched: &Watched, bytes: u64) -> io::Result<()> {
    let table = engine.mapper.parameters(name, "snapshot")?.ok_or(io::ErrorKind::NotFound)?;
    // Origin, differences, how they are kept, chunk.
    let number = table.split_whitespace().nth(1).ok_or(io::ErrorKind::InvalidData)?;
    let path = Disk::new(engine, &watched.dir).cow();
    let file = own::open(OpenOptions::new().read(true).write(true), &path)?;
    let device = Loop::of(number, &file)?;
    cow::extend(&file, bytes)?;
    device.grow()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
