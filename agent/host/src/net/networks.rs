//! The networks of one agent, over netlink, some of them prepared before anybody asks.
//!
//! A slot decides about everything but the policy, and sandboxes take the lowest free slot. So what is prepared are
//! the lowest slots without a network, `pool` of them, by one task, one after the other. Whoever comes when his is
//! not there yet makes it himself.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Network, Networks, Plan, Policy,
    links::Links,
    one::{self, Prepared},
    rules,
};
use crate::{Identity, Slot};

/// How the networks of an agent are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names and addresses.
    pub plan: Plan,
    /// Networks that are prepared; 0: none.
    pub pool: u16,
    /// Slots in use at most: those below this.
    pub slots: u16,
    /// The user and group of slot 0.
    pub uid_base: u32,
    /// Name servers that guests may ask although they are in a private range.
    pub resolvers: Vec<Ipv4Addr>,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NetlinkNetworks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    state: Mutex<State>,
    /// Something changed that the refill looks at.
    changed: Notify,
    /// Held while a network is being prepared.
    preparing: tokio::sync::Mutex<()>,
    refill: tokio::sync::Mutex<Option<Refill>>,
}

#[derive(Debug, Default)]
struct State {
    /// Slots that belong to somebody, whether or not all of their network is there.
    taken: BTreeSet<Slot>,
    ready: BTreeMap<Slot, Prepared>,
    /// The one that is being prepared.
    coming: Option<Slot>,
}

/// The task that prepares.
#[derive(Debug)]
struct Refill {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What the refill does next.
#[derive(Debug)]
enum Step {
    Prepare(Slot),
    Discard(Prepared),
}

impl State {
    /// What brings the pool nearer to what it should hold.
    fn next_step(&mut self, options: &Options) -> Option<Step> {
        let free = (0..options.slots).map(Slot).filter(|slot| !self.taken.contains(slot));
        let wanted: BTreeSet<Slot> = free.take(usize::from(options.pool)).collect();
        if let Some(slot) = self.ready.keys().find(|slot| !wanted.contains(slot)).copied() {
            return self.ready.remove(&slot).map(Step::Discard);
        }
        let missing = wanted.into_iter().find(|slot| !self.ready.contains_key(slot))?;
        self.coming = Some(missing);
        Some(Step::Prepare(missing))
    }
}

impl NetlinkNetworks {
    /// Networks as `options` have them. Nothing happens before [`Networks::open`].
    pub fn new(options: Options) -> Self {
        let inner = Inner {
            options,
            state: Mutex::default(),
            changed: Notify::new(),
            preparing: tokio::sync::Mutex::default(),
            refill: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The networks that are prepared now.
    pub fn prepared(&self) -> Vec<Slot> {
        self.inner.state().ready.keys().copied().collect()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Options) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.clone().blocking(work).await
    }

    /// Takes a slot, and what is prepared for it.
    async fn take(&self, slot: Slot) -> Option<Prepared> {
        loop {
            {
                let mut state = self.inner.state();
                if state.coming != Some(slot) {
                    state.taken.insert(slot);
                    return state.ready.remove(&slot);
                }
            }
            drop(self.inner.preparing.lock().await);
        }
    }

    /// Ends the refill and removes what it prepared.
    async fn drain(&self) -> Result<(), Error> {
        if let Some(refill) = self.inner.refill.lock().await.take() {
            refill.stop.cancel();
            if let Err(error) = refill.task.await {
                tracing::error!(%error, "the task that prepares networks failed");
            }
        }
        let ready = std::mem::take(&mut self.inner.state().ready);
        self.blocking(move |options| {
            for prepared in ready.into_values() {
                prepared.discard(&options.plan)?;
            }
            remove_prepared_links(&options.plan)
        })
        .await
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Options) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::task::spawn_blocking(move || work(&self.options))
            .await
            .expect("network work does not panic")
    }

    /// Keeps the pool filled until it is told to stop.
    async fn refill(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let preparing = self.preparing.lock().await;
            let step = self.state().next_step(&self.options);
            let went_on = match step {
                Some(step) => self.clone().carry_out(step).await,
                None => false,
            };
            drop(preparing);
            // After a failure, too: with the next sandbox, not at once and for ever.
            if !went_on {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    async fn carry_out(self: Arc<Self>, step: Step) -> bool {
        let done = match step {
            Step::Discard(prepared) => {
                self.blocking(move |options| prepared.discard(&options.plan)).await
            }
            Step::Prepare(slot) => {
                let owner = self.owner(slot);
                let made = self
                    .clone()
                    .blocking(move |options| Prepared::make(&options.plan, slot, owner))
                    .await;
                let mut state = self.state();
                state.coming = None;
                made.map(|prepared| drop(state.ready.insert(slot, prepared)))
            }
        };
        if let Err(error) = &done {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "a network could not be prepared; sandboxes make their own");
        }
        done.is_ok()
    }

    fn owner(&self, slot: Slot) -> Identity {
        let id = self.options.uid_base + u32::from(slot.0);
        Identity { uid: id, gid: id }
    }
}

#[async_trait]
impl Networks for NetlinkNetworks {
    async fn ensure(&self, slot: Slot, owner: Identity, policy: &Policy) -> Result<Network, Error> {
        let prepared = self.take(slot).await;
        self.inner.changed.notify_one();
        let policy = policy.clone();
        self.blocking(move |options| {
            let plan = &options.plan;
            one::remove(plan, slot)?;
            let prepared = match prepared {
                Some(prepared) if prepared.owner == owner => prepared,
                Some(other) => {
                    other.discard(plan)?;
                    Prepared::make(plan, slot, owner)?
                }
                None => Prepared::make(plan, slot, owner)?,
            };
            prepared.activate(plan, &policy, &options.resolvers)
        })
        .await
    }

    async fn adopt(&self, slot: Slot) -> Result<Option<Network>, Error> {
        // Not one that is prepared: it would be in the way of the one that may be there.
        let prepared = self.take(slot).await;
        self.blocking(move |options| {
            if let Some(prepared) = prepared {
                prepared.discard(&options.plan)?;
            }
            one::find(&options.plan, slot)
        })
        .await
    }

    async fn remove(&self, slot: Slot) -> Result<(), Error> {
        self.blocking(move |options| one::remove(&options.plan, slot)).await?;
        self.inner.state().taken.remove(&slot);
        self.inner.changed.notify_one();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Slot>, Error> {
        self.blocking(|options| list(&options.plan)).await
    }

    async fn open(&self) -> Result<(), Error> {
        let there = self
            .blocking(|options| {
                // Left on at the end: other programs of this host may have come to need it.
                one::set("/proc/sys/net/ipv4/ip_forward", "1")
                    .map_err(|source| Error::Io { action: "turn on forwarding", source })?;
                rules::set_host(&options.plan).map_err(Error::Host)?;
                list(&options.plan)
            })
            .await?;
        self.inner.state().taken.extend(there);
        let mut refill = self.inner.refill.lock().await;
        if refill.is_none() && self.inner.options.pool > 0 {
            self.blocking(|options| remove_prepared_links(&options.plan)).await?;
            let stop = CancellationToken::new();
            let task = tokio::spawn(self.inner.clone().refill(stop.clone()));
            *refill = Some(Refill { stop, task });
        }
        Ok(())
    }

    async fn leave(&self) -> Result<(), Error> {
        self.drain().await
    }

    async fn close(&self) -> Result<(), Error> {
        self.drain().await?;
        self.blocking(|options| rules::remove_host(&options.plan).map_err(Error::Host)).await
    }
}

/// Slots with a namespace or a link.
fn list(plan: &Plan) -> Result<Vec<Slot>, Error> {
    let namespaces = names_in(Path::new("/run/netns"))?;
    let links = links()?;
    let slots: BTreeSet<Slot> = namespaces
        .iter()
        .filter_map(|name| plan.slot_of_namespace(name))
        .chain(links.iter().filter_map(|name| plan.slot_of_interface(name)))
        .collect();
    Ok(slots.into_iter().collect())
}

/// What was prepared by an agent that was killed goes with it, but only some time later.
fn remove_prepared_links(plan: &Plan) -> Result<(), Error> {
    for name in links()? {
        let Some(slot) = plan.slot_of_prepared_interface(&name) else { continue };
        let removed = Links::open().and_then(|mut links| links.remove(&name));
        removed.map_err(|source| Error::Netlink { slot, source })?;
    }
    Ok(())
}

/// The links of this agent's own namespace.
fn links() -> Result<Vec<String>, Error> {
    let failed = |error: nix::Error| Error::Io { action: "list links", source: error.into() };
    let links = nix::net::if_::if_nameindex().map_err(failed)?;
    Ok(links.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
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
mod tests;
