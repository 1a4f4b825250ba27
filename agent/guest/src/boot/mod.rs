//! From the kernel's first call to a machine that can serve, in phases that run once and in this
//! order. Whatever fails ends the boot; the host reads the console and tries again.

mod args;
mod disk;
mod mounts;
mod net;

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    sys::resource::{Resource, setrlimit},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, sethostname},
};
use ovenbird_guest_protocol::Token;

use crate::{
    clock::{self, Timer},
    console::say,
    exec::Cgroups,
};
use args::Args;

/// Files a process may have open, the sandbox's included: what build tools expect to find.
const OPEN_FILES: u64 = 65_536;

/// What serving needs from the boot.
pub(crate) struct Booted {
    pub(crate) token: Token,
    pub(crate) cgroups: Cgroups,
    pub(crate) facts: &'static Facts,
}

/// What is known once and for ever.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) boot_id: [u8; 16],
    pub(crate) timer: Timer,
}

/// Why the machine did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Args(#[from] args::Error),
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    #[error("timer check")]
    Timer(#[from] clock::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error("network")]
    Net(#[from] net::Error),
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// Brings the machine up. Single-threaded from beginning to end.
pub(crate) fn run() -> Result<Booted, Error> {
    mounts::early()?;
    open_console().map_err(system("opening the console"))?;
    let line = fs::read_to_string("/proc/cmdline").map_err(system("reading /proc/cmdline"))?;
    let args = Args::parse(&line)?;
    let timer = clock::check_timer()?;
    // Out of memory in the sandbox is to end the sandbox's processes, never this one.
    fs::write("/proc/self/oom_score_adj", "-1000").map_err(system("oom_score_adj"))?;
    load_modules(Path::new("/modules")).map_err(system("reading /modules"))?;
    disk::mount_root()?;
    mounts::switch_root()?;
    mounts::late()?;
    if let Err(error) = disk::grow_root() {
        // A sandbox with too small a disk is of more use than none.
        say!("the root file system keeps its size: {}", crate::console::Chain(&error));
    }
    net::set_up()?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .map_err(|errno| system("raising the open files limit")(errno.into()))?;
    sethostname(&args.hostname).map_err(|errno| system("hostname")(errno.into()))?;
    write_defaults(&args);
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(system("reading /proc/meminfo"))?;
    let memory = |name| crate::service::memory(&meminfo, name);
    let cgroups = Cgroups::create(memory("MemTotal:"), memory("MemAvailable:"))
        .map_err(system("making a control group"))?;
    let boot_id = boot_id().map_err(system("reading the boot id"))?;
    let facts = Box::leak(Box::new(Facts { boot_id, timer }));
    Ok(Booted { token: args.token, cgroups, facts })
}

/// The initramfs has no device node, so the kernel could open no console for this program.
fn open_console() -> io::Result<()> {
    let console = fs::OpenOptions::new().read(true).write(true).open("/dev/console")?;
    dup2_stdin(&console)?;
    dup2_stdout(&console)?;
    dup2_stderr(&console)?;
    Ok(())
}

/// Loads what the initramfs brings, in the order of the file names. A module that does not load is
/// said and passed over: what really needs it fails by itself.
fn load_modules(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                files.push(entry?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    files.sort();
    for file in files {
        let module = fs::File::open(&file)?;
        match finit_module(&module, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => say!("{} does not load: {error}", file.display()),
        }
    }
    Ok(())
}

/// Files and links that programs expect and an image may lack. What the image has is left alone.
fn write_defaults(args: &Args) {
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ];
    for (link, target) in links {
        said(link, symlink(target, link));
    }
    let resolv: String = args.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (path, content) in [
        ("/etc/resolv.conf", resolv.as_str()),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ] {
        // Empty counts as missing, and so does a link to a file that a resolver daemon would write.
        if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
            continue;
        }
        let _ = fs::remove_file(path);
        said(path, fs::write(path, content));
    }
    if !Path::new("/tmp").exists() {
        said("/tmp", fs::create_dir("/tmp"));
        said("/tmp", fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)));
    }
}

fn said(path: &str, result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => say!("{path}: {error}"),
    }
}

/// The kernel's own, a UUID in text.
fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(number.to_be_bytes())
}

/// The descriptor's number, for requests that nix has no safe form of.
pub(crate) fn raw(file: &impl AsRawFd) -> i32 {
    file.as_raw_fd()
}
