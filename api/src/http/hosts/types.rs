//! What is told of a host, and how its row becomes that. No decision is made here.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::HostId;
use ovenbird_db::store::{
    host::{Allocated, Capacity, Versions},
    host_admin::HostRow,
};
use poem_openapi::{Enum, Object};
use serde::de::DeserializeOwned;

use crate::app::Error;

/// Where a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum HostStatus {
    /// It has not answered yet.
    Pending,
    /// It answers, and takes builds and sandboxes.
    Online,
    /// It answers, and takes nothing new.
    Draining,
    /// It does not answer.
    Unreachable,
}

/// A machine that runs sandboxes.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Host {
    /// Its id.
    pub id: String,
    /// `host:port` of its agent; empty until it has registered.
    pub address: String,
    /// The name in its agent's certificate.
    pub server_name: String,
    /// Where it stands.
    pub status: HostStatus,
    /// There while the host is to take nothing new, also while it does not answer.
    pub drain: Option<HostDrain>,
    /// What it may promise to sandboxes.
    pub capacity: HostCapacity,
    /// What it has promised, by its agent's count.
    pub allocated: HostAllocated,
    /// What runs on it.
    pub versions: HostVersions,
    /// Builds that run there, or whose sandbox waits there for the next runner.
    #[oai(validator(minimum(value = "0")))]
    pub builds: u64,
    /// Sandboxes that were started from templates there, paused ones too.
    #[oai(validator(minimum(value = "0")))]
    pub sandboxes: u64,
    /// Templates that it holds.
    #[oai(validator(minimum(value = "0")))]
    pub templates: u64,
    /// When it last answered.
    pub heartbeat: Option<DateTime<Utc>>,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
    /// What people call it.
    pub name: Option<String>,
    /// Words for placement.
    pub labels: BTreeMap<String, String>,
    /// When its agent registered; absent for a host of the bridges' configuration.
    pub registered_at: Option<DateTime<Utc>>,
    /// When its agent's certificate ends, which the agent renews before.
    pub certificate_expires_at: Option<DateTime<Utc>>,
}

/// Who wants a host to take nothing new.
#[derive(Debug, Object)]
pub struct HostDrain {
    /// Since when.
    pub at: DateTime<Utc>,
    /// Who asked first: the id of an API key.
    pub by: String,
}

/// What a host may promise to sandboxes.
#[derive(Debug, Object)]
pub struct HostCapacity {
    /// Virtual CPUs of all sandboxes together.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory of all sandboxes together, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Virtual CPUs of one sandbox at most.
    #[oai(validator(minimum(value = "0")))]
    pub max_sandbox_vcpus: u32,
    /// Memory of one sandbox at most, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub max_sandbox_memory_mb: u32,
    /// Free disk, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub disk_free_bytes: u64,
}

/// What a host's agent has promised.
#[derive(Debug, Object)]
pub struct HostAllocated {
    /// Virtual CPUs.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Sandboxes, those of builds too.
    #[oai(validator(minimum(value = "0")))]
    pub sandboxes: u32,
}

/// What runs on a host. Empty texts until it has answered once.
#[derive(Debug, Object)]
pub struct HostVersions {
    /// Version of the agent.
    pub agent: String,
    /// Version of QEMU.
    pub qemu: String,
    /// Digest of the guest kernel.
    pub kernel: String,
    /// `kvm`, or `tcg` where there is no KVM.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// How root disks are made: `reflink`, `dm_snapshot` or `copy`.
    pub storage: String,
}

/// What is told of a host.
pub(super) fn told(row: HostRow) -> Result<Host, Error> {
    let HostRow { host, load } = row;
    let status = match host.status.as_str() {
        "pending" => HostStatus::Pending,
        "online" => HostStatus::Online,
        "draining" => HostStatus::Draining,
        "unreachable" => HostStatus::Unreachable,
        other => {
            let what = format!("unknown status of a host `{other}`");
            return Err(Error::internal("reading a host's row", what));
        }
    };
    let capacity: Capacity = read(host.capacity)?;
    let allocated: Allocated = read(host.allocated)?;
    let versions: Versions = read(host.versions)?;
    Ok(Host {
        id: HostId::from_uuid(host.id).to_string(),
        address: host.address,
        server_name: host.server_name,
        status,
        drain: host
            .drain_requested_at
            .map(|at| HostDrain { at, by: host.drain_requested_by.unwrap_or_default() }),
        capacity: HostCapacity {
            vcpus: capacity.vcpus,
            memory_mb: capacity.memory_mb,
            max_sandbox_vcpus: capacity.max_sandbox_vcpus,
            max_sandbox_memory_mb: capacity.max_sandbox_memory_mb,
            disk_free_bytes: capacity.disk_free_bytes,
        },
        allocated: HostAllocated {
            vcpus: allocated.vcpus,
            memory_mb: allocated.memory_mb,
            sandboxes: allocated.sandboxes,
        },
        versions: HostVersions {
            agent: versions.agent,
            qemu: versions.qemu,
            kernel: versions.kernel,
            accelerator: versions.accelerator,
            accelerator_reason: versions.accelerator_reason,
            storage: versions.storage,
        },
        builds: load.builds.unsigned_abs(),
        sandboxes: load.sandboxes.unsigned_abs(),
        templates: load.templates.unsigned_abs(),
        heartbeat: host.heartbeat,
        created_at: host.created_at,
        name: host.name,
        labels: read(host.labels)?,
        registered_at: host.registered_at,
        certificate_expires_at: host.certificate_expires_at,
    })
}

fn read<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::internal("reading a host's row", error))
}
