//! MicroVMs: booted from a kernel, restored from a saved state, saved, ended.
//!
//! [`Hypervisor`] starts machines, [`Machine`] is one that runs. A machine runs as its own unprivileged user in
//! a directory of root's, which holds everything it may touch under fixed names (see [`file`]). What happens
//! inside the guest, and when it is ready, is not known here.

mod command_line;
mod console;
mod directory;
mod machine;
pub mod probe;
mod process;
mod qemu;
mod qmp;
#[cfg(test)]
mod tests;
mod tsc;
mod usage;

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::cgroup::Group;

pub use command_line::{memory_limit_mb, threads_max};
pub use directory::{Directory, file};
pub use process::{count_in, kill_all_below, kill_all_of, kill_strays};
pub use qemu::{Qemu, Version};
pub use tsc::measure_khz as tsc_khz;
pub use usage::Usage;

/// A machine could not be started, saved or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is missing or does not say its version.
    #[error(
        "{program} cannot be used: {reason}; install QEMU 8.2 or newer (Debian 12: from bookworm-backports)"
    )]
    Unusable {
        /// The program.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused something.
    #[error("machine {name}: cannot {action}")]
    Io {
        /// Which machine.
        name: String,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// QEMU ended, or was not able to start.
    #[error("machine {name} has ended: {message}")]
    Ended {
        /// Which machine.
        name: String,
        /// What QEMU wrote to its standard error.
        message: String,
    },
    /// QEMU refused a command.
    #[error("machine {name} refused {command}: {message}")]
    Refused {
        /// Which machine.
        name: String,
        /// The QMP command.
        command: String,
        /// QEMU's words.
        message: String,
    },
    /// QEMU did not answer in time.
    #[error("machine {name} did not finish {action} within {seconds} s")]
    Late {
        /// Which machine.
        name: String,
        /// What was waited for.
        action: String,
        /// The deadline.
        seconds: u64,
    },
}

/// How instructions of the guest are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// As QEMU and `GetHost` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What a saved state depends on besides the machine's own devices: it can be restored only where all of it
/// is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `qemu <version>`.
    pub hypervisor: String,
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// The processor that the guest sees.
    pub cpu: String,
    /// Names the set and order of devices; changes with every change of the command line.
    pub devices: String,
    /// The rate of the host's time stamp counter, as measured; a guest keeps the one it booted with. 0: unknown.
    #[serde(default)]
    pub tsc_khz: u64,
}

/// Where a machine's memory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// In its own file, so that a snapshot need not write it.
    Own,
    /// In a template's file, read-only; pages that the guest writes are private to this process.
    CopyOnWrite,
}

/// The network side of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The network namespace to run in.
    pub namespace: PathBuf,
    /// The tap device in it.
    pub tap: String,
}

/// Everything a machine is started with.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// For people who read the process list: `ovb-<instance>-<slot>`.
    pub name: String,
    /// Its directory, with the files that its memory and start need.
    pub directory: Directory,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Where the memory lies.
    pub memory: Memory,
    /// The root disk, relative to the directory, or a device.
    pub disk: Option<PathBuf>,
    /// The network; none: no network at all.
    pub nic: Option<Nic>,
    /// Added to the kernel's command line.
    pub kernel_arguments: String,
    /// The control group that its process enters before it becomes QEMU.
    pub cgroup: Option<Group>,
}

/// What to do with a machine once it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Boot [`file::KERNEL`] with [`file::INITRD`].
    Boot,
    /// Load [`file::STATE`], which contains this, and stay paused.
    Restore(Saved),
}

/// How much of the memory a saved state contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saved {
    /// Devices only: the memory file is the memory.
    Devices,
    /// All of it, for a machine whose memory is in no file.
    DevicesAndMemory,
}

/// Why a machine does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The guest turned itself off, or its kernel panicked.
    Guest,
    /// QEMU ended.
    Process,
}

/// Starts machines.
#[async_trait]
pub trait Hypervisor: std::fmt::Debug + Send + Sync {
    /// What a saved state depends on.
    fn platform(&self) -> Platform;

    /// Starts a machine. When it fails, no process of it is left.
    async fn launch(&self, spec: &MachineSpec, start: Start) -> Result<Box<dyn Machine>, Error>;

    /// The machine of this directory that an earlier agent started, wherever that agent was interrupted: a state that
    /// it was writing is given up. `None` when it has no process. When this fails, the process may still be there.
    async fn adopt(&self, spec: &MachineSpec) -> Result<Option<Adopted>, Error>;
}

/// A machine that outlived the agent that started it.
#[derive(Debug)]
pub struct Adopted {
    /// The machine.
    pub machine: Box<dyn Machine>,
    /// Whether its processors are stopped. They can be resumed.
    pub is_paused: bool,
}

/// A machine that was started. Dropping it leaves it running; [`Machine::kill`] ends it.
#[async_trait]
pub trait Machine: std::fmt::Debug + Send + Sync {
    /// Its process.
    fn pid(&self) -> u32;

    /// The unix socket of the guest's port. It can be dialled from the start and again after a hang-up, one
    /// peer at a time; valid as long as this machine is.
    fn guest_socket(&self) -> PathBuf;

    /// Stops the processors.
    async fn pause(&self) -> Result<(), Error>;

    /// Lets the processors run. The guest's clock has stood still meanwhile.
    async fn resume(&self) -> Result<(), Error>;

    /// Writes [`file::STATE`] of a paused machine. With [`Saved::Devices`] the machine must not run again until
    /// memory and disk have been copied, for the three belong together.
    async fn save(&self, what: Saved) -> Result<(), Error>;

    /// The end of what the guest wrote to its console, at most `bytes`, with control characters removed.
    async fn console_tail(&self, bytes: usize) -> String;

    /// Waits until the guest has turned itself off or the process is gone.
    async fn ended(&self) -> Ending;

    /// Ends the process at once and waits for it. Repeating it is fine.
    async fn kill(&self) -> Result<(), Error>;
}
