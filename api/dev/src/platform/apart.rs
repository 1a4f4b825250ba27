//! A network namespace for one agent, with a link to this one: as near to a machine of its own as one machine comes.
//!
//! ```text
//!  runner, bridge, api ── ovbd-n ──veth── host0 in ovbd-n ── agent ── its sandboxes
//!                   100.126.x.y+1/30      100.126.x.y+2
//! ```
//!
//! It has no way out: what its sandboxes ask of the world is answered by nobody.

use std::{net::Ipv4Addr, path::PathBuf, process::Command};

use anyhow::Context;
use fs_err as fs;

/// Where names of namespaces are.
const NAMES: &str = "/run/netns";

/// The namespace of the agent of this number; it goes when dropped.
#[derive(Debug)]
pub struct Apart {
    number: u16,
}

impl Apart {
    /// Makes it, in the place of one that was left behind.
    ///
    /// # Errors
    /// With what `ip` or `unshare` says; nothing is left then.
    pub fn create(number: u16) -> anyhow::Result<Self> {
        remove(number);
        // From here on it is removed whatever happens.
        let apart = Self { number };
        let name = name(number);
        // `ip netns add` would leave a mount of the folder on itself behind for ever.
        fs::create_dir_all(NAMES)?;
        let path = PathBuf::from(NAMES).join(&name);
        fs::File::create(&path)?;
        run("unshare", &format!("--net={} true", path.display()))?;
        ip(&format!("link add {name} type veth peer name host0 netns {name}"))?;
        ip(&format!("addr add {}/30 dev {name}", end(number, 1)))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add {}/30 dev host0", end(number, 2)))?;
        ip(&format!("-n {name} link set host0 up"))?;
        Ok(apart)
    }

    /// Under which its agent is reached.
    pub fn address(&self) -> Ipv4Addr {
        end(self.number, 2)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        remove(self.number);
    }
}

/// The namespace of an agent, where it has one of its own.
pub(super) fn namespace(number: u16) -> Option<PathBuf> {
    Some(PathBuf::from(NAMES).join(name(number))).filter(|path| path.exists())
}

/// Removes the namespace of an agent, or what there is of it.
pub(super) fn remove(number: u16) {
    let name = name(number);
    for arguments in [format!("link del {name}"), format!("netns del {name}")] {
        // Most of it is not there, most of the time.
        let _ = Command::new("ip").args(arguments.split(' ')).output();
    }
}

fn name(number: u16) -> String {
    format!("ovbd-{number}")
}

/// An end of the link: four addresses for each number, of which there are 800.
fn end(number: u16, which: u8) -> Ipv4Addr {
    let [high, low] = (number * 4).to_be_bytes();
    Ipv4Addr::new(100, 126, high, low + which)
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output =
        output.with_context(|| format!("run {program} (packages iproute2, util-linux)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {arguments}: {said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_all_numbers_differ() {
        let ends: std::collections::BTreeSet<_> =
            (0..800).flat_map(|number| [end(number, 1), end(number, 2)]).collect();
        assert_eq!(ends.len(), 1600);
        assert_eq!(end(799, 2), Ipv4Addr::new(100, 126, 12, 126));
    }
}
