//! Around the machine: makes its disk.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::vm::outside::{Failed, Machine, add_libraries, install, place, provided, succeed};

/// Programs that the agent and its tests start.
const PROGRAMS: &[&str] = &["qemu-system-x86_64", "setpriv", "nft", "cp", "ip", "debugfs"];
/// What QEMU loads beside its libraries.
const QEMU_FILES: &[&str] = &["/usr/share/qemu", "/usr/share/seabios"];
const QEMU_MODULES: &str = "/usr/lib/x86_64-linux-gnu/qemu";
const DISK_SIZE: &str = "4G";

pub(crate) fn boot() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    for dir in ["dev", "proc", "sys", "tmp", "run/netns", "etc"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    for name in PROGRAMS {
        let program = find(name)?;
        install(&program, &root, &Path::new("/usr/bin").join(name))?;
    }
    for place in QEMU_FILES.iter().map(Path::new).filter(|place| place.is_dir()) {
        copy(place, &root)?;
    }
    if Path::new(QEMU_MODULES).is_dir() {
        copy(Path::new(QEMU_MODULES), &root)?;
        for entry in std::fs::read_dir(QEMU_MODULES)? {
            add_libraries(&entry?.path(), &root)?;
        }
    }
    // At the same paths as here, so that nothing needs to be told where they are.
    let agent = Path::new(env!("CARGO_BIN_EXE_ovenbird-agent"));
    install(agent, &root, agent)?;
    let files = crate::inside::PROVIDED.iter().map(|variable| provided(variable));
    for file in files.collect::<Result<Vec<_>, _>>()? {
        copy(&file, &root)?;
    }
    // The kernel hands to its first process what it does not know.
    let variables = crate::inside::PROVIDED
        .iter()
        .map(|variable| Ok(format!("{variable}={} ", provided(variable)?.display())))
        .collect::<Result<String, Failed>>()?;
    let disk = folder.path().join("disk");
    succeed(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=1,root_owner=0:0", "-d"])
            .arg(&root)
            .arg(&disk)
            .arg(DISK_SIZE),
    )?;
    std::fs::remove_dir_all(&root)?;
    let patience = Duration::from_secs(780);
    let arguments = &format!("{variables} PATH=/usr/bin");
    Machine { folder: folder.path(), disk: &disk, memory: "2G", arguments, patience }.run()
}

/// Copies a file or folder below `root`, to the path that it has here.
fn copy(path: &Path, root: &Path) -> Result<(), Failed> {
    let target = place(root, path)?;
    let options = ["--recursive", "--dereference", "--reflink=auto", "--sparse=always"];
    succeed(Command::new("cp").args(options).arg(path).arg(target))
}

fn find(name: &str) -> Result<PathBuf, Failed> {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|it| it.is_file());
    Ok(found.ok_or_else(|| format!("{name} is not installed: run `cargo dev setup`"))?)
}
