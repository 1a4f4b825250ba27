//! Networks by the `ip` and `nft` programs: three short processes per sandbox, about 20 to 40 ms.

use std::{collections::BTreeSet, io, path::Path};

use async_trait::async_trait;

use super::{
    Error, GATEWAY_IP, GUEST_PREFIX, Namespace, Network, Networks, Plan, Policy, TAP,
    rules::{self, UPLINK},
};
use crate::{
    Identity, Slot,
    program::{self, run},
};

/// See the module.
#[derive(Debug, Clone)]
pub struct ProgramNetworks {
    plan: Plan,
}

/// What goes wrong inside the namespace's thread.
enum Inside {
    Io(io::Error),
    Program(program::Error),
}

impl From<io::Error> for Inside {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<program::Error> for Inside {
    fn from(error: program::Error) -> Self {
        Self::Program(error)
    }
}

impl ProgramNetworks {
    /// Networks with the names and addresses of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self { plan }
    }

    fn ensure_now(&self, slot: Slot, owner: Identity) -> Result<Network, Error> {
        self.remove_now(slot)?;
        let plan = &self.plan;
        let (interface, host_ip) = (plan.interface(slot), plan.host_ip(slot));
        let host_end = plan.host_end(slot);
        // The veth pair is made inside; its other end goes to the namespace of this process's main thread.
        let inside = format!(
            "link set lo up
link add {UPLINK} type veth peer name {interface} netns {pid}
addr add {host_ip}/31 dev {UPLINK}
link set {UPLINK} up
tuntap add dev {TAP} mode tap user {uid} group {gid} vnet_hdr
addr add {GATEWAY_IP}/{GUEST_PREFIX} dev {TAP}
link set {TAP} up
route add default via {host_end}
",
            pid = std::process::id(),
            uid = owner.uid,
            gid = owner.gid,
        );
        let namespace = Namespace::at(plan.namespace_path(slot));
        let made = namespace.create(|| -> Result<(), Inside> {
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").or_else(no_ipv6)?;
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            run("nft", &["-f", "-"], &rules::of_namespace(host_ip))?;
            run("ip", &["-batch", "-"], &inside)?;
            Ok(())
        });
        made.map_err(|error| match error {
            Inside::Io(source) => Error::Io { action: "set up a namespace", source },
            Inside::Program(source) => Error::Program { slot, source },
        })?;
        let outside = format!("addr add {host_end}/31 dev {interface}\nlink set {interface} up\n");
        run("ip", &["-batch", "-"], &outside).map_err(|source| Error::Program { slot, source })?;
        Ok(Network { namespace: namespace.path().to_owned(), host_ip })
    }

    fn remove_now(&self, slot: Slot) -> Result<(), Error> {
        let interface = self.plan.interface(slot);
        // Both ends of the pair go at once; the namespace alone would be freed by the kernel some time later.
        if interface_exists(&interface) {
            let deleted = run("ip", &["link", "del", &interface], "");
            if let Err(source) = deleted
                && interface_exists(&interface)
            {
                return Err(Error::Program { slot, source });
            }
        }
        let namespace = Namespace::at(self.plan.namespace_path(slot));
        namespace.remove().map_err(|source| Error::Io { action: "remove a namespace", source })?;
        for what in [namespace.path(), &interface_path(&interface)] {
            if what.exists() {
                return Err(Error::Left { slot, what: what.display().to_string() });
            }
        }
        Ok(())
    }

    fn list_now(&self) -> Result<Vec<Slot>, Error> {
        let mut slots = BTreeSet::new();
        for name in names_in(Path::new("/run/netns"))? {
            slots.extend(self.plan.slot_of_namespace(&name));
        }
        for name in names_in(Path::new("/sys/class/net"))? {
            slots.extend(self.plan.slot_of_interface(&name));
        }
        Ok(slots.into_iter().collect())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let networks = self.clone();
        tokio::task::spawn_blocking(move || work(&networks))
            .await
            .expect("network work does not panic")
    }
}

#[async_trait]
impl Networks for ProgramNetworks {
    async fn ensure(&self, slot: Slot, owner: Identity, _: &Policy) -> Result<Network, Error> {
        self.blocking(move |networks| networks.ensure_now(slot, owner)).await
    }

    async fn adopt(&self, slot: Slot) -> Result<Option<Network>, Error> {
        let namespace = self.plan.namespace_path(slot);
        let whole = namespace.exists() && interface_exists(&self.plan.interface(slot));
        let host_ip = self.plan.host_ip(slot);
        Ok(whole.then_some(Network { namespace, host_ip }))
    }

    async fn remove(&self, slot: Slot) -> Result<(), Error> {
        self.blocking(move |networks| networks.remove_now(slot)).await
    }

    async fn list(&self) -> Result<Vec<Slot>, Error> {
        self.blocking(Self::list_now).await
    }

    async fn open(&self) -> Result<(), Error> {
        self.blocking(|networks| {
            // Left on at the end: other programs of this host may have come to need it.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
                .map_err(|source| Error::Io { action: "turn on forwarding", source })?;
            run("nft", &["-f", "-"], &rules::of_host(&networks.plan)).map_err(Error::Host)?;
            Ok(())
        })
        .await
    }

    async fn leave(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        self.blocking(|networks| {
            run("nft", &["-f", "-"], &rules::of_host_removed(&networks.plan))
                .map_err(Error::Host)?;
            Ok(())
        })
        .await
    }
}

/// A kernel without IPv6 needs none of it turned off.
fn no_ipv6(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn interface_path(name: &str) -> std::path::PathBuf {
    Path::new("/sys/class/net").join(name)
}

fn interface_exists(name: &str) -> bool {
    interface_path(name).exists()
}

fn names_in(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Io { action: "list networks", source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instance;

    const OWNER: Identity = Identity { uid: 61_000, gid: 61_000 };

    fn networks(instance: &str, subnet: &str) -> ProgramNetworks {
        ProgramNetworks::new(Plan::new(Instance::new(instance).unwrap(), subnet.parse().unwrap()))
    }

    fn tables() -> String {
        run("nft", &["list", "tables"], "").unwrap()
    }

    #[tokio::test]
    async fn network_is_made_listed_and_removed_without_a_rest() {
        let networks = networks("nettest1", "10.231.16.0/24");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        networks.open().await.unwrap();
        networks.open().await.unwrap();
        let network = networks.ensure(Slot(3), OWNER, &Policy::default()).await.unwrap();
        assert_eq!(network.host_ip.to_string(), "10.231.16.9");
        assert_eq!(networks.list().await.unwrap(), [Slot(3)]);
        let addresses = Namespace::at(&network.namespace)
            .enter(|| -> Result<String, Inside> { Ok(run("ip", &["-br", "addr"], "")?) });
        let Ok(addresses) = addresses else { panic!("ip failed") };
        assert!(addresses.contains("172.16.0.1/30"), "{addresses}");

        // Again over what is there, as after a crash in the middle.
        networks.ensure(Slot(3), OWNER, &Policy::default()).await.unwrap();
        assert_eq!(networks.list().await.unwrap(), [Slot(3)]);

        networks.remove(Slot(3)).await.unwrap();
        networks.remove(Slot(3)).await.unwrap();
        networks.close().await.unwrap();
        networks.close().await.unwrap();
        assert_eq!(networks.list().await.unwrap(), []);
        assert!(!tables().contains("nettest1"));
        assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
    }

    #[tokio::test]
    async fn failure_half_way_leaves_nothing_after_remove() {
        let networks = networks("nettest2", "10.231.17.0/24");
        // An interface that already has the address's name in the host makes the last part fail.
        let taken = networks.plan.interface(Slot(0));
        let namespace = Namespace::at(networks.plan.namespace_path(Slot(0)));
        let made = namespace.create(|| -> Result<(), Inside> { Ok(()) });
        assert!(made.is_ok());
        assert_eq!(networks.list().await.unwrap(), [Slot(0)]);
        networks.remove(Slot(0)).await.unwrap();
        assert_eq!(networks.list().await.unwrap(), []);
        assert!(!interface_exists(&taken));
    }
}
