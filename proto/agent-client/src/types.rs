//! What callers give and get: the wire's shapes without its oddities (signed sizes, optional messages).

use std::{collections::BTreeMap, time::Duration};

use ovenbird_hostagent::v1;

/// A sandbox to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSandbox {
    /// Its id, made by the caller, so that a lost answer leaves nothing without a name.
    pub sandbox_id: String,
    /// The template's name on the host.
    pub template: String,
    /// Virtual CPUs; a fork keeps its snapshot's.
    pub vcpus: u32,
    /// Memory in MiB; a fork keeps its snapshot's.
    pub memory_mb: u32,
    /// Size of the root disk in MiB; absent means the template's.
    pub disk_mb: Option<u32>,
    /// Idle seconds until it is paused by itself; absent means never.
    pub idle_timeout_sec: Option<u32>,
}

/// A sandbox that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub sandbox_id: String,
    /// `running`.
    pub status: String,
    /// Its address, reachable from the host.
    pub host_ip: String,
}

/// A sandbox in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxInfo {
    /// Its id.
    pub sandbox_id: String,
    /// The agent's word for its state.
    pub status: String,
    /// What it was started from.
    pub template: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Its address, reachable from the host.
    pub host_ip: String,
    /// Unix seconds.
    pub created_at_unix: i64,
    /// The build that it was made for, if any.
    pub build_id: Option<String>,
}

/// A program in a guest. `cmd` is searched in PATH.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// The program.
    pub cmd: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the guest's defaults.
    pub env: BTreeMap<String, String>,
    /// An absolute path that exists; absent means `/`.
    pub workdir: Option<String>,
    /// A name that exists; absent means root.
    pub user: Option<String>,
}

impl Command {
    /// `script` run by the guest's `/bin/sh`.
    pub fn shell(script: impl Into<String>) -> Self {
        Self { cmd: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..Self::default() }
    }

    pub(crate) fn context(&self) -> v1::ExecContext {
        v1::ExecContext {
            env: self.env.clone().into_iter().collect(),
            workdir: self.workdir.clone().unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
        }
    }
}

/// The whole result of a short command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// 128 + signal when a signal ended it.
    pub exit_code: i32,
}

/// A detached command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its process id in the guest.
    pub pid: u32,
    /// It had been started before, under the same exec id.
    pub already_started: bool,
}

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a followed command says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Some output.
    Output {
        /// Offset of its first byte; counts the bytes of both streams together.
        offset: u64,
        /// Where it was written.
        stream: OutputStream,
        /// The bytes.
        data: Vec<u8>,
    },
    /// It ended; nothing follows.
    End(ExecEnd),
}

/// How a detached command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEnd {
    /// 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// It was killed with its children because its time was over.
    pub timed_out: bool,
    /// Why it could not be started: `exit_code` is then 126 or 127. Else which limit of the guest it ran into, memory
    /// or processes.
    pub error: Option<String>,
    /// All output there was, in bytes.
    pub end_offset: u64,
    /// The command's own time, measured in the guest.
    pub elapsed: Duration,
}

/// What a host is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// Version of the agent.
    pub version: String,
    /// Version of QEMU.
    pub qemu_version: String,
    /// Digest of the guest kernel.
    pub kernel: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// `reflink` or `copy`.
    pub storage_driver: String,
    /// Virtual CPUs that may be promised.
    pub vcpus: u32,
    /// Memory that may be promised, in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs that are promised.
    pub allocated_vcpus: u32,
    /// Memory that is promised, in MiB.
    pub allocated_memory_mb: u32,
    /// Most virtual CPUs of one sandbox.
    pub max_sandbox_vcpus: u32,
    /// Most memory of one sandbox, in MiB.
    pub max_sandbox_memory_mb: u32,
    /// Free bytes under the data directory.
    pub disk_free_bytes: u64,
    /// Number of sandboxes.
    pub sandboxes: u32,
    /// Templates on its disk.
    pub templates: Vec<HeldTemplate>,
}

/// A template on a host's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTemplate {
    /// Its name on the host.
    pub name: String,
    /// `image` or `snapshot`.
    pub kind: String,
    /// Bytes on disk.
    pub size_bytes: u64,
}

pub(crate) fn unsigned(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

pub(crate) fn unsigned_long(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The wire's sizes are signed; nothing that large exists.
pub(crate) fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl From<v1::GetHostResponse> for HostInfo {
    fn from(host: v1::GetHostResponse) -> Self {
        Self {
            version: host.version,
            qemu_version: host.qemu_version,
            kernel: host.kernel,
            accelerator: host.accelerator,
            accelerator_reason: host.accelerator_reason,
            storage_driver: host.storage_driver,
            vcpus: unsigned(host.vcpus),
            memory_mb: unsigned(host.memory_mb),
            allocated_vcpus: unsigned(host.allocated_vcpus),
            allocated_memory_mb: unsigned(host.allocated_memory_mb),
            max_sandbox_vcpus: unsigned(host.max_sandbox_vcpus),
            max_sandbox_memory_mb: unsigned(host.max_sandbox_memory_mb),
            disk_free_bytes: unsigned_long(host.disk_free_bytes),
            sandboxes: unsigned(host.sandboxes),
            templates: host
                .templates
                .into_iter()
                .map(|held| HeldTemplate {
                    name: held.name,
                    kind: held.r#type,
                    size_bytes: unsigned_long(held.size_bytes),
                })
                .collect(),
        }
    }
}

impl From<v1::SandboxInfo> for SandboxInfo {
    fn from(info: v1::SandboxInfo) -> Self {
        Self {
            sandbox_id: info.sandbox_id,
            status: info.status,
            template: info.template,
            vcpus: unsigned(info.vcpus),
            memory_mb: unsigned(info.memory_mb),
            host_ip: info.host_ip,
            created_at_unix: info.created_at_unix,
            build_id: Some(info.build_id).filter(|id| !id.is_empty()),
        }
    }
}
