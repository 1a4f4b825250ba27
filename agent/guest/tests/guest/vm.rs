//! One microVM of a test: its own folder, disk and QEMU, which ends with it.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ovenbird_agent::guest_link::{Arrival, GuestClient, GuestLink, Token};

/// A cold boot on a machine that runs other tests at the same time.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Calibration of the guest's timer fails once in a while under load. It then ends by itself.
const BOOTS: u32 = 3;
const DISK_BYTES: u64 = 1 << 30;

pub(crate) struct Vm {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) link: GuestLink,
    pub(crate) client: GuestClient,
    pub(crate) token: Token,
    qemu: Qemu,
}

/// How a VM's memory comes to be.
#[derive(Clone, Copy)]
pub(crate) enum Memory<'a> {
    Fresh,
    /// Copied on write from this file.
    Fork(&'a Path),
}

struct Qemu(Child);

impl Qemu {
    /// Waits until the process is gone.
    async fn ended(&mut self) {
        while self.0.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Vm {
    /// Boots one and waits until it is ready.
    pub(crate) async fn boot() -> Self {
        for _ in 1..BOOTS {
            match Self::try_boot().await {
                Ok(vm) => return vm,
                Err(error) => eprintln!("booting once more: {error:#}"),
            }
        }
        Self::try_boot().await.unwrap()
    }

    async fn try_boot() -> Result<Self> {
        let folder = folder()?;
        copy_sparse(&setting("OVENBIRD_IMAGE"), &folder.path().join("disk"))?;
        File::options().write(true).open(folder.path().join("disk"))?.set_len(DISK_BYTES)?;
        let token = Token::new(rand::random());
        let arguments = format!("ovenbird.token={}", token.to_hex());
        let qemu = qemu(folder.path(), Memory::Fresh, &arguments)?;
        Self::connect(folder, qemu, token, Arrival::Running).await
    }

    /// Waits for the guest of a machine that was started.
    async fn connect(
        folder: tempfile::TempDir,
        mut qemu: Qemu,
        token: Token,
        arrival: Arrival,
    ) -> Result<Self> {
        let link = GuestLink::new(folder.path().join("guest.sock"), token);
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        let client = tokio::select! {
            client = link.connect(arrival, deadline) => client,
            () = qemu.ended() => bail!("QEMU ended; the console says: {}", console(folder.path())),
        }
        .with_context(|| format!("the console says: {}", console(folder.path())))?;
        Ok(Self { folder, link, client, token, qemu })
    }

    /// Starts a machine whose guest is not expected to answer, and waits until it has ended; its
    /// console.
    pub(crate) fn boot_to_its_end(arguments: &str) -> String {
        let folder = folder().unwrap();
        copy_sparse(&setting("OVENBIRD_IMAGE"), &folder.path().join("disk")).unwrap();
        let mut qemu = qemu(folder.path(), Memory::Fresh, arguments).unwrap();
        wait_for_exit(&mut qemu);
        console(folder.path())
    }

    /// Restores what [`crate::qmp`] saved in `saved`, as a fork, and leaves it stopped until the state
    /// is loaded.
    pub(crate) async fn fork(saved: &Path, token: Token) -> Self {
        let folder = folder().unwrap();
        copy_sparse(&saved.join("disk"), &folder.path().join("disk")).unwrap();
        let qemu = qemu(folder.path(), Memory::Fork(&saved.join("mem")), "").unwrap();
        crate::qmp::restore(folder.path(), &saved.join("state"));
        Self::connect(folder, qemu, token, Arrival::Restored).await.unwrap()
    }

    /// Connects again, as after a loss of the host's side.
    pub(crate) async fn reconnect(&self, arrival: Arrival) -> GuestClient {
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        self.link.connect(arrival, deadline).await.unwrap()
    }

    /// Waits until the machine has switched itself off.
    pub(crate) fn wait_for_end(&mut self) {
        wait_for_exit(&mut self.qemu);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn wait_for_exit(qemu: &mut Qemu) {
    let deadline = Instant::now() + READY_WITHIN;
    while qemu.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the machine runs on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn folder() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("ovenbird-guest-").tempdir()?)
}

pub(crate) fn console(folder: &Path) -> String {
    let bytes = std::fs::read(folder.join("console")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to])
        .status()
        .context("starting cp")?;
    if !status.success() {
        bail!("cp {} {}: {status}", from.display(), to.display());
    }
    Ok(())
}

fn setting(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run these tests by `cargo dev test`"))
        .into()
}

/// The command line of microVMs, with QEMU's own network behind the card: it leads nowhere.
fn qemu(folder: &Path, memory: Memory<'_>, arguments: &str) -> Result<Qemu> {
    let at = |name: &str| folder.join(name).display().to_string();
    let (file, sharing) = match memory {
        Memory::Fresh => (at("mem"), "share=on"),
        Memory::Fork(saved) => (saved.display().to_string(), "share=off,readonly=on,rom=off"),
    };
    let append = format!(
        "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable tsc_early_khz={} random.trust_cpu=on \
         cryptomgr.notests audit=0 nowatchdog 8250.nr_uarts=1 {arguments}",
        tsc_khz()
    );
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,memory-backend=m0"])
        .args(["-accel", "tcg,tb-size=64", "-cpu", "max", "-smp", "1", "-m", "256M"])
        .args([
            "-object",
            &format!("memory-backend-file,id=m0,size=256M,mem-path={file},{sharing}"),
        ])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", &format!("file:{}", at("console"))])
        .args([OsString::from("-kernel"), setting("OVENBIRD_KERNEL").into()])
        .args([OsString::from("-initrd"), setting("OVENBIRD_INITRD").into()])
        .args(["-append", &append])
        .args(["-drive", &format!("if=none,id=d0,file={},format=raw,cache=unsafe", at("disk"))])
        .args(["-device", "virtio-blk-device,drive=d0", "-device", "virtio-serial-device,id=vs0"])
        .args(["-chardev", &format!("socket,id=ch0,path={},server=on,wait=off", at("guest.sock"))])
        .args(["-device", "virtserialport,chardev=ch0,name=agent.0"])
        .args(["-netdev", "user,id=n0,restrict=on,net=172.16.0.0/24,host=172.16.0.1"])
        .args(["-device", "virtio-net-device,netdev=n0,mac=02:00:00:00:00:01"])
        .args(["-device", "virtio-balloon-device,free-page-reporting=on"])
        .args(["-device", "virtio-rng-device"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", at("qmp.sock"))])
        .stdin(Stdio::null());
    if matches!(memory, Memory::Fork(_)) {
        command.args(["-incoming", "defer"]);
    }
    Ok(Qemu(command.spawn().context("starting qemu-system-x86_64")?))
}

/// The host's TSC frequency, which the guest cannot find out by itself.
#[allow(unsafe_code)]
fn tsc_khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(|| {
        // SAFETY: every x86-64 processor has the instruction, and it changes nothing.
        let ticks = || unsafe { std::arch::x86_64::_rdtsc() };
        let (started, first) = (Instant::now(), ticks());
        while started.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let (elapsed, last) = (started.elapsed(), ticks());
        (last - first) * 1_000_000 / u64::try_from(elapsed.as_nanos()).unwrap()
    })
}
