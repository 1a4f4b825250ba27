//! What a machine's process has used, as the kernel counts it.

use std::{fs, io, time::Duration};

use super::Memory;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads, the guest's and QEMU's own.
    pub cpu: Duration,
    /// Memory of the host that is there because of this machine alone, in bytes: what is resident of its process,
    /// without the pages of files when its memory is a copy of a template's, for those are the template's.
    pub memory: u64,
    /// When the process began, in ticks since the host's boot. With its id, it names the process for good.
    pub began: u64,
}

impl Usage {
    /// That of a process whose memory lies there.
    ///
    /// # Errors
    /// Those of the kernel; there may be no such process any more.
    pub fn of(pid: u32, memory: Memory) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
        let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0);
        parse(&stat, &status, ticks.unwrap_or(100), memory)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a process of another kind"))
    }
}

fn parse(stat: &str, status: &str, ticks_per_second: u64, memory: Memory) -> Option<Usage> {
    // The name is in parentheses and may hold anything, so the fields are those behind the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Counted from the state, which is the third field of proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    let cpu = Duration::from_millis(ticks * 1000 / ticks_per_second);
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let own = bytes("RssAnon:")? + bytes("RssShmem:")?;
    let memory = match memory {
        Memory::Own => own + bytes("RssFile:")?,
        Memory::CopyOnWrite => own,
    };
    Some(Usage { cpu, memory, began: field(22)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "77 (a) b (c) S 1 77 77 0 -1 4194560 300 0 0 0 150 50 9 9 20 0 5 0 4321 999 88";
    const STATUS: &str = "Name:\tqemu\nVmRSS:\t  700 kB\nRssAnon:\t 100 kB\nRssFile:\t 580 kB\n\
                          RssShmem:\t  20 kB\n";

    #[test]
    fn processor_time_is_the_sum_of_both_and_a_forks_memory_is_without_its_templates() {
        let own = parse(STAT, STATUS, 100, Memory::Own).unwrap();
        assert_eq!(own, Usage { cpu: Duration::from_secs(2), memory: 700 * 1024, began: 4321 });
        let fork = parse(STAT, STATUS, 100, Memory::CopyOnWrite).unwrap();
        assert_eq!(fork.memory, 120 * 1024);
        assert_eq!(parse("77 (qemu", STATUS, 100, Memory::Own), None);
        assert_eq!(parse(STAT, "Name: zombie", 100, Memory::Own), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id(), Memory::Own).unwrap();
        assert!(usage.memory > 1 << 20 && usage.began > 0, "{usage:?}");
        Usage::of(u32::MAX >> 1, Memory::Own).unwrap_err();
    }
}
