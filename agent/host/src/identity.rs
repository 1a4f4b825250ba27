//! Under which names and numbers one sandbox appears on the host.

use std::fmt;

/// The user and group a sandbox's machine runs as. Each slot has its own, so that no machine can read the
/// files of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id, never 0.
    pub uid: u32,
    /// Group id, never 0.
    pub gid: u32,
}

/// A place for one sandbox on this host. Its network names, addresses and user id derive from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

impl Slot {
    /// Slots are below this, so that an interface name with a slot in it fits into 15 bytes.
    pub const END: u16 = 1000;
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of an agent among those of one machine: 1 to 8 of `[a-z0-9]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(String);

/// Not an instance name.
#[derive(Debug, thiserror::Error)]
#[error("instance name {0:?} is not 1 to 8 characters of [a-z0-9]")]
pub struct InvalidInstance(String);

impl Instance {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is not 1 to 8 characters of `[a-z0-9]`.
    pub fn new(name: &str) -> Result<Self, InvalidInstance> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || name.len() > 8 || !name.bytes().all(known) {
            return Err(InvalidInstance(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Instance;

    #[test]
    fn instance_names_fit_into_interface_names() {
        assert!(Instance::new("main0").is_ok());
        for bad in ["", "toolongname", "Upper", "a-b", "a/b", "ä"] {
            assert!(Instance::new(bad).is_err(), "{bad}");
        }
    }
}
