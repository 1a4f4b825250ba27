//! Networks of memory guests: addresses that lead nowhere.

use std::path::PathBuf;

use async_trait::async_trait;
use ovenbird_host::{
    Identity, Slot,
    net::{Error, Network, Networks, Plan, Policy},
};

/// See the module.
#[derive(Debug)]
pub struct MemoryNetworks {
    plan: Plan,
}

impl MemoryNetworks {
    /// With the addresses of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self { plan }
    }
}

#[async_trait]
impl Networks for MemoryNetworks {
    async fn ensure(&self, slot: Slot, _: Identity, _: &Policy) -> Result<Network, Error> {
        Ok(Network { namespace: PathBuf::new(), host_ip: self.plan.host_ip(slot) })
    }

    async fn adopt(&self, _: Slot) -> Result<Option<Network>, Error> {
        Ok(None)
    }

    async fn remove(&self, _: Slot) -> Result<(), Error> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Slot>, Error> {
        Ok(Vec::new())
    }

    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn leave(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
