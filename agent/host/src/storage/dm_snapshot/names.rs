//! Names of mapped devices: they say whose they are, so that they can be found again.
//!
//! ```text
//!  ovb-<instance>-disk-<sandbox>   what the machine uses
//!  ovb-<instance>-base-<sandbox>   the origin made longer, where the disk is longer than it
//!  ovb-<instance>-gone-<minor>     removed while somebody had it open: goes when that one closes it
//! ```

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Instance;

/// A name has room for 127 bytes.
const KEY_MAX: usize = 80;

/// The names of one sandbox's devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Names {
    pub(super) disk: String,
    pub(super) base: String,
}

impl Names {
    /// By the last part of the directory's path, which names the sandbox.
    pub(super) fn of(instance: &Instance, dir: &Path) -> Self {
        let key = key(dir);
        Self {
            disk: format!("{}{key}", disk_prefix(instance)),
            base: format!("{}{key}", base_prefix(instance)),
        }
    }
}

pub(super) fn disk_prefix(instance: &Instance) -> String {
    format!("ovb-{instance}-disk-")
}

pub(super) fn base_prefix(instance: &Instance) -> String {
    format!("ovb-{instance}-base-")
}

pub(super) fn gone_prefix(instance: &Instance) -> String {
    format!("ovb-{instance}-gone-")
}

pub(super) fn gone(instance: &Instance, minor: u32) -> String {
    format!("{}{minor}", gone_prefix(instance))
}

/// The mark of a loop device.
pub(super) fn mark(instance: &Instance, what: &str) -> String {
    format!("ovb-{instance}-{what}")
}

fn key(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && name.len() <= KEY_MAX && name.bytes().all(known) {
        return name.into_owned();
    }
    // No name that is used as it is has this sign.
    format!("#{:x}", Sha256::digest(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_differ_where_sandboxes_do() {
        let instance = Instance::new("main0123").unwrap();
        let names = |id: &str| Names::of(&instance, &Path::new("/data/sandboxes").join(id));
        assert_eq!(names("sbx-1").disk, "ovb-main0123-disk-sbx-1");
        assert_ne!(names("base-1").disk, names("1").base);
        let long = "x".repeat(127);
        let (one, other) = (names(&format!("{long}1")), names(&format!("{long}2")));
        assert_ne!(one.disk, other.disk);
        assert!(one.disk.len() < 128 && one.base.len() < 128);
    }
}
