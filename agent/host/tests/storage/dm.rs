//! What only dm snapshots do.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use devicemapper::{DM, DevId, DmFlags, DmName, DmOptions};
use nix::mount::{MsFlags, mount, umount};
use ovenbird_host::storage::{Error, Request};
use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    behaviours,
    contract::Behaviour,
    stage::{
        BYTES, MIB, ORIGIN, OWNER, RESERVE, Stage, all, disk, left, read, try_write, wait_for,
        write,
    },
};

pub(crate) const ALL: &[(&str, Behaviour)] = behaviours![
    disk_grows_while_more_than_its_reserve_is_written,
    full_host_fails_writes_and_no_reads,
    full_host_makes_no_disk_and_nothing_is_left,
    checkpoint_on_a_full_host_leaves_the_disk_and_the_older_one,
    one_loop_device_shows_an_origin_to_all,
    half_made_devices_are_replaced,
    half_made_devices_are_swept,
    devices_of_another_instance_are_left_alone,
    open_device_goes_when_it_is_closed,
    disk_is_put_together_again_when_the_kernel_lost_it,
    device_that_was_held_back_goes_on,
    restore_that_was_cut_off_can_be_found_and_repeated,
    origin_of_odd_length_is_refused,
    directory_without_device_files_is_refused,
];

fn name(stage: &Stage, id: &str) -> String {
    format!("ovb-{}-disk-{id}", stage.instance)
}

/// What the kernel says of a snapshot.
fn status(stage: &Stage, id: &str) -> String {
    let (dm, name) = (DM::new().unwrap(), name(stage, id));
    let id = DevId::Name(DmName::new(&name).unwrap());
    let options = DmOptions::default().set_flags(DmFlags::DM_NOFLUSH);
    dm.table_status(&id, options).unwrap().1[0].3.clone()
}

/// The bytes that can be written before it overflows, and all there are.
fn room(stage: &Stage, id: &str) -> (u64, u64) {
    let status = status(stage, id);
    let (used, total) = status.split(' ').next().unwrap().split_once('/').unwrap();
    let (used, total): (u64, u64) = (used.parse().unwrap(), total.parse().unwrap());
    ((total - used) * 512, total * 512)
}

/// Leaves no room on the file system until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn new(stage: &Stage) -> Self {
        let path = stage.root().join("filler");
        let file = File::create(&path).unwrap();
        let (mut at, mut step) = (0, 64 * MIB);
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), at, step) {
                Ok(()) => at += step,
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(error) => panic!("{error}"),
            }
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

async fn disk_grows_while_more_than_its_reserve_is_written(stage: Arc<Stage>) {
    let request = Request { bytes_min: 34 * MIB, ..stage.request("a") };
    stage.volumes().ensure(&request).await.unwrap();
    assert!(room(&stage, "a").1 <= RESERVE);
    let piece = vec![9; 256 * 1024];
    for at in (0..30 * MIB).step_by(piece.len()) {
        write(&request.dir, at, &piece);
        let has_room = || room(&stage, "a").0 >= RESERVE / 2;
        wait_for("more room", has_room).await;
    }
    assert!(room(&stage, "a").1 > 30 * MIB);
    assert!(all(&read(&request.dir, 0, 30 * MIB), 9));
    assert!(all(&read(&request.dir, 30 * MIB, 4 * MIB), 0));
}

async fn full_host_fails_writes_and_no_reads(stage: Arc<Stage>) {
    let (dir, volumes) = (stage.ensure("a").await, stage.volumes());
    write(&dir, 0, &[9; 4096]);
    let filler = Filler::new(&stage);
    let piece = vec![8; 64 * 1024];
    let written = (1..BYTES / MIB * 16).map(|n| try_write(&dir, n * 64 * 1024, &piece));
    let failed = written.filter_map(Result::err).next().expect("more than the room there is");
    assert_eq!(failed.raw_os_error(), Some(nix::libc::EIO), "{failed}");
    wait_for("the overflow", || status(&stage, "a") == "Overflow").await;
    assert!(all(&read(&dir, 0, 4096), 9));
    assert!(all(&read(&dir, 64 * 1024, 64 * 1024), 8));
    assert!(all(&read(&dir, 11 * MIB, MIB), 0));
    // What is not what its machine wrote is not handed on, now or later.
    drop(filler);
    let target = stage.target("published");
    for _ in 0..2 {
        let error = volumes.publish(&dir, &target).await.unwrap_err();
        assert!(matches!(error, Error::Overflowed(_)), "{error}");
        let error = volumes.checkpoint(&dir, "kept").await.unwrap_err();
        assert!(matches!(error, Error::Overflowed(_)), "{error}");
    }
    assert!(!target.exists());
    assert_eq!(volumes.checkpoints(&dir).await.unwrap(), [""; 0]);
}

async fn full_host_makes_no_disk_and_nothing_is_left(stage: Arc<Stage>) {
    let request = stage.request("a");
    let filler = Filler::new(&stage);
    for _ in 0..2 {
        let error = stage.volumes().ensure(&request).await.unwrap_err();
        assert!(matches!(error, Error::Full(_)), "{error}");
    }
    for _ in 0..2 {
        stage.volumes().remove(&request.dir).await.unwrap();
        assert_eq!(std::fs::read_dir(&request.dir).unwrap().count(), 0);
    }
    assert_eq!(left(&stage.instance, stage.root()), [""; 0]);
    drop(filler);
    stage.ensure("a").await;
}

async fn checkpoint_on_a_full_host_leaves_the_disk_and_the_older_one(stage: Arc<Stage>) {
    let (dir, volumes) = (stage.ensure("a").await, stage.volumes());
    write(&dir, 0, &[1; 4096]);
    volumes.checkpoint(&dir, "kept").await.unwrap();
    write(&dir, 0, &[2; 4096]);
    let filler = Filler::new(&stage);
    for _ in 0..2 {
        let error = volumes.checkpoint(&dir, "kept").await.unwrap_err();
        assert!(matches!(error, Error::Full(_)), "{error}");
        let error = volumes.restore(&dir, "kept", OWNER).await.unwrap_err();
        assert!(matches!(error, Error::Full(_)), "{error}");
    }
    assert!(all(&read(&dir, 0, 4096), 2));
    drop(filler);
    // A disk that could not be restored is looked after still.
    let piece = vec![7; 256 * 1024];
    for at in (MIB..6 * MIB).step_by(piece.len()) {
        write(&dir, at, &piece);
        wait_for("more room", || room(&stage, "a").0 >= RESERVE / 2).await;
    }
    volumes.restore(&dir, "kept", OWNER).await.unwrap();
    assert!(all(&read(&dir, 0, 4096), 1));
}

/// The files that loop devices show, by the number of those devices.
fn loops(stage: &Stage, name: &str) -> usize {
    let left = left(&stage.instance, stage.root());
    left.iter().filter(|path| Path::new(path).file_name().is_some_and(|n| n == name)).count()
}

async fn one_loop_device_shows_an_origin_to_all(stage: Arc<Stage>) {
    for id in ["a", "b", "c"] {
        stage.ensure(id).await;
    }
    // Of another driver, too.
    let another = stage.another_driver().await;
    another.ensure(&stage.request("d")).await.unwrap();
    assert_eq!((loops(&stage, "disk.origin"), loops(&stage, "disk.cow")), (1, 4));
    // The first one made it, and others still use it.
    another.remove(&stage.dir("a")).await.unwrap();
    assert_eq!((loops(&stage, "disk.origin"), loops(&stage, "disk.cow")), (1, 3));
    assert!(all(&read(&stage.dir("b"), 0, 4096), 5));
    for id in ["b", "c", "d"] {
        stage.volumes().remove(&stage.dir(id)).await.unwrap();
    }
    wait_for("the loop devices to go", || left(&stage.instance, stage.root()).is_empty()).await;
    another.close().await;
}

/// A device without a table, as an agent leaves it that is killed on the way.
fn make_half(stage: &Stage, id: &str) {
    make_device(&name(stage, id));
}

fn make_device(name: &str) {
    let dm = DM::new().unwrap();
    dm.device_create(DmName::new(name).unwrap(), None, DmOptions::default()).unwrap();
}

async fn half_made_devices_are_replaced(stage: Arc<Stage>) {
    make_half(&stage, "a");
    let dir = stage.ensure("a").await;
    assert!(all(&read(&dir, 0, 4096), 5));
    stage.volumes().remove(&dir).await.unwrap();
    make_half(&stage, "a");
    assert_eq!(stage.volumes().find(&dir).await.unwrap(), None);
    stage.volumes().remove(&dir).await.unwrap();
    assert_eq!(left(&stage.instance, stage.root()), [""; 0]);
}

async fn half_made_devices_are_swept(stage: Arc<Stage>) {
    make_half(&stage, "a");
    let dir = stage.ensure("b").await;
    std::fs::remove_dir_all(dir).unwrap();
    // Killed between the two steps that remove a device which is open.
    make_device(&format!("ovb-{}-gone-7", stage.instance));
    let another = stage.another_driver().await;
    assert_eq!(another.sweep(&[]).await.unwrap(), 2);
    assert_eq!(another.sweep(&[]).await.unwrap(), 0);
    wait_for("the loop devices to go", || left(&stage.instance, stage.root()).is_empty()).await;
    another.close().await;
}

async fn devices_of_another_instance_are_left_alone(stage: Arc<Stage>) {
    let other = format!("ovb-{}x-disk-a", stage.instance);
    let (dm, name) = (DM::new().unwrap(), DmName::new(&other).unwrap());
    dm.device_create(name, None, DmOptions::default()).unwrap();
    let swept = stage.volumes().sweep(&[]).await.unwrap();
    dm.device_remove(&DevId::Name(name), DmOptions::default()).unwrap();
    assert_eq!(swept, 0);
}

async fn open_device_goes_when_it_is_closed(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    let open = File::open(disk(&dir)).unwrap();
    stage.volumes().remove(&dir).await.unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, ORIGIN).unwrap();
    let left_open = left(&stage.instance, stage.root());
    assert!(left_open.iter().any(|name| name.contains("-gone-")), "{left_open:?}");
    drop(open);
    wait_for("the device to go", || left(&stage.instance, stage.root()).is_empty()).await;
}

async fn disk_is_put_together_again_when_the_kernel_lost_it(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 10 * MIB, &[9; 4096]);
    stage.volumes().checkpoint(&dir, "kept").await.unwrap();
    // As a host that starts again: the directory is there, the devices are not.
    stage.volumes().close().await;
    let another = stage.another_driver().await;
    another.sweep(&[]).await.unwrap();
    wait_for("the devices to go", || left(&stage.instance, stage.root()).is_empty()).await;
    std::fs::remove_file(stage.origin()).unwrap();
    for _ in 0..2 {
        let found = another.find(&dir).await.unwrap().unwrap();
        assert_eq!(found.bytes, BYTES);
        assert!(all(&read(&dir, 10 * MIB, 4096), 9));
        assert!(all(&read(&dir, 0, 4096), 5));
    }
    // It is looked after, too.
    let piece = vec![7; 256 * 1024];
    for at in (0..6 * MIB).step_by(piece.len()) {
        write(&dir, at, &piece);
        wait_for("more room", || room(&stage, "a").0 >= RESERVE / 2).await;
    }
    another.close().await;
}

async fn device_that_was_held_back_goes_on(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    let (dm, name) = (DM::new().unwrap(), name(&stage, "a"));
    let id = DevId::Name(DmName::new(&name).unwrap());
    let suspend = DmOptions::default().set_flags(DmFlags::DM_SUSPEND);
    dm.device_suspend(&id, suspend).unwrap();
    let another = stage.another_driver().await;
    another.find(&dir).await.unwrap().unwrap();
    write(&dir, 0, &[9; 4096]);
    dm.device_suspend(&id, suspend).unwrap();
    another.remove(&dir).await.unwrap();
    another.close().await;
}

async fn restore_that_was_cut_off_can_be_found_and_repeated(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 0, &[1; 4096]);
    stage.volumes().checkpoint(&dir, "kept").await.unwrap();
    write(&dir, 0, &[2; 4096]);
    // The copy was made, the devices are gone, the file was not yet put in its place.
    std::fs::copy(dir.join("disk@kept"), dir.join("disk.restored")).unwrap();
    stage.volumes().sweep(&[]).await.unwrap();
    let another = stage.another_driver().await;
    another.find(&dir).await.unwrap().unwrap();
    assert!(all(&read(&dir, 0, 4096), 2));
    another.restore(&dir, "kept", OWNER).await.unwrap();
    assert!(all(&read(&dir, 0, 4096), 1));
    another.close().await;
}

async fn origin_of_odd_length_is_refused(stage: Arc<Stage>) {
    let origin = std::fs::OpenOptions::new().write(true).open(stage.origin()).unwrap();
    origin.set_len(ORIGIN - 1).unwrap();
    let error = stage.volumes().ensure(&stage.request("a")).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

async fn directory_without_device_files_is_refused(stage: Arc<Stage>) {
    let place = stage.root().join("nodev");
    std::fs::create_dir(&place).unwrap();
    mount(Some("none"), &place, Some("tmpfs"), MsFlags::MS_NODEV, None::<&str>).unwrap();
    for _ in 0..2 {
        let error = stage.driver_at(&place).await.unwrap_err();
        assert!(matches!(error, Error::NoDmSnapshot(_)), "{error}");
    }
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    assert_eq!(left(&stage.instance, &place), [""; 0]);
    umount(&place).unwrap();
}
