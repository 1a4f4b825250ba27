//! Loop devices: plain files as block devices, for the device-mapper.
//!
//! Each of them clears itself when its last user closes it, and the mapped device on it is such a user. So the
//! kernel alone counts users, and an agent that dies between two steps leaves none behind.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::PathBuf,
};

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LO_NAME_SIZE, loop_config, loop_info64,
};
use nix::{errno::Errno, libc};

const CONTROL: &str = "/dev/loop-control";
/// Somebody else may take the free device first.
const ATTEMPTS: usize = 64;

#[allow(unsafe_code, missing_docs)]
mod ioctl {
    use linux_raw_sys::loop_device::{
        LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LOOP_GET_STATUS64, LOOP_SET_CAPACITY, loop_config,
        loop_info64,
    };

    nix::ioctl_none_bad!(get_free, LOOP_CTL_GET_FREE);
    nix::ioctl_write_ptr_bad!(configure, LOOP_CONFIGURE, loop_config);
    nix::ioctl_read_bad!(get_status, LOOP_GET_STATUS64, loop_info64);
    nix::ioctl_none_bad!(set_capacity, LOOP_SET_CAPACITY);
}

const EMPTY: loop_info64 = loop_info64 {
    lo_device: 0,
    lo_inode: 0,
    lo_rdevice: 0,
    lo_offset: 0,
    lo_sizelimit: 0,
    lo_number: 0,
    lo_encrypt_type: 0,
    lo_encrypt_key_size: 0,
    lo_flags: 0,
    lo_file_name: [0; 64],
    lo_crypt_name: [0; 64],
    lo_encrypt_key: [0; 32],
    lo_init: [0; 2],
};

/// Whether a device can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A loop device that this value keeps.
#[derive(Debug)]
pub(super) struct Loop {
    device: File,
}

impl Loop {
    /// A new device on a file, which bears `mark` for people who list devices.
    pub(super) fn attach(file: &File, access: Access, mark: &str) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        let mut info = EMPTY;
        info.lo_flags = LO_FLAGS_AUTOCLEAR as u32;
        if access == Access::Read {
            info.lo_flags |= LO_FLAGS_READ_ONLY as u32;
        }
        info.lo_file_name = name(mark);
        let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
        // No direct I/O: the file system's page cache is the only one between a machine and the medium.
        let config = loop_config { fd, block_size: 0, info, __reserved: [0; 8] };
        for _ in 0..ATTEMPTS {
            #[allow(unsafe_code)]
            // SAFETY: takes no argument beyond the open descriptor.
            let number = unsafe { ioctl::get_free(control.as_raw_fd()) }?;
            let device = OpenOptions::new()
                .read(true)
                .write(access == Access::Write)
                .custom_flags(libc::O_CLOEXEC)
                .open(format!("/dev/loop{number}"))?;
            #[allow(unsafe_code)]
            // SAFETY: `config` is as the kernel declares it and outlives the call.
            match unsafe { ioctl::configure(device.as_raw_fd(), &raw const config) } {
                Ok(_) => return Ok(Self { device }),
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EBUSY.into())
    }

    /// The device that shows this very file to be read and bears `mark`: one that is there, or a new one.
    /// The caller sees to it that two such calls do not come at the same time, or there will be two devices.
    pub(super) fn shared(file: &File, mark: &str) -> io::Result<Self> {
        let metadata = file.metadata()?;
        for name in bound()? {
            // One that goes at this moment does not open.
            let Ok(device) = File::open(PathBuf::from("/dev").join(name)) else { continue };
            let Some(info) = status(&device)? else { continue };
            let is_it = info.lo_device == metadata.dev()
                && info.lo_inode == metadata.ino()
                && info.lo_file_name == self::name(mark)
                && info.lo_flags & LO_FLAGS_READ_ONLY as u32 != 0;
            if is_it {
                return Ok(Self { device });
            }
        }
        Self::attach(file, Access::Read, mark)
    }

    /// The device of a number as in a table, when it shows this very file.
    pub(super) fn of(number: &str, file: &File) -> io::Result<Self> {
        let link = std::fs::read_link(PathBuf::from("/sys/dev/block").join(number))?;
        let name = link.file_name().ok_or(io::ErrorKind::NotFound)?;
        let device = File::open(PathBuf::from("/dev").join(name))?;
        let metadata = file.metadata()?;
        match status(&device)? {
            Some(info) if info.lo_device == metadata.dev() && info.lo_inode == metadata.ino() => {
                Ok(Self { device })
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// `major:minor`, as tables have it.
    pub(super) fn number(&self) -> io::Result<String> {
        let device = self.device.metadata()?.rdev();
        Ok(format!("{}:{}", libc::major(device), libc::minor(device)))
    }

    /// Makes the device as long as its file has become.
    pub(super) fn grow(&self) -> io::Result<()> {
        #[allow(unsafe_code)]
        // SAFETY: takes no argument beyond the open descriptor.
        unsafe { ioctl::set_capacity(self.device.as_raw_fd()) }?;
        Ok(())
    }
}

/// The names of the loop devices that show a file.
fn bound() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("loop") && entry.path().join("loop").is_dir() {
            names.push(name);
        }
    }
    Ok(names)
}

fn status(device: &File) -> io::Result<Option<loop_info64>> {
    let mut info = EMPTY;
    #[allow(unsafe_code)]
    // SAFETY: `info` is as the kernel declares it and outlives the call.
    match unsafe { ioctl::get_status(device.as_raw_fd(), &raw mut info) } {
        Ok(_) => Ok(Some(info)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn name(mark: &str) -> [u8; LO_NAME_SIZE as usize] {
    let mut name = [0; LO_NAME_SIZE as usize];
    // The last byte stays zero.
    let length = mark.len().min(name.len() - 1);
    name[..length].copy_from_slice(&mark.as_bytes()[..length]);
    name
}
