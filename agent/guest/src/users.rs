//! Users and groups of the guest, read from `/etc/passwd` and `/etc/group`.
//!
//! A static program has no name services, and a sandbox has no others than these files anyway.

use std::{fs, io, path::Path};

/// Files that are longer are not what they claim to be.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// As whom a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group first, then every group that lists the user.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl User {
    /// Root as it is where `/etc/passwd` does not say otherwise.
    pub(crate) fn root() -> Self {
        Self { name: "root".into(), uid: 0, gid: 0, groups: vec![0], home: "/root".into() }
    }
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no user {0:?} in /etc/passwd")]
    Unknown(String),
    #[error("no group {0:?} in /etc/group")]
    UnknownGroup(String),
    #[error("{file} cannot be read")]
    Unreadable { file: &'static str, source: io::Error },
}

/// Looks a user up by name. An empty name is root, which needs no entry.
pub(crate) fn find(name: &str) -> Result<User, Error> {
    let wanted = if name.is_empty() { "root" } else { name };
    let found = find_in(wanted, &read("/etc/passwd")?, &read("/etc/group")?);
    match found {
        Some(user) => Ok(user),
        None if wanted == "root" => Ok(User::root()),
        None => Err(Error::Unknown(wanted.to_owned())),
    }
}

/// Ids of an owner, whose user and group are names or numbers. Without a group it is the user's primary one, or the
/// user's number where that has no entry. An empty user is root.
pub(crate) fn owner(user: &str, group: &str) -> Result<(u32, u32), Error> {
    owner_in(user, group, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn owner_in(user: &str, group: &str, passwd: &str, groups: &str) -> Result<(u32, u32), Error> {
    let user = if user.is_empty() { "root" } else { user };
    let (uid, primary) = match (find_in(user, passwd, groups), user.parse::<u32>()) {
        (Some(found), _) => (found.uid, found.gid),
        (None, Ok(uid)) => (uid, primary_group(uid, passwd).unwrap_or(uid)),
        (None, Err(_)) if user == "root" => (0, 0),
        (None, Err(_)) => return Err(Error::Unknown(user.to_owned())),
    };
    let gid = match (group, group.parse::<u32>()) {
        ("", _) => primary,
        (name, parsed) => group_named(name, groups)
            .or(parsed.ok())
            .ok_or_else(|| Error::UnknownGroup(name.to_owned()))?,
    };
    Ok((uid, gid))
}

fn primary_group(uid: u32, passwd: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let (of, gid) = (fields.next()?, fields.next()?);
        (of.parse() == Ok(uid)).then(|| gid.parse().ok())?
    })
}

fn group_named(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn read(file: &'static str) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable { file, source };
    let path = Path::new(file);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(unreadable(error)),
        Ok(meta) if !meta.is_file() || meta.len() > FILE_MAX => {
            return Err(unreadable(io::ErrorKind::InvalidData.into()));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find_in(name: &str, passwd: &str, group: &str) -> Option<User> {
    let mut user = passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [entry, _, uid, gid, _, home, ..] = fields[..] else { return None };
        if entry != name {
            return None;
        }
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let home = if home.starts_with('/') { home } else { "/" };
        Some(User { name: name.to_owned(), uid, gid, groups: vec![gid], home: home.to_owned() })
    })?;
    for line in group.lines() {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { continue };
        let Ok(gid) = gid.parse() else { continue };
        if members.split(',').any(|member| member.trim() == name) && !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    // The kernel takes no more.
    user.groups.truncate(65_536);
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        broken:x:nine:9::/:\n\
        short:x:7\n\
        app:x:1000:1000:An App,,,:/home/app:/bin/sh\n\
        homeless:x:1001:1001:::\n";
    const GROUP: &str =
        "root:x:0:\nsudo:x:27:app\napp:x:1000:\ndocker:x:999:other, app\nbad:x:x:app\nshort:x\n";

    #[test]
    fn user_has_its_primary_group_and_those_that_list_it() {
        let user = find_in("app", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (1000, 1000, "/home/app"));
        assert_eq!(user.groups, [1000, 27, 999]);
    }

    #[test]
    fn user_without_a_home_lives_in_the_root_folder() {
        assert_eq!(find_in("homeless", PASSWD, GROUP).unwrap().home, "/");
    }

    #[test]
    fn owner_is_named_or_numbered_and_its_group_is_its_own_unless_another_is_named() {
        let owner = |user, group| owner_in(user, group, PASSWD, GROUP).map_err(|it| it.to_string());
        assert_eq!(owner("", ""), Ok((0, 0)));
        assert_eq!(owner("app", ""), Ok((1000, 1000)));
        assert_eq!(owner("app", "docker"), Ok((1000, 999)));
        assert_eq!(owner("app", "33"), Ok((1000, 33)));
        assert_eq!(owner("1001", ""), Ok((1001, 1001)));
        assert_eq!(owner("4711", ""), Ok((4711, 4711)), "a number needs no entry");
        assert_eq!(owner("4711", "sudo"), Ok((4711, 27)));
        assert_eq!(owner("nobody", ""), Err("no user \"nobody\" in /etc/passwd".into()));
        assert_eq!(owner("app", "wheel"), Err("no group \"wheel\" in /etc/group".into()));
    }

    #[test]
    fn unknown_and_unreadable_entries_are_no_user() {
        for name in ["nobody", "broken", "short", "", "app:x"] {
            assert_eq!(find_in(name, PASSWD, GROUP), None, "{name:?}");
        }
    }
}
