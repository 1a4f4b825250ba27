//! A wish is checked, and becomes a plan: with a slot, and with everything that is decided about a sandbox before
//! anything of it exists.

use std::{net::Ipv4Addr, ops::Range, path::PathBuf, sync::Arc};

use ovenbird_host::{Identity, Slot};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Manager, Sandbox, SandboxId, Settings, Shape, Wish,
    create::{Origin, Plan},
    journal::{self, Journal, Record, Stage},
    unix_now,
};
use crate::{guest_link::Token, template::Template};

/// The smallest memory that a guest boots with, in MiB.
const MEMORY_MB_MIN: u32 = 128;

/// What a wish and its template come to, before there is a slot.
struct Draft {
    shape: Shape,
    origin: Origin,
    rootfs: PathBuf,
    disk_bytes: u64,
    kernel: String,
    token: Token,
}

impl Manager {
    /// Checks a wish, and takes id and room for it.
    pub(super) fn admit(&self, wish: Wish) -> Result<Arc<Sandbox>, Error> {
        let template = self.templates().find(&wish.template)?;
        let draft = self.draft(&wish, template)?;
        let mut register = self.register();
        if self.is_closing() {
            return Err(Error::Closing);
        }
        if register.sandboxes.contains_key(&wish.id) {
            return Err(Error::Exists(wish.id));
        }
        let slot = register.room.take(draft.shape)?;
        let plan = self.place(&wish, draft, slot);
        let sandbox = Arc::new(Sandbox::new(plan, wish.clone(), self.host_ip(slot)));
        register.sandboxes.insert(wish.id, sandbox.clone());
        Ok(sandbox)
    }

    pub(super) fn host_ip(&self, slot: Slot) -> Ipv4Addr {
        self.settings().network.host_ip(slot)
    }

    /// What does not depend on the slot.
    fn draft(&self, wish: &Wish, template: Template) -> Result<Draft, Error> {
        let rootfs = template.rootfs();
        let (shape, origin, kernel, token, disk_bytes) = match template {
            Template::Image { .. } => {
                self.check_shape(wish)?;
                let disk_bytes = u64::from(wish.disk_mb) << 20;
                let token = Token::new(rand::random());
                let kernel = self.kernel().clone();
                let digest = kernel.digest().to_owned();
                (wish.shape, Origin::Boot(kernel), digest, token, disk_bytes)
            }
            Template::Snapshot { dir, manifest } => {
                let refusal = manifest.refusal(&self.platform());
                if let Some(reason) = refusal.or_else(|| manifest.damage(&dir)) {
                    return Err(Error::Mismatch { name: wish.template.clone(), reason });
                }
                if u64::from(wish.disk_mb) << 20 > manifest.disk_bytes {
                    return Err(Error::Invalid(format!(
                        "disk_mb is {}, but the disk of snapshot {} is fixed at {} MiB",
                        wish.disk_mb,
                        wish.template,
                        manifest.disk_bytes >> 20
                    )));
                }
                let shape = Shape { vcpus: manifest.vcpus, memory_mb: manifest.memory_mb };
                (shape, Origin::Snapshot(dir), manifest.kernel, manifest.token, 0)
            }
        };
        Ok(Draft { shape, origin, rootfs, disk_bytes, kernel, token })
    }

    fn place(&self, wish: &Wish, draft: Draft, slot: Slot) -> Plan {
        let Draft { shape, origin, rootfs, disk_bytes, kernel, token } = draft;
        let record = Record {
            version: journal::VERSION,
            boot: journal::boot_id(),
            id: wish.id.to_string(),
            slot: slot.0,
            user: self.user(slot),
            host_ip: self.host_ip(slot),
            template: wish.template.to_string(),
            build_id: wish.build_id.clone(),
            vcpus: shape.vcpus,
            memory_mb: shape.memory_mb,
            timeout_sec: wish.timeout_sec,
            policy: wish.policy.clone(),
            kernel,
            token,
            storage: Some(self.means().volumes.driver()),
            memory: origin.memory(),
            platform: self.platform(),
            created_at_unix: unix_now(),
            noted_at_unix: unix_now(),
            stage: Stage::Creating,
        };
        self.plan(record, wish.id.clone(), origin, rootfs, disk_bytes)
    }

    /// The plan of a sandbox that is journalled, or is going to be.
    pub(super) fn plan(
        &self,
        record: Record,
        id: SandboxId,
        origin: Origin,
        rootfs: PathBuf,
        disk_bytes: u64,
    ) -> Plan {
        let Settings { instance, resolvers, ready_timeout, .. } = self.settings();
        let (slot, dir) = (Slot(record.slot), self.sandboxes_dir().join(id.as_str()));
        Plan {
            id,
            slot,
            name: format!("ovb-{instance}-{slot}"),
            identity: Identity { uid: record.user, gid: record.user },
            shape: Shape { vcpus: record.vcpus, memory_mb: record.memory_mb },
            origin,
            rootfs,
            disk_bytes,
            policy: record.policy.clone(),
            resolvers: resolvers.clone(),
            kernel: record.kernel.clone(),
            token: record.token,
            ready_timeout: *ready_timeout,
            cancelled: CancellationToken::new(),
            journal: Arc::new(Journal::new(dir.clone(), record)),
            dir,
        }
    }

    /// The user of a slot's machine.
    pub(super) fn user(&self, slot: Slot) -> u32 {
        self.settings().uid_base + u32::from(slot.0)
    }

    /// The users of all slots, whether they are somebody's or not.
    pub(super) fn users(&self) -> Range<u32> {
        self.user(Slot(0))..self.user(Slot(self.settings().limits.sandboxes))
    }

    fn check_shape(&self, wish: &Wish) -> Result<(), Error> {
        let Settings { largest, disk_mb_max, .. } = self.settings();
        let bounds = [
            ("vcpus", wish.shape.vcpus, 1, largest.vcpus),
            ("memory_mb", wish.shape.memory_mb, MEMORY_MB_MIN, largest.memory_mb),
            ("disk_mb", wish.disk_mb, 0, *disk_mb_max),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                let message = format!("{name} is {value}, it must be from {min} to {max}");
                return Err(Error::Invalid(message));
            }
        }
        Ok(())
    }
}
