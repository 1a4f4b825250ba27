//! Where the agents keep their data: a folder that can share blocks between files.
//!
//! If the file system of the run folder cannot, an XFS in a sparse file is mounted there, through a loop device
//! that the kernel frees on unmounting.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tokio::process::Command;

use crate::{program, progress::Ui};

const SIZE_MAX: u64 = 40 << 30;

/// A folder for the agents' data; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    mounted: bool,
    driver: &'static str,
}

impl Disk {
    /// Makes `dir` and, if need be, mounts a file system there.
    ///
    /// # Errors
    /// When the folder cannot be made. Where mounting fails (no loop devices, for example) disks are copied
    /// whole, and a notice says so.
    pub(crate) async fn prepare(ui: &Ui, dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.to_owned();
        if shares_blocks(dir).await {
            return Ok(Self { path, mounted: false, driver: "reflink" });
        }
        match mount(dir).await {
            Ok(()) => Ok(Self { path, mounted: true, driver: "reflink" }),
            Err(error) => {
                ui.notice(format!(
                    "disks are copied whole, which is slow: no XFS can be mounted: {error:#}"
                ));
                Ok(Self { path, mounted: false, driver: "copy" })
            }
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The agents' setting `storage` for it.
    pub(crate) fn driver(&self) -> &'static str {
        self.driver
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.path);
        }
    }
}

async fn shares_blocks(dir: &Path) -> bool {
    let (from, to) = (dir.join(".from"), dir.join(".to"));
    let tried = async {
        fs::write(&from, [1; 8192])?;
        let mut command = Command::new("cp");
        command.arg("--reflink=always").arg(&from).arg(&to);
        program::output(command).await
    };
    let shared = tried.await.is_ok();
    for file in [from, to] {
        // Missing where the copy failed.
        let _ = fs::remove_file(file);
    }
    shared
}

async fn mount(dir: &Path) -> anyhow::Result<()> {
    let image = dir.with_extension("xfs");
    let free = nix::sys::statvfs::statvfs(dir)?;
    let free = free.blocks_available() * free.fragment_size();
    // Sparse: it takes what is written, and must never promise more than there is.
    let size = SIZE_MAX.min(free / 10 * 8);
    fs::File::create(&image)?.set_len(size)?;
    let tried = async {
        let mut command = Command::new("mkfs.xfs");
        command.args(["-q", "-m", "reflink=1"]).arg(&image);
        program::output(command).await?;
        let mut command = Command::new("mount");
        command.args(["-t", "xfs", "-o", "loop,discard,noatime"]).arg(&image).arg(dir);
        program::output(command).await
    };
    let mounted = tried.await;
    // The loop device keeps the file; without a name it can never outlive the mount.
    fs::remove_file(&image)?;
    mounted.map(drop)
}

/// Unmounts `dir`; whoever still holds a file in it gets two seconds, and then keeps it to himself.
pub(super) fn unmount(dir: &Path) {
    for _ in 0..20 {
        match nix::mount::umount(dir) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
        }
    }
    let detached = nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH);
    eprintln!("{} was still in use when it was unmounted ({detached:?})", dir.display());
}
