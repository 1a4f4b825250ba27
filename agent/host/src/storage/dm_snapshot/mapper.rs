//! The kernel's device-mapper, as far as snapshots need it. Blocking.

use std::io;

use devicemapper::{DM, DevId, Device, DmError, DmFlags, DmName, DmOptions, errors};

/// As the library wants a target.
type Line = (u64, u64, String, String);

/// Where udev is spoken to, and what answers for the device-mapper there.
const UDEV: &str = "/run/udev/control";
const UDEV_RULES: [&str; 3] = ["/usr/lib/udev/rules.d", "/lib/udev/rules.d", "/etc/udev/rules.d"];
const UDEV_RULE: &str = "95-dm-notify.rules";

/// See the module.
pub(super) struct Mapper {
    dm: DM,
}

impl std::fmt::Debug for Mapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mapper")
    }
}

/// One target of a table. Its lengths are in sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) start: u64,
    pub(super) sectors: u64,
    pub(super) kind: &'static str,
    pub(super) parameters: String,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It holds so many of so many bytes.
    Filled { used: u64, total: u64 },
    /// There was no room for a write: it and all later ones failed. What was read before can still be read.
    Overflowed,
    /// Its bookkeeping could not be written: nothing can be read any more.
    Invalid,
}

/// What to do about a device that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// It may be somebody who looks at every new device for a moment.
    Retry,
    /// Whoever has it open stays.
    Leave,
}

impl Mapper {
    /// Opens the control device.
    pub(super) fn open() -> io::Result<Self> {
        // Every change waits for udev where it runs, and would wait for ever without this rule.
        let has_rule =
            || UDEV_RULES.iter().any(|dir| std::path::Path::new(dir).join(UDEV_RULE).exists());
        if std::path::Path::new(UDEV).exists() && !has_rule() {
            return Err(io::Error::other("udev has no rules for it: install dmsetup"));
        }
        Ok(Self { dm: DM::new().map_err(io_error)? })
    }

    /// Makes a device and lets it run. What there was of it by half is gone when this fails.
    pub(super) fn create(
        &self,
        name: &str,
        table: &[Target],
        is_read_only: bool,
    ) -> io::Result<Device> {
        let name = DmName::new(name).map_err(io_error)?;
        let id = DevId::Name(name);
        let flags = if is_read_only { DmFlags::DM_READONLY } else { DmFlags::empty() };
        let options = || DmOptions::private().set_flags(flags);
        let lines: Vec<Line> = table
            .iter()
            .map(|t| (t.start, t.sectors, t.kind.to_owned(), t.parameters.clone()))
            .collect();
        let info = self.dm.device_create(name, None, options()).map_err(io_error)?;
        let run = || {
            self.dm.table_load(&id, &lines, options())?;
            self.dm.device_suspend(&id, DmOptions::private())
        };
        match run() {
            Ok(_) => Ok(info.device()),
            Err(error) => {
                self.dm.device_remove(&id, DmOptions::private()).map_err(io_error)?;
                Err(io_error(error))
            }
        }
    }

    /// A device of this name, and whether it runs; `None` when there is none.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<(Device, bool)>> {
        let name = DmName::new(name).map_err(io_error)?;
        let found = absent(self.dm.device_info(&DevId::Name(name)).map_err(io_error))?;
        Ok(found.map(|info| {
            let runs = info.flags().contains(DmFlags::DM_ACTIVE_PRESENT);
            (info.device(), runs)
        }))
    }

    /// The parameters of a device's first target, when it is of this kind.
    pub(super) fn parameters(&self, name: &str, kind: &str) -> io::Result<Option<String>> {
        self.first_line(name, kind, DmFlags::DM_STATUS_TABLE)
    }

    /// How a snapshot fares; `None` when there is none of this name.
    pub(super) fn health(&self, name: &str) -> io::Result<Option<Health>> {
        // Without this flag the kernel would write its bookkeeping out first.
        let line = self.first_line(name, "snapshot", DmFlags::DM_NOFLUSH)?;
        let Some(line) = line else { return Ok(None) };
        parse(&line).map(Some).ok_or_else(|| io::Error::other(format!("snapshot says {line:?}")))
    }

    fn first_line(&self, name: &str, kind: &str, flags: DmFlags) -> io::Result<Option<String>> {
        let name = DmName::new(name).map_err(io_error)?;
        let options = DmOptions::default().set_flags(flags);
        let found = absent(self.dm.table_status(&DevId::Name(name), options).map_err(io_error))?;
        let lines = found.map(|(_, lines)| lines).unwrap_or_default();
        Ok(lines.into_iter().find(|line| line.2 == kind).map(|line| line.3))
    }

    /// Holds a device's reads and writes back, after those on their way.
    pub(super) fn suspend(&self, name: &str) -> io::Result<()> {
        self.switch(name, DmFlags::DM_SUSPEND)
    }

    /// Lets them go on.
    pub(super) fn resume(&self, name: &str) -> io::Result<()> {
        self.switch(name, DmFlags::empty())
    }

    fn switch(&self, name: &str, flags: DmFlags) -> io::Result<()> {
        let name = DmName::new(name).map_err(io_error)?;
        let options = DmOptions::private().set_flags(flags);
        self.dm.device_suspend(&DevId::Name(name), options).map_err(io_error).map(drop)
    }

    /// Removes a device; whether there was one. One that is open is removed by the kernel when it is closed, and
    /// until then has the name that `gone` makes of its number.
    pub(super) fn remove(
        &self,
        name: &str,
        busy: Busy,
        gone: impl Fn(u32) -> String,
    ) -> io::Result<bool> {
        let name = DmName::new(name).map_err(io_error)?;
        let id = DevId::Name(name);
        let Some(info) = absent(self.dm.device_info(&id).map_err(io_error))? else {
            return Ok(false);
        };
        if info.open_count() == 0 || busy == Busy::Retry {
            // The library tries for 0.8 s.
            match absent(self.dm.device_remove(&id, DmOptions::private()).map_err(io_error)) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
                removed => return Ok(removed?.is_some()),
            }
        }
        let other = gone(info.device().minor);
        let other = DmName::new(&other).map_err(io_error)?;
        self.dm.device_rename(name, &DevId::Name(other)).map_err(io_error)?;
        self.remove_when_closed(other)?;
        tracing::info!(device = %other, "device is still open: it goes when it is closed");
        Ok(true)
    }

    /// Does the second step for all devices that begin so: who did the first one may have been killed on the way.
    pub(super) fn remove_all_when_closed(&self, prefix: &str) -> io::Result<()> {
        for name in self.names(prefix)? {
            self.remove_when_closed(DmName::new(&name).map_err(io_error)?)?;
        }
        Ok(())
    }

    /// Of one that is not open, at once. None is fine: it has been closed meanwhile.
    fn remove_when_closed(&self, name: &DmName) -> io::Result<()> {
        let options = DmOptions::private().set_flags(DmFlags::DM_DEFERRED_REMOVE);
        let removed = self.dm.device_remove(&DevId::Name(name), options);
        absent(removed.map_err(io_error)).map(drop)
    }

    /// The names of all devices that begin so.
    pub(super) fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let devices = self.dm.list_devices().map_err(io_error)?;
        let names = devices.into_iter().map(|(name, ..)| name.as_ref().to_string());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

/// `128/524288 16`, in sectors, or a word.
fn parse(line: &str) -> Option<Health> {
    match line {
        "Overflow" => return Some(Health::Overflowed),
        "Invalid" | "Merge failed" => return Some(Health::Invalid),
        _ => {}
    }
    let (used, total) = line.split_whitespace().next()?.split_once('/')?;
    Some(Health::Filled {
        used: used.parse::<u64>().ok()? * 512,
        total: total.parse::<u64>().ok()? * 512,
    })
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

fn io_error(error: DmError) -> io::Error {
    match error {
        DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => (*errno).into(),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_as_the_kernel_writes_it() {
        let filled = Health::Filled { used: 8192, total: 1 << 20 };
        for (line, health) in [
            ("16/2048 8", Some(filled)),
            ("Overflow", Some(Health::Overflowed)),
            ("Invalid", Some(Health::Invalid)),
            ("Unknown", None),
        ] {
            assert_eq!(parse(line), health, "{line}");
        }
    }
}
