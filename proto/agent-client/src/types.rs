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
    /// When it was last used, in Unix seconds.
    pub last_active_at_unix: i64,
    /// What its fence is named: the build that it was made for, or its own id. None when it was made without.
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

/// What a command says that ends with its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEvent {
    /// It runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// Some output.
    Output {
        /// Where it was written.
        stream: OutputStream,
        /// The bytes.
        data: Vec<u8>,
    },
    /// It ended; nothing follows.
    End {
        /// 128 + signal when a signal ended it.
        exit_code: i32,
        /// As [`ExecEnd::error`].
        error: Option<String>,
    },
}

/// What a sandbox used at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricPoint {
    /// Unix seconds of the last sample in it.
    pub timestamp_unix: i64,
    /// Of one processor, in percent.
    pub cpu_pct: f64,
    /// Of the host's memory.
    pub mem_bytes: i64,
    /// Of the host's disk.
    pub disk_bytes: i64,
}

/// How far back metrics go, and how fine they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricRange {
    /// Ten minutes, a point every 5 s.
    TenMinutes,
    /// Two hours, a point every minute.
    TwoHours,
    /// A day, a point every ten minutes.
    Day,
}

impl MetricRange {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::TenMinutes, Self::TwoHours, Self::Day];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenMinutes => "10m",
            Self::TwoHours => "2h",
            Self::Day => "24h",
        }
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Other,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name there, which need not be UTF-8.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Unix seconds.
    pub modified_unix: i64,
}

/// Entries of a directory, in the order of their names' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPage {
    /// The entries.
    pub entries: Vec<DirectoryEntry>,
    /// There are names after these.
    pub more: bool,
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

impl From<v1::MetricPoint> for MetricPoint {
    fn from(point: v1::MetricPoint) -> Self {
        let v1::MetricPoint { timestamp_unix, cpu_pct, mem_bytes, disk_bytes } = point;
        Self { timestamp_unix, cpu_pct, mem_bytes, disk_bytes }
    }
}

impl From<v1::DirectoryEntry> for DirectoryEntry {
    fn from(entry: v1::DirectoryEntry) -> Self {
        let kind = match entry.kind() {
            v1::FileKind::File => FileKind::File,
            v1::FileKind::Directory => FileKind::Directory,
            v1::FileKind::Link => FileKind::Link,
            v1::FileKind::Other | v1::FileKind::Unspecified => FileKind::Other,
        };
        Self {
            name: entry.name,
            kind,
            size: entry.size,
            mode: entry.mode,
            modified_unix: entry.modified_unix,
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
            last_active_at_unix: info.last_active_at_unix,
            build_id: Some(info.build_id).filter(|id| !id.is_empty()),
        }
    }
}
