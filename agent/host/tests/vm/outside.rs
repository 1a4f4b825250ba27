//! Around the machine: packs an initramfs and boots a microvm from it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use super::{EXIT_PORT, MODULES, PASSED};

pub(crate) type Failed = Box<dyn std::error::Error>;

/// What to boot.
pub(crate) struct Machine<'a> {
    /// A folder for its files.
    pub(crate) folder: &'a Path,
    /// An ext4 file system, which is mounted at `/data`.
    pub(crate) disk: &'a Path,
    pub(crate) memory: &'static str,
    /// More for the kernel's command line.
    pub(crate) arguments: &'a str,
    /// A busy machine is ten times slower than an idle one.
    pub(crate) patience: Duration,
}

impl Machine<'_> {
    /// Boots it with this program as its first process, and prints its console when it has ended.
    pub(crate) fn run(&self) -> Result<(), Failed> {
        let initrd = pack(self.folder)?;
        let log = self.folder.join("console");
        let (started, worked) = (Instant::now(), processor_seconds()?);
        let ended = self.boot(&initrd, &log)?;
        let mut console = Vec::new();
        File::open(&log)?.read_to_end(&mut console)?;
        let console = String::from_utf8_lossy(&console).replace('\r', "");
        println!(
            "{console}\nthe VM ran for {:.1} s, {} s of them on a processor",
            started.elapsed().as_secs_f64(),
            processor_seconds()? - worked,
        );
        match ended.map(|status| status.code()) {
            // The device makes an odd number of what it is told.
            Some(Some(code)) if code == i32::from(PASSED) * 2 + 1 => Ok(()),
            Some(code) => Err(format!("QEMU ended with {code:?}; its console is above").into()),
            None => Err("the machine hangs; its console is above".into()),
        }
    }

    fn boot(&self, initrd: &Path, log: &Path) -> Result<Option<ExitStatus>, Failed> {
        let khz = ovenbird_host::vm::tsc_khz()?;
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "microvm,acpi=on,pit=off,pic=off,rtc=on", "-accel", "tcg"])
            .args(["-cpu", "max", "-m", self.memory, "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
            .args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT},iosize=1")])
            .arg("-kernel")
            .arg(provided("OVENBIRD_KERNEL")?)
            .arg("-initrd")
            .arg(initrd)
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 tsc=reliable tsc_early_khz={khz} \
                 random.trust_cpu=on cryptomgr.notests audit=0 nowatchdog 8250.nr_uarts=1 {}",
                self.arguments
            ))
            .arg("-drive")
            .arg(format!("if=none,id=d0,format=raw,cache=unsafe,file={}", self.disk.display()))
            .args(["-device", "virtio-blk-device,drive=d0"])
            .stdin(Stdio::null())
            .stdout(File::create(log)?)
            .stderr(OpenOptions::new().append(true).open(log)?)
            .spawn()?;
        let end = Instant::now() + self.patience;
        loop {
            if let Some(status) = qemu.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > end {
                qemu.kill()?;
                qemu.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What children that have ended took; the rest of the time, somebody else had the processors.
fn processor_seconds() -> Result<i64, Failed> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(usage.user_time().tv_sec() + usage.system_time().tv_sec())
}

/// An initramfs with this program, its libraries, and the kernel's modules.
fn pack(folder: &Path) -> Result<PathBuf, Failed> {
    let root = folder.join("initramfs");
    for dir in ["dev", "proc", "sys", "tmp", "data"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    install(&std::env::current_exe()?, &root, Path::new("/init"))?;
    let modules = root.join(MODULES.trim_start_matches('/'));
    std::fs::create_dir(&modules)?;
    for entry in std::fs::read_dir(provided("OVENBIRD_HOST_MODULES")?)? {
        let entry = entry?;
        std::fs::copy(entry.path(), modules.join(entry.file_name()))?;
    }
    // The kernel opens it for the first process.
    succeed(Command::new("mknod").arg(root.join("dev/console")).args(["c", "5", "1"]))?;
    let initrd = folder.join("initrd");
    let mut find =
        Command::new("find").arg(".").current_dir(&root).stdout(Stdio::piped()).spawn()?;
    let names = find.stdout.take().ok_or("find has no output")?;
    let packed = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(&root)
        .stdin(names)
        .stdout(File::create(&initrd)?)
        .status()?;
    if !find.wait()?.success() || !packed.success() {
        return Err("the initramfs cannot be packed".into());
    }
    // With other sizes some kernels hang.
    let mut file = OpenOptions::new().append(true).open(&initrd)?;
    let bytes = usize::try_from(file.metadata()?.len())?;
    file.write_all(&vec![0; bytes.next_multiple_of(4096) - bytes])?;
    Ok(initrd)
}

/// Puts a program below `root` as `name`, without its debug information, and the libraries it is linked to.
pub(crate) fn install(program: &Path, root: &Path, name: &Path) -> Result<(), Failed> {
    let target = place(root, name)?;
    succeed(Command::new("strip").arg("-o").arg(&target).arg(program))?;
    add_libraries(program, root)
}

/// Puts the libraries that a program or library is linked to below `root`, and what loads them.
pub(crate) fn add_libraries(program: &Path, root: &Path) -> Result<(), Failed> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    for line in text.lines() {
        let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
            continue;
        };
        let copy = place(root, Path::new(library))?;
        if !copy.exists() {
            std::fs::copy(library, copy)?;
        }
    }
    Ok(())
}

/// Where an absolute path is below `root`; its folder is made.
pub(crate) fn place(root: &Path, path: &Path) -> Result<PathBuf, Failed> {
    let place = root.join(path.strip_prefix("/")?);
    std::fs::create_dir_all(place.parent().unwrap_or(root))?;
    Ok(place)
}

/// A file that `cargo dev test` provides.
pub(crate) fn provided(variable: &str) -> Result<PathBuf, Failed> {
    let path = std::env::var_os(variable)
        .ok_or_else(|| format!("{variable} is not set: run this by `cargo dev test`"))?;
    Ok(PathBuf::from(path))
}

/// Runs a program that has to succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
