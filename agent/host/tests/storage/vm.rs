//! The test VM, from outside: a microvm with the guest kernel, this program as its first process, and a disk.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::init::{MODULES, PASSED};

/// A busy machine boots and tests ten times slower than an idle one.
const PATIENCE: Duration = Duration::from_secs(400);
const MEMORY: &str = "512M";
/// The file system that disks are made on; one of its behaviours is to be full.
const DISK_BYTES: u64 = 192 << 20;

type Failed = Box<dyn std::error::Error>;

/// Runs the suite in there, and says which behaviours failed.
pub(crate) fn run() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    boot(folder.path()).map_err(|error| error.to_string())
}

fn boot(folder: &Path) -> Result<(), Failed> {
    let initrd = pack(folder)?;
    let disk = folder.join("disk");
    File::create(&disk)?.set_len(DISK_BYTES)?;
    succeed(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk))?;
    let khz = ovenbird_host::vm::tsc_khz()?;
    let log = folder.join("console");
    let started = Instant::now();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "microvm,acpi=on,pit=off,pic=off,rtc=on", "-accel", "tcg", "-cpu", "max"])
        .args(["-m", MEMORY, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-kernel")
        .arg(provided("OVENBIRD_KERNEL")?)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet panic=-1 tsc=reliable tsc_early_khz={khz} random.trust_cpu=on \
             cryptomgr.notests audit=0 nowatchdog 8250.nr_uarts=1"
        ))
        .args(["-drive", &format!("if=none,id=d0,format=raw,cache=unsafe,file={}", disk.display())])
        .args(["-device", "virtio-blk-device,drive=d0"])
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(OpenOptions::new().append(true).open(&log)?)
        .spawn()?;
    let end = started + PATIENCE;
    let status = loop {
        match qemu.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() > end => {
                qemu.kill()?;
                qemu.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut console = Vec::new();
    File::open(&log)?.read_to_end(&mut console)?;
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    println!("{console}\nthe VM ran for {:.1} s", started.elapsed().as_secs_f64());
    match status.map(|status| status.code()) {
        // The device makes an odd number of what it is told.
        Some(Some(code)) if code == i32::from(PASSED) * 2 + 1 => Ok(()),
        Some(code) => Err(format!("QEMU ended with {code:?}; its console is above").into()),
        None => Err("the suite hangs; its console is above".into()),
    }
}

/// An initramfs with this program, its libraries, and the kernel's modules.
fn pack(folder: &Path) -> Result<PathBuf, Failed> {
    let root = folder.join("root");
    let program = std::env::current_exe()?;
    for dir in ["dev", "proc", "sys", "run", "tmp", "data"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    // Without debug information it is a tenth of the size.
    succeed(Command::new("strip").arg("-o").arg(root.join("init")).arg(&program))?;
    for library in libraries(&program)? {
        let copy = root.join(library.strip_prefix("/")?);
        std::fs::create_dir_all(copy.parent().unwrap_or(&root))?;
        std::fs::copy(&library, copy)?;
    }
    let modules = root.join(MODULES.trim_start_matches('/'));
    std::fs::create_dir(&modules)?;
    for entry in std::fs::read_dir(provided("OVENBIRD_HOST_MODULES")?)? {
        let entry = entry?;
        std::fs::copy(entry.path(), modules.join(entry.file_name()))?;
    }
    // The kernel opens it for the first process.
    succeed(Command::new("mknod").arg(root.join("dev/console")).args(["c", "5", "1"]))?;
    let initrd = folder.join("initrd");
    let mut list =
        Command::new("find").arg(".").current_dir(&root).stdout(Stdio::piped()).spawn()?;
    let names = list.stdout.take().ok_or("find has no output")?;
    let packed = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(&root)
        .stdin(names)
        .stdout(File::create(&initrd)?)
        .status()?;
    if !list.wait()?.success() || !packed.success() {
        return Err("the initramfs cannot be packed".into());
    }
    // With other sizes some kernels hang.
    let mut file = OpenOptions::new().append(true).open(&initrd)?;
    let bytes = usize::try_from(file.metadata()?.len())?;
    file.write_all(&vec![0; bytes.next_multiple_of(4096) - bytes])?;
    Ok(initrd)
}

/// The libraries a program is linked to, and what loads them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Failed> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let paths = text.lines().filter_map(|line| {
        line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
    });
    Ok(paths.collect())
}

fn provided(variable: &str) -> Result<PathBuf, Failed> {
    let path = std::env::var_os(variable)
        .ok_or_else(|| format!("{variable} is not set: run this by `cargo dev test`"))?;
    Ok(PathBuf::from(path))
}

fn succeed(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
