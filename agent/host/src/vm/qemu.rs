//! The QEMU driver: checks the program once, then starts machines with it.

use std::{
    fmt,
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Child,
};

use async_trait::async_trait;
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use tokio::time::timeout;

use super::{
    Accelerator, Adopted, Error, Hypervisor, Machine, MachineSpec, Platform, Start,
    command_line::{self, Inherited},
    file,
    machine::{ANSWER_PATIENCE, QemuMachine},
    probe,
    process::{Launch, Process},
    tsc,
};
use crate::{
    cgroup::Group,
    net::{Namespace, tap},
};

const VERSION_MIN: (u32, u32) = (8, 2);
/// What a state has besides the guest's memory at most, in MiB; a log is never as long.
const OTHER_FILES_MB: u64 = 256;

/// A version of QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    number: (u32, u32),
    text: String,
}

impl Version {
    /// Reads `QEMU emulator version 10.0.2 (…)`.
    fn parse(output: &str) -> Option<Self> {
        let text = output.split_once("version ")?.1.split([' ', '\n']).next()?;
        let mut numbers = text.split('.').map(str::parse);
        let number = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { number, text: text.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: String,
    version: Version,
    accelerator: Accelerator,
    tsc_khz: u64,
}

impl Qemu {
    /// Checks the program's version and measures the host's time stamp counter, which takes 0.3 s.
    ///
    /// # Errors
    /// [`Error::Unusable`] when there is no QEMU of at least 8.2: `file:` migration and a read-only memory
    /// template need it.
    pub async fn open(program: &str, accelerator: Accelerator) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Unusable { program: program.to_owned(), reason };
        let asked =
            tokio::process::Command::new(program).arg("--version").kill_on_drop(true).output();
        let output = timeout(ANSWER_PATIENCE, asked)
            .await
            .map_err(|_| unusable("it does not answer --version".into()))?
            .map_err(|error| unusable(error.to_string()))?;
        let version = Version::parse(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| unusable("it does not say its version".into()))?;
        if version.number < VERSION_MIN {
            return Err(unusable(format!("it is version {version}")));
        }
        let measured = tokio::task::spawn_blocking(tsc::measure_khz);
        let tsc_khz = measured
            .await
            .expect("measuring does not panic")
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { program: program.to_owned(), version, accelerator, tsc_khz })
    }

    /// The same program with another accelerator.
    #[must_use]
    pub fn with_accelerator(self, accelerator: Accelerator) -> Self {
        Self { accelerator, ..self }
    }

    /// The program's version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Binds the sockets, opens the tap, and starts the process. Blocking.
    fn start(&self, spec: &MachineSpec, start: Start) -> io::Result<Child> {
        let directory = spec.directory.path();
        let control = bind(directory, file::CONTROL_SOCKET)?;
        let guest = bind(directory, file::GUEST_SOCKET)?;
        let log = spec.directory.add(file::LOG, 0)?;
        let group = match self.accelerator {
            Accelerator::Kvm => Some(std::fs::metadata(probe::KVM)?.gid()),
            Accelerator::Tcg => None,
        };
        let doors = spec.cgroup.as_ref().map(Group::doors).transpose()?.unwrap_or_default();
        let disk = spec.disk.as_ref().map(|disk| std::fs::metadata(directory.join(disk)));
        let host = command_line::Host {
            accelerator: self.accelerator,
            tsc_khz: self.tsc_khz,
            disk_is_device: matches!(disk, Some(Ok(disk)) if disk.file_type().is_block_device()),
        };
        let spawn = |tap: Option<OwnedFd>| {
            let numbers = Inherited {
                control: control.as_raw_fd(),
                guest: guest.as_raw_fd(),
                tap: tap.as_ref().map(AsRawFd::as_raw_fd),
            };
            let arguments = command_line::arguments(spec, start, host, numbers);
            let inherited = [numbers.control, numbers.guest].into_iter().chain(numbers.tap);
            Launch {
                program: &self.program,
                arguments: &arguments,
                directory,
                identity: spec.directory.owner(),
                file_bytes_max: file_bytes_max(spec),
                group,
                doors: &doors,
                inherited: &inherited.collect::<Vec<_>>(),
                log,
            }
            .spawn()
        };
        match &spec.nic {
            None => spawn(None),
            Some(nic) => Namespace::at(&nic.namespace).enter(|| spawn(Some(tap::open(&nic.tap)?))),
        }
    }
}

/// As long as any file needs to be that QEMU writes: the disk, or a state with all memory and the log.
fn file_bytes_max(spec: &MachineSpec) -> u64 {
    let others = (u64::from(spec.memory_mb) + OTHER_FILES_MB) << 20;
    let path = spec.disk.as_ref().map(|disk| spec.directory.path().join(disk));
    // Of a device, too. QEMU says best what is wrong with a disk that cannot be opened.
    let disk = path.and_then(|path| File::open(path).ok()?.seek(SeekFrom::End(0)).ok());
    others.max(disk.unwrap_or(0))
}

/// A listening socket that QEMU accepts from: it can be dialled before QEMU runs. That of an earlier machine of
/// the same directory is replaced.
fn bind(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    match std::fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let short = ShortPath::of(directory)?;
    Ok(UnixListener::bind(short.join(name))?.into())
}

/// A directory's path that is short enough for a socket's address, valid as long as this value.
#[derive(Debug)]
pub(super) struct ShortPath {
    handle: OwnedFd,
}

impl ShortPath {
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { handle: open(directory, flags, Mode::empty())? })
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd()))
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    fn platform(&self) -> Platform {
        Platform {
            hypervisor: format!("qemu {}", self.version),
            accelerator: self.accelerator,
            cpu: match self.accelerator {
                Accelerator::Kvm => format!("host: {}", probe::cpu_model()),
                Accelerator::Tcg => "max".into(),
            },
            devices: command_line::DEVICES.into(),
            tsc_khz: self.tsc_khz,
        }
    }

    async fn launch(&self, spec: &MachineSpec, start: Start) -> Result<Box<dyn Machine>, Error> {
        let failed = |source| Error::Io { name: spec.name.clone(), action: "start QEMU", source };
        let (qemu, owned) = (self.clone(), spec.clone());
        let child = tokio::task::spawn_blocking(move || qemu.start(&owned, start))
            .await
            .expect("starting does not panic")
            .map_err(failed)?;
        let process = Process::of_child(child).map_err(failed)?;
        let short = ShortPath::of(spec.directory.path()).map_err(failed)?;
        let machine = QemuMachine::connect(spec.clone(), process, short, start).await?;
        Ok(Box::new(machine))
    }

    async fn adopt(&self, spec: &MachineSpec) -> Result<Option<Adopted>, Error> {
        let failed = |source| Error::Io { name: spec.name.clone(), action: "find QEMU", source };
        let (dir, user) = (spec.directory.path().to_owned(), spec.directory.owner().uid);
        let found = tokio::task::spawn_blocking(move || Process::find(&dir, user));
        let found = found.await.expect("looking does not panic").map_err(failed)?;
        let Some(process) = found else { return Ok(None) };
        let short = ShortPath::of(spec.directory.path()).map_err(failed)?;
        let (machine, is_paused) = QemuMachine::adopt(spec.clone(), process, short).await?;
        Ok(Some(Adopted { machine: Box::new(machine), is_paused }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_debian_and_upstream_print_them() {
        let debian = Version::parse(
            "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) 2003-2025",
        );
        assert_eq!(debian.map(|version| version.number), Some((10, 0)));
        let upstream = Version::parse("QEMU emulator version 8.2.0\n").unwrap();
        assert_eq!((upstream.number, upstream.to_string().as_str()), ((8, 2), "8.2.0"));
        assert_eq!(Version::parse("something else"), None);
    }

    #[tokio::test]
    async fn missing_and_foreign_programs_are_refused_with_what_to_do() {
        for program in ["/no/such/qemu", "true"] {
            let error = Qemu::open(program, Accelerator::Tcg).await.unwrap_err();
            assert!(error.to_string().contains("install QEMU 8.2 or newer"), "{error}");
        }
    }
}
