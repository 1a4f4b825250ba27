//! The suite in a machine whose kernel has a device-mapper.

use std::{
    fs::File,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, ColorSetting, Trial};
use ovenbird_host::storage::Driver;

use crate::{
    contract, dm,
    stage::{self, MIB},
    vm::{
        inside,
        outside::{Failed, Machine, succeed},
    },
};

/// Those for disks; the others are for networks.
const MODULES: &[&str] = &["virtio", "loop", "dm"];
/// The file system that disks are made on; sometimes it has to be full.
const DISK_BYTES: u64 = 192 << 20;

/// Boots the machine, from outside.
pub(crate) fn boot() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    File::create(&disk)?.set_len(DISK_BYTES)?;
    succeed(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk))?;
    let patience = Duration::from_secs(780);
    Machine { folder: folder.path(), disk: &disk, memory: "512M", arguments: "", patience }.run()
}

/// The first process, inside.
pub(crate) fn run() -> ExitCode {
    inside::run(MODULES, || {
        let conclusion = libtest_mimic::run(&arguments(), trials());
        if !conclusion.has_failed() {
            figures();
        }
        !conclusion.has_failed()
    })
}

fn arguments() -> Arguments {
    // The file system is one for all, and full for some.
    let color = Some(ColorSetting::Never);
    Arguments { test_threads: Some(1), color, ..Arguments::default() }
}

fn trials() -> Vec<Trial> {
    let all = contract::ALL.iter().chain(dm::ALL).enumerate();
    let trial = |(number, (name, behaviour)): (usize, &'static (&str, contract::Behaviour))| {
        Trial::test(*name, move || {
            let started = Instant::now();
            stage::run(Driver::DmSnapshot, Path::new("/data"), number, behaviour);
            println!("{:>7} ms  {name}", started.elapsed().as_millis());
            Ok(())
        })
    };
    all.map(trial).collect()
}

/// What each call takes here, on average.
fn figures() {
    const ROUNDS: u32 = 20;
    stage::run(Driver::DmSnapshot, Path::new("/data"), 999, |stage| async move {
        let volumes = stage.volumes();
        let (mut ensure, mut keep, mut restore, mut remove) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            let dir = stage.dir("a");
            let request = stage.request("a");
            ensure += timed(async { volumes.ensure(&request).await.map(drop) }).await;
            stage::write(&dir, 0, &vec![7; MIB as usize]);
            keep += timed(async { volumes.checkpoint(&dir, "kept").await.map(drop) }).await;
            restore +=
                timed(async { volumes.restore(&dir, "kept", stage::OWNER).await.map(drop) }).await;
            remove += timed(volumes.remove(&dir)).await;
        }
        let dir = stage.ensure("a").await;
        let target = stage.target("published");
        let publish = timed(async { volumes.publish(&dir, &target).await.map(drop) }).await;
        println!(
            "ensure {:?}, checkpoint of 1 MiB {:?}, restore {:?}, remove {:?}; publish of {} MiB {publish:?}",
            ensure / ROUNDS,
            keep / ROUNDS,
            restore / ROUNDS,
            remove / ROUNDS,
            stage::BYTES / MIB
        );
    });
}

async fn timed(call: impl Future<Output = Result<(), ovenbird_host::storage::Error>>) -> Duration {
    let started = Instant::now();
    call.await.unwrap();
    started.elapsed()
}
