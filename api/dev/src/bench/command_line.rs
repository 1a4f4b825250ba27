//! The agent's own QEMU command lines, read from its running machines and rewritten for a start by hand.
//!
//! So the floor runs the very machine of the agent, whatever that comes to be. Only what belongs to one process
//! is replaced: descriptors that were handed over open, and the token.

use std::path::Path;

use anyhow::Context;
use fs_err as fs;
use ovenbird_guest_protocol::Token;

use super::machine::{CONTROL_SOCKET, GUEST_SOCKET, MEMORY};

const TOKEN: &str = "ovenbird.token=";

/// One machine's program and arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandLine(Vec<String>);

impl CommandLine {
    /// That of a process.
    pub(super) fn of_process(pid: u32) -> anyhow::Result<Self> {
        let line = fs::read(format!("/proc/{pid}/cmdline"))?;
        Self::parse(&String::from_utf8(line).context("a command line that is no text")?)
    }

    fn parse(line: &str) -> anyhow::Result<Self> {
        let words: Vec<String> =
            line.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        anyhow::ensure!(words[0].contains("qemu"), "not a QEMU: {}", words[0]);
        words.into_iter().map(rewritten).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The program.
    pub(super) fn program(&self) -> &str {
        &self.0[0]
    }

    /// The arguments for a machine with this tap and token.
    pub(super) fn arguments(&self, tap: &str, token: Token) -> Vec<String> {
        let of_this = |word: &String| match word.split_once(TOKEN) {
            Some((before, _)) => format!("{before}{TOKEN}{}", token.to_hex()),
            None => word.replace(TAP, tap),
        };
        self.0[1..].iter().map(of_this).collect()
    }

    /// The same machine, woken from its own memory file and saved state.
    pub(super) fn resuming(&self) -> Self {
        let mut words = Vec::new();
        let mut rest = self.0.iter();
        while let Some(word) = rest.next() {
            if ["-kernel", "-initrd", "-append"].contains(&word.as_str()) {
                rest.next();
            } else {
                words.push(word.clone());
            }
        }
        words.extend(["-incoming".to_owned(), "defer".to_owned()]);
        Self(words)
    }

    /// Whether it loads a saved state.
    pub(super) fn restores(&self) -> bool {
        self.0.iter().any(|word| word == "-incoming")
    }

    /// Whether it has a memory file of its own.
    pub(super) fn owns_memory(&self) -> bool {
        self.0.iter().any(|word| word.contains("share=on"))
    }
}

/// Stands for the tap's name until that is known.
const TAP: &str = "{tap}";

fn rewritten(word: String) -> anyhow::Result<String> {
    let Some((before, rest)) = word.split_once(",fd=") else { return Ok(word) };
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    if word.starts_with("tap,") {
        return Ok(format!("{before},ifname={TAP},script=no,downscript=no{after}"));
    }
    let socket = match before.split_once("id=").map(|(_, id)| id) {
        Some("ch0") => GUEST_SOCKET,
        Some("qmp") => CONTROL_SOCKET,
        _ => anyhow::bail!("the benchmark does not know what to put in the place of {word:?}"),
    };
    Ok(format!("{before},path={socket}{after}"))
}

/// The memory's name has to be the one that the floor makes.
pub(super) fn check(line: &CommandLine) -> anyhow::Result<()> {
    let memory = format!("mem-path={MEMORY}");
    anyhow::ensure!(
        line.0.iter().any(|word| word.split(',').any(|part| part == memory)),
        "the agent's machines keep their memory elsewhere than in {MEMORY:?}"
    );
    Ok(())
}

/// The process that works in `dir`.
pub(super) fn process_in(dir: &Path) -> anyhow::Result<u32> {
    processes_below(dir)?
        .first()
        .copied()
        .with_context(|| format!("no process in {}", dir.display()))
}

/// The processes that work in `dir` or below.
pub(super) fn processes_below(dir: &Path) -> anyhow::Result<Vec<u32>> {
    let dir = fs::canonicalize(dir)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir)) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "qemu-system-x86_64\0-object\0memory-backend-file,id=m0,size=256M,mem-path=memory,\
        share=on\0-kernel\0vmlinux\0-initrd\0initrd\0-append\0quiet ovenbird.token=00ff\0\
        -chardev\0socket,id=ch0,fd=8,server=on,wait=off\0-netdev\0tap,id=n0,fd=19\0\
        -chardev\0socket,id=qmp,fd=7,server=on,wait=off\0";

    #[test]
    fn descriptors_and_token_are_replaced_and_nothing_else() {
        let line = CommandLine::parse(LINE).unwrap();
        assert!(line.owns_memory() && !line.restores());
        let token = Token::new([0x11; 16]);
        assert_eq!(
            line.arguments("tap7", token).join(" "),
            format!(
                "-object memory-backend-file,id=m0,size=256M,mem-path=memory,share=on -kernel vmlinux \
                 -initrd initrd -append quiet ovenbird.token={} \
                 -chardev socket,id=ch0,path=guest.sock,server=on,wait=off \
                 -netdev tap,id=n0,ifname=tap7,script=no,downscript=no \
                 -chardev socket,id=qmp,path=qmp.sock,server=on,wait=off",
                "11".repeat(16)
            )
        );
    }

    #[test]
    fn woken_machine_loads_a_state_instead_of_a_kernel() {
        let line = CommandLine::parse(LINE).unwrap().resuming();
        assert!(line.restores());
        let words = line.arguments("tap7", Token::new([0; 16])).join(" ");
        assert!(!words.contains("vmlinux") && !words.contains("-append"), "{words}");
        assert!(words.ends_with("-incoming defer"), "{words}");
    }

    #[test]
    fn unknown_descriptors_are_refused() {
        assert!(CommandLine::parse("qemu\0-chardev\0socket,id=other,fd=3\0").is_err());
        assert!(CommandLine::parse("sleep\0one\0").is_err());
    }
}
