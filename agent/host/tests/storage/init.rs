//! The test VM, from inside: its first process, which runs the suite and ends the machine with its outcome.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
};
use ovenbird_host::storage::Driver;

use crate::{
    contract, dm,
    stage::{self, MIB},
};

/// Where the kernel's modules lie, named in load order.
pub(crate) const MODULES: &str = "/modules";
/// What the machine ends with when all is well.
pub(crate) const PASSED: u8 = 21;
const FAILED: u8 = 22;
/// The port of QEMU's `isa-debug-exit`.
const EXIT_PORT: u64 = 0xf4;

/// Never returns: a kernel whose first process ends panics.
pub(crate) fn run() -> ExitCode {
    let outcome = std::panic::catch_unwind(|| {
        prepare();
        let conclusion = libtest_mimic::run(&arguments(), trials());
        if !conclusion.has_failed() {
            figures();
        }
        !conclusion.has_failed()
    });
    let code = if outcome.is_ok_and(|passed| passed) { PASSED } else { FAILED };
    let port = OpenOptions::new().write(true).open("/dev/port");
    let ended = port.and_then(|port| port.write_all_at(&[code], EXIT_PORT));
    println!("the machine cannot be ended: {ended:?}");
    loop {
        std::thread::park();
    }
}

fn prepare() {
    let none = None::<&str>;
    for (kind, place) in
        [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")]
    {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), none).unwrap();
    }
    let mut modules: Vec<_> =
        std::fs::read_dir(MODULES).unwrap().map(|entry| entry.unwrap().path()).collect();
    modules.sort();
    for module in modules.iter().filter(|module| is_needed(module)) {
        let file = std::fs::File::open(module).unwrap();
        finit_module(&file, c"", ModuleInitFlags::empty())
            .unwrap_or_else(|error| panic!("{}: {error}", module.display()));
    }
    mount(Some("/dev/vda"), "/data", Some("ext4"), MsFlags::empty(), none).unwrap();
}

/// Those for disks; the others are for networks.
fn is_needed(module: &Path) -> bool {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    ["virtio", "loop", "dm"].iter().any(|part| name.contains(part))
}

fn arguments() -> Arguments {
    // The file system is one for all, and full for some.
    Arguments { test_threads: Some(1), ..Arguments::default() }
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
