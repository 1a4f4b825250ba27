//! Where one behaviour is tried: a data directory with a template's disk, sandboxes' directories, and drivers.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ovenbird_host::{
    Identity, Instance,
    storage::{self, DmOptions, Driver, Error, Request, Volume, Volumes},
};

pub(crate) const MIB: u64 = 1 << 20;
/// The length of the template's disk.
pub(crate) const ORIGIN: u64 = 8 * MIB;
/// The length of a disk, unless it is said otherwise: longer than its template's.
pub(crate) const BYTES: u64 = 12 * MIB;
pub(crate) const OWNER: Identity = Identity { uid: 61_000, gid: 61_001 };
/// What a dm snapshot sets aside.
pub(crate) const RESERVE: u64 = 4 * MIB;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    driver: Driver,
    root: PathBuf,
    pub(crate) instance: Instance,
    volumes: Vec<Arc<dyn Volumes>>,
}

impl Stage {
    /// An empty place below `parent`; `number` tells it from others of this machine.
    pub(crate) async fn new(driver: Driver, parent: &Path, number: usize) -> Self {
        let root = parent.join(format!("stage-{number}"));
        std::fs::create_dir_all(root.join("sandboxes")).unwrap();
        std::fs::create_dir_all(root.join("images")).unwrap();
        let instance = Instance::new(&format!("t{number}")).unwrap();
        let mut stage = Self { driver, root, instance, volumes: Vec::new() };
        std::fs::write(stage.origin(), "").unwrap();
        let origin = OpenOptions::new().write(true).open(stage.origin()).unwrap();
        origin.set_len(ORIGIN).unwrap();
        // Some data, then zeros that are written, then a hole, then data.
        origin.write_all_at(&[5; 300_000], 0).unwrap();
        origin.write_all_at(&vec![0; 2 * MIB as usize], MIB).unwrap();
        origin.write_all_at(&[6; 100_000], 6 * MIB).unwrap();
        stage.volumes.push(stage.another_driver().await);
        stage
    }

    /// The driver.
    pub(crate) fn volumes(&self) -> Arc<dyn Volumes> {
        self.volumes[0].clone()
    }

    /// A new one, as an agent that starts again has it.
    pub(crate) async fn another_driver(&self) -> Arc<dyn Volumes> {
        let volumes = self.driver_at(&self.root).await.unwrap();
        assert_eq!(volumes.driver(), self.driver);
        volumes
    }

    /// One whose data directory is somewhere else.
    pub(crate) async fn driver_at(&self, place: &Path) -> Result<Arc<dyn Volumes>, Error> {
        let options = storage::Options {
            data_dir: place.to_owned(),
            driver: Some(self.driver),
            dm: DmOptions {
                instance: self.instance.clone(),
                reserve_bytes: RESERVE,
                pause: Duration::from_millis(20),
            },
        };
        storage::open(options).await
    }

    pub(crate) fn is_dm(&self) -> bool {
        self.driver == Driver::DmSnapshot
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn origin(&self) -> PathBuf {
        self.root.join("images/rootfs.ext4")
    }

    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.root.join("images").join(name)
    }

    /// A sandbox's directory, made.
    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        let dir = self.root.join("sandboxes").join(id);
        std::fs::DirBuilder::new().recursive(true).mode(0o710).create(&dir).unwrap();
        dir
    }

    pub(crate) fn request(&self, id: &str) -> Request {
        Request { origin: self.origin(), dir: self.dir(id), bytes_min: BYTES, owner: OWNER }
    }

    /// Makes a disk.
    pub(crate) async fn ensure(&self, id: &str) -> PathBuf {
        self.volumes().ensure(&self.request(id)).await.unwrap();
        self.dir(id)
    }

    /// Removes every disk, and asserts that the kernel has nothing of this place any more.
    pub(crate) async fn end(self) {
        for entry in std::fs::read_dir(self.root.join("sandboxes")).unwrap() {
            self.volumes().remove(&entry.unwrap().path()).await.unwrap();
        }
        for volumes in &self.volumes {
            volumes.close().await;
            volumes.close().await;
        }
        wait_for("the kernel to let go", || left(&self.instance, &self.root).is_empty()).await;
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

/// The disk as its machine opens it.
pub(crate) fn disk(dir: &Path) -> PathBuf {
    dir.join("disk")
}

/// Writes to a disk, past every cache.
pub(crate) fn write(dir: &Path, at: u64, bytes: &[u8]) {
    try_write(dir, at, bytes).unwrap();
}

pub(crate) fn try_write(dir: &Path, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(disk(dir))?;
    file.write_all_at(bytes, at)?;
    file.sync_all()
}

/// Reads a disk, and not what a cache remembers of it.
pub(crate) fn read(dir: &Path, at: u64, length: u64) -> Vec<u8> {
    let file = File::open(disk(dir)).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// All of a disk.
pub(crate) fn content(dir: &Path, volume: &Volume) -> Vec<u8> {
    assert_eq!(volume.path, Path::new("disk"));
    read(dir, 0, volume.bytes)
}

/// Whether all bytes are this one.
pub(crate) fn all(bytes: &[u8], wanted: u8) -> bool {
    // As one comparison, which is quick also in an emulated machine.
    bytes == vec![wanted; bytes.len()]
}

/// Returns once it is so.
pub(crate) async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Mapped devices of an instance, and loop devices on files below a directory.
pub(crate) fn left(instance: &Instance, root: &Path) -> Vec<String> {
    let prefix = format!("ovb-{instance}-");
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/sys/block").unwrap() {
        let device = entry.unwrap().path();
        let text = |name: &str| std::fs::read_to_string(device.join(name)).unwrap_or_default();
        if text("dm/name").starts_with(&prefix) {
            left.push(text("dm/name").trim().to_owned());
        }
        // The kernel says it of files whose name is gone.
        let shown = text("loop/backing_file").trim().trim_end_matches(" (deleted)").to_owned();
        if Path::new(&shown).starts_with(root) {
            left.push(shown);
        }
    }
    left
}

/// Runs one behaviour to its end, and clears up.
pub(crate) fn run<F: Future<Output = ()>>(
    driver: Driver,
    parent: &Path,
    number: usize,
    behaviour: impl FnOnce(Arc<Stage>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Arc::new(Stage::new(driver, parent, number).await);
        behaviour(stage.clone()).await;
        Arc::into_inner(stage).expect("the behaviour has ended").end().await;
    });
}
