//! Where control groups are on this host: what is mounted, where this process is in it, and where an agent's groups lie.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Error, dirs_in, failed};

/// Folders below which no group of an agent is looked for.
const DEPTH_MAX: usize = 8;

/// The homes of an agent in a hierarchy: the one that is meant, and others that are there. What lies below a group that
/// was given to another user is none: it would be that user who says what is in it.
pub(super) fn homes(mount: &Path, parent: &Path, name: &str) -> Vec<PathBuf> {
    let mut homes = vec![parent.join(name)];
    let mut level = vec![mount.to_owned()];
    for _ in 0..DEPTH_MAX {
        // A group can go while it is looked at.
        let next = level.iter().flat_map(|dir| dirs_in(dir).unwrap_or_default());
        let next: Vec<_> = next.filter(|dir| is_roots(dir)).collect();
        let found = next.iter().filter(|dir| dir.ends_with(name) && **dir != homes[0]).cloned();
        let found: Vec<_> = found.collect();
        homes.extend(found);
        level = next;
    }
    homes
}

fn is_roots(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|found| found.uid() == 0)
}

/// Whatever is where a group belongs: mounts, and the groups of this process.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) mounts: Vec<Mount>,
    /// Lines of `/proc/self/cgroup`: controllers, "" for version 2, and path.
    pub(super) own: Vec<(String, String)>,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) is_v2: bool,
    pub(super) point: PathBuf,
    /// Which group of the hierarchy is mounted here.
    pub(super) root: String,
    /// The controllers of a version 1 hierarchy, among other options.
    pub(super) options: Vec<String>,
}

impl Host {
    pub(super) fn look() -> Result<Self, Error> {
        let read = |path: &str| fs::read_to_string(path).map_err(failed("read", Path::new(path)));
        Ok(Self {
            mounts: read("/proc/self/mountinfo")?.lines().filter_map(Mount::parse).collect(),
            own: read("/proc/self/cgroup")?.lines().filter_map(own_group).collect(),
        })
    }

    /// Where this process is in a mounted hierarchy; its top, when that cannot be seen from here.
    pub(super) fn own_dir(&self, mount: &Mount) -> PathBuf {
        let controllers_match = |controllers: &str| {
            let mut names = controllers.split(',');
            let first = names.next().unwrap_or_default();
            if mount.is_v2 { first.is_empty() } else { mount.options.iter().any(|o| o == first) }
        };
        let own = self.own.iter().find(|(controllers, _)| controllers_match(controllers));
        let path = own.and_then(|(_, path)| Path::new(path).strip_prefix(&mount.root).ok());
        match path {
            Some(path) if !path.starts_with("..") => mount.point.join(path),
            _ => mount.point.clone(),
        }
    }
}

pub(super) fn own_group(line: &str) -> Option<(String, String)> {
    let mut fields = line.splitn(3, ':').skip(1);
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

impl Mount {
    /// A line of `/proc/self/mountinfo`, if it is one of control groups.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let is_v2 = match after.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = after.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Self { is_v2, point: point.replace("\\040", " ").into(), root: root.into(), options })
    }
}
