//! An XFS on a file, mounted as long as it is needed.

use std::{fs::File, path::PathBuf, process::Command};

/// XFS is no smaller than 300 MiB; the file is sparse.
const BYTES: u64 = 512 << 20;

pub(crate) struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let sized = File::create(&image).and_then(|file| file.set_len(BYTES));
        sized.map_err(|error| error.to_string())?;
        succeed(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))?;
        let mounted = Self { folder };
        std::fs::create_dir(mounted.path()).map_err(|error| error.to_string())?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(image).arg(mounted.path()))?;
        Ok(mounted)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A behaviour that failed may still have files open there.
        let unmounted = succeed(Command::new("umount").arg("--lazy").arg(self.path()));
        if let Err(error) = unmounted {
            eprintln!("{error}");
        }
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}
