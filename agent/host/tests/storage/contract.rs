//! What every driver of disks does, as the agent relies on it.
//!
//! Each step that has several parts is repeated, made to fail, and undone twice.

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use futures::future::BoxFuture;
use ovenbird_host::storage::{Error, Request, Volume};

use crate::stage::{BYTES, MIB, ORIGIN, OWNER, Stage, all, content, disk, read, write};

pub(crate) type Behaviour = fn(Arc<Stage>) -> BoxFuture<'static, ()>;

/// Names functions of a stage.
#[macro_export]
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |stage| Box::pin($name(stage)))),*]
    };
}

pub(crate) const ALL: &[(&str, Behaviour)] = behaviours![
    disk_has_the_origins_bytes_its_own_length_and_its_owner,
    disk_that_need_not_be_longer_is_as_long_as_its_origin,
    disk_that_is_made_again_begins_anew,
    missing_origin_is_named_and_nothing_is_left,
    disk_that_is_removed_twice_is_gone_and_can_be_made_again,
    disk_that_is_open_can_be_removed_and_made_again,
    disks_of_one_origin_are_independent,
    disk_outlives_its_origin,
    published_file_has_what_was_written_and_is_sparse,
    publish_that_fails_changes_nothing_and_can_be_repeated,
    published_disk_is_an_origin,
    another_driver_finds_what_there_is,
    checkpoint_is_put_back_again_and_again,
    checkpoint_is_replaced_whole_or_not_at_all,
    restore_that_fails_leaves_the_disk,
    checkpoints_and_the_disk_share_no_room,
    sweep_leaves_what_shall_be_kept,
    used_grows_with_what_is_written,
];

async fn disk_has_the_origins_bytes_its_own_length_and_its_owner(stage: Arc<Stage>) {
    let volume = stage.volumes().ensure(&stage.request("a")).await.unwrap();
    assert_eq!(volume, Volume { path: "disk".into(), bytes: BYTES });
    let dir = stage.dir("a");
    let metadata = std::fs::metadata(disk(&dir)).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (61_000, 61_001, 0o600));
    assert_eq!(metadata.file_type().is_block_device(), stage.is_dm());
    let bytes = content(&dir, &volume);
    assert_eq!(bytes[..ORIGIN as usize], std::fs::read(stage.origin()).unwrap());
    assert!(all(&bytes[ORIGIN as usize..], 0));
    // On both sides of the origin's end.
    write(&dir, ORIGIN - MIB, &vec![9; 2 * MIB as usize]);
    assert!(all(&read(&dir, ORIGIN - MIB, 2 * MIB), 9));
    assert!(all(&read(&dir, ORIGIN + MIB, MIB), 0));
}

async fn disk_that_need_not_be_longer_is_as_long_as_its_origin(stage: Arc<Stage>) {
    let request = Request { bytes_min: 0, ..stage.request("a") };
    let volume = stage.volumes().ensure(&request).await.unwrap();
    assert_eq!(volume.bytes, ORIGIN);
    assert_eq!(content(&stage.dir("a"), &volume), std::fs::read(stage.origin()).unwrap());
}

async fn disk_that_is_made_again_begins_anew(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 0, &[9; 4096]);
    stage.ensure("a").await;
    assert!(all(&read(&dir, 0, 4096), 5));
}

async fn missing_origin_is_named_and_nothing_is_left(stage: Arc<Stage>) {
    let request = Request { origin: stage.target("missing"), ..stage.request("a") };
    for _ in 0..2 {
        let error = stage.volumes().ensure(&request).await.unwrap_err();
        assert!(matches!(&error, Error::NoOrigin(path) if *path == request.origin), "{error}");
    }
    for _ in 0..2 {
        stage.volumes().remove(&request.dir).await.unwrap();
        assert_eq!(std::fs::read_dir(&request.dir).unwrap().count(), 0);
    }
    stage.ensure("a").await;
}

async fn disk_that_is_removed_twice_is_gone_and_can_be_made_again(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 0, &[9; 4096]);
    for _ in 0..2 {
        stage.volumes().remove(&dir).await.unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
    assert_eq!(stage.volumes().used(&dir).await.unwrap(), 0);
    stage.ensure("a").await;
    assert!(all(&read(&dir, 0, 4096), 5));
    // The directory may go first.
    std::fs::remove_dir_all(&dir).unwrap();
    stage.volumes().remove(&dir).await.unwrap();
}

async fn disk_that_is_open_can_be_removed_and_made_again(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    let open = std::fs::File::open(disk(&dir)).unwrap();
    for _ in 0..2 {
        stage.volumes().remove(&dir).await.unwrap();
        assert!(!disk(&dir).exists());
    }
    stage.ensure("a").await;
    write(&dir, 0, &[9; 4096]);
    drop(open);
    assert!(all(&read(&dir, 0, 4096), 9));
}

async fn disks_of_one_origin_are_independent(stage: Arc<Stage>) {
    let before = std::fs::read(stage.origin()).unwrap();
    let volumes = stage.volumes();
    let requests = ["a", "b", "c"].map(|id| stage.request(id));
    let made = futures::future::join_all(requests.iter().map(|r| volumes.ensure(r))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let dirs = requests.map(|request| request.dir);
    for (dir, byte) in dirs.iter().zip([1, 2]) {
        write(dir, 4096, &vec![byte; 65_536]);
    }
    assert!(all(&read(&dirs[0], 4096, 65_536), 1));
    assert!(all(&read(&dirs[1], 4096, 65_536), 2));
    assert!(all(&read(&dirs[2], 4096, 65_536), 5));
    volumes.remove(&dirs[0]).await.unwrap();
    assert!(all(&read(&dirs[1], 4096, 65_536), 2));
    assert_eq!(std::fs::read(stage.origin()).unwrap(), before);
}

async fn disk_outlives_its_origin(stage: Arc<Stage>) {
    let before = std::fs::read(stage.origin()).unwrap();
    let dir = stage.ensure("a").await;
    std::fs::remove_file(stage.origin()).unwrap();
    assert_eq!(read(&dir, 0, ORIGIN), before);
    let gone = stage.volumes().ensure(&stage.request("b")).await.unwrap_err();
    assert!(matches!(gone, Error::NoOrigin(_)), "{gone}");
}

async fn published_file_has_what_was_written_and_is_sparse(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 3 * MIB, &vec![7; MIB as usize]);
    write(&dir, 10 * MIB, &[8; 4096]);
    write(&dir, 0, &vec![0; 131_072]);
    let before = read(&dir, 0, BYTES);
    let target = stage.target("published");
    let bytes = stage.volumes().publish(&dir, &target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), before);
    let metadata = std::fs::metadata(&target).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (0, 0, 0o444));
    // 1.4 MiB of data in blocks of 64 KiB; 12 MiB if zeros were kept.
    assert!((MIB..3 * MIB).contains(&bytes), "{bytes}");
    assert!(metadata.blocks() * 512 < 3 * MIB);
    assert!(!disk(&dir).exists());
    assert_eq!(stage.volumes().find(&dir).await.unwrap(), None);
}

async fn publish_that_fails_changes_nothing_and_can_be_repeated(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 0, &[9; 4096]);
    let nowhere = stage.target("no/such/folder");
    for _ in 0..2 {
        assert!(stage.volumes().publish(&dir, &nowhere).await.is_err());
        assert!(all(&read(&dir, 0, 4096), 9));
    }
    let target = stage.target("published");
    stage.volumes().publish(&dir, &target).await.unwrap();
    assert!(all(&std::fs::read(&target).unwrap()[..4096], 9));
    // There is nothing to publish any more, and what was is not touched.
    let other = stage.target("other");
    assert!(stage.volumes().publish(&dir, &other).await.is_err());
    assert!(!other.exists());
}

async fn published_disk_is_an_origin(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    write(&dir, 10 * MIB, &[9; 4096]);
    let target = stage.target("published");
    stage.volumes().publish(&dir, &target).await.unwrap();
    let request = Request { origin: target.clone(), bytes_min: 0, ..stage.request("b") };
    let volume = stage.volumes().ensure(&request).await.unwrap();
    assert_eq!(content(&request.dir, &volume), std::fs::read(&target).unwrap());
}

async fn another_driver_finds_what_there_is(stage: Arc<Stage>) {
    let dir = stage.dir("a");
    assert_eq!(stage.volumes().find(&dir).await.unwrap(), None);
    let volume = stage.volumes().ensure(&stage.request("a")).await.unwrap();
    write(&dir, 0, &[9; 4096]);
    let another = stage.another_driver().await;
    for _ in 0..2 {
        assert_eq!(another.find(&dir).await.unwrap(), Some(volume.clone()));
        assert!(all(&read(&dir, 0, 4096), 9));
    }
    another.checkpoint(&dir, "kept").await.unwrap();
    write(&dir, 0, &[8; 4096]);
    another.restore(&dir, "kept", OWNER).await.unwrap();
    assert!(all(&read(&dir, 0, 4096), 9));
    another.remove(&dir).await.unwrap();
    assert_eq!(another.find(&dir).await.unwrap(), None);
    another.close().await;
}

async fn checkpoint_is_put_back_again_and_again(stage: Arc<Stage>) {
    let (dir, volumes) = (stage.ensure("a").await, stage.volumes());
    assert_eq!(volumes.checkpoints(&dir).await.unwrap(), [""; 0]);
    write(&dir, 0, &[1; 4096]);
    assert!(volumes.checkpoint(&dir, "first").await.unwrap() > 0);
    write(&dir, 0, &[2; 4096]);
    write(&dir, 10 * MIB, &[2; 4096]);
    for _ in 0..2 {
        let owner = ovenbird_host::Identity { uid: 61_005, gid: 61_006 };
        let volume = volumes.restore(&dir, "first", owner).await.unwrap();
        assert_eq!(volume, Volume { path: "disk".into(), bytes: BYTES });
        assert_eq!(std::fs::metadata(disk(&dir)).unwrap().uid(), 61_005);
        assert!(all(&read(&dir, 0, 4096), 1));
        assert!(all(&read(&dir, 10 * MIB, 4096), 0));
        write(&dir, 0, &[3; 4096]);
    }
    // It stays with its directory, also without the disk.
    volumes.remove(&dir).await.unwrap();
    assert_eq!(volumes.checkpoints(&dir).await.unwrap(), ["first"]);
}

async fn checkpoint_is_replaced_whole_or_not_at_all(stage: Arc<Stage>) {
    let (dir, volumes) = (stage.ensure("a").await, stage.volumes());
    write(&dir, 0, &[1; 4096]);
    volumes.checkpoint(&dir, "kept").await.unwrap();
    write(&dir, 0, &[2; 4096]);
    // In the way of what is being written.
    let obstacle = dir.join("disk@kept+new");
    std::fs::create_dir(&obstacle).unwrap();
    for _ in 0..2 {
        assert!(volumes.checkpoint(&dir, "kept").await.is_err());
    }
    std::fs::remove_dir(&obstacle).unwrap();
    // It did not hold the disk up.
    write(&dir, 4096, &[2; 4096]);
    assert_eq!(volumes.checkpoints(&dir).await.unwrap(), ["kept"]);
    volumes.restore(&dir, "kept", OWNER).await.unwrap();
    assert!(all(&read(&dir, 0, 4096), 1));
    write(&dir, 0, &[3; 4096]);
    for _ in 0..2 {
        volumes.checkpoint(&dir, "kept").await.unwrap();
    }
    write(&dir, 0, &[4; 4096]);
    volumes.restore(&dir, "kept", OWNER).await.unwrap();
    assert!(all(&read(&dir, 0, 4096), 3));
}

async fn restore_that_fails_leaves_the_disk(stage: Arc<Stage>) {
    let (dir, volumes) = (stage.ensure("a").await, stage.volumes());
    write(&dir, 0, &[1; 4096]);
    volumes.checkpoint(&dir, "kept").await.unwrap();
    write(&dir, 0, &[2; 4096]);
    let missing = volumes.restore(&dir, "missing", OWNER).await.unwrap_err();
    assert!(matches!(missing, Error::NoCheckpoint { .. }), "{missing}");
    for name in ["", "../kept", "Kept", ".kept", "kept+new"] {
        let bad = volumes.restore(&dir, name, OWNER).await.unwrap_err();
        assert!(matches!(bad, Error::CheckpointName(_)), "{bad}");
        let bad = volumes.checkpoint(&dir, name).await.unwrap_err();
        assert!(matches!(bad, Error::CheckpointName(_)), "{bad}");
    }
    let new = if stage.is_dm() { "disk.restored+new" } else { "disk+new" };
    std::fs::create_dir(dir.join(new)).unwrap();
    for _ in 0..2 {
        assert!(volumes.restore(&dir, "kept", OWNER).await.is_err());
        assert!(all(&read(&dir, 0, 4096), 2));
    }
    std::fs::remove_dir(dir.join(new)).unwrap();
    volumes.restore(&dir, "kept", OWNER).await.unwrap();
    assert!(all(&read(&dir, 0, 4096), 1));
}

async fn checkpoints_and_the_disk_share_no_room(stage: Arc<Stage>) {
    let (dir, volumes) = (stage.ensure("a").await, stage.volumes());
    write(&dir, 0, &vec![1; MIB as usize]);
    volumes.checkpoint(&dir, "one").await.unwrap();
    write(&dir, 0, &vec![2; MIB as usize]);
    volumes.checkpoint(&dir, "two").await.unwrap();
    for (name, byte) in [("one", 1), ("two", 2), ("one", 1)] {
        volumes.restore(&dir, name, OWNER).await.unwrap();
        assert!(all(&read(&dir, 0, MIB), byte), "{name}");
        write(&dir, 0, &vec![3; MIB as usize]);
    }
}

async fn sweep_leaves_what_shall_be_kept(stage: Arc<Stage>) {
    let (kept, other) = (stage.ensure("a").await, stage.ensure("b").await);
    write(&kept, 0, &[9; 4096]);
    let another = stage.another_driver().await;
    let expected = usize::from(stage.is_dm());
    assert_eq!(another.sweep(std::slice::from_ref(&kept)).await.unwrap(), expected);
    assert_eq!(another.sweep(std::slice::from_ref(&kept)).await.unwrap(), 0);
    assert!(all(&read(&kept, 0, 4096), 9));
    another.remove(&other).await.unwrap();
    another.close().await;
}

async fn used_grows_with_what_is_written(stage: Arc<Stage>) {
    let dir = stage.ensure("a").await;
    let volumes = stage.volumes();
    let before = volumes.used(&dir).await.unwrap();
    // Where the origin has a hole.
    write(&dir, 9 * MIB, &vec![9; 2 * MIB as usize]);
    let after = volumes.used(&dir).await.unwrap();
    assert!((2 * MIB..3 * MIB).contains(&(after - before)), "{before} {after}");
    assert_eq!(volumes.used(Path::new("/no/such/sandbox")).await.unwrap(), 0);
}
