//! Hosts: listed, labelled, drained, deleted. They come by registration, or by the bridges' configuration.

use ovenbird_contract::id::HostId;
use ovenbird_db::store::{
    build_admin::After,
    host::Labels,
    host_admin::{Held, HostRow, Refused},
};

use super::{
    App, Error, Problem,
    error::Resource,
    keys::Caller,
    page::{self, Page},
};

impl App {
    /// A page of hosts, newest first.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn host_list(
        &self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<HostRow>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let rows = self.store.host_page(after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |row| After { created_at: row.host.created_at, id: row.host.id }))
    }

    /// A host.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn host_get(&self, id: HostId) -> Result<HostRow, Error> {
        found(id, self.store.host_get(id).await?)
    }

    /// Gives the host these labels instead of those that it has.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn host_labels_set(&self, id: HostId, labels: &Labels) -> Result<HostRow, Error> {
        found(id, self.store.host_labels_set(id, labels).await?)
    }

    /// Gives the host nothing new from now on; what runs there goes on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn host_drain(&self, caller: &Caller, id: HostId) -> Result<HostRow, Error> {
        let row = found(id, self.store.host_drain(id, &caller.name()).await?)?;
        tracing::info!(host.id = %id, host.address = row.host.address, "host is drained");
        Ok(row)
    }

    /// Lets the host have builds and sandboxes again.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn host_undrain(&self, id: HostId) -> Result<HostRow, Error> {
        let row = found(id, self.store.host_undrain(id).await?)?;
        tracing::info!(host.id = %id, host.address = row.host.address, "host is drained no more");
        Ok(row)
    }

    /// Deletes a host that takes nothing new and holds nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::HostNotDrained`]; [`Error::InUse`] with what it holds.
    pub async fn host_delete(&self, id: HostId) -> Result<(), Error> {
        match self.store.host_delete(id).await? {
            Ok(()) => {
                tracing::info!(host.id = %id, "host deleted");
                Ok(())
            }
            Err(Refused::NotFound) => Err(Error::NotFound(format!("host {id}"))),
            Err(Refused::NotDrained(status)) => Err(Error::HostNotDrained(status)),
            Err(Refused::InUse(held)) => {
                let by = held.into_iter().map(problem).collect();
                Err(Error::InUse { what: Resource::Host, by })
            }
        }
    }
}

fn found(id: HostId, row: Option<HostRow>) -> Result<HostRow, Error> {
    row.ok_or_else(|| Error::NotFound(format!("host {id}")))
}

fn problem(held: Held) -> Problem {
    match held {
        Held::Build(id) => Problem::new("host", "build_there", format!("build {id} is there"))
            .hint("wait until it has ended, or cancel it"),
        Held::Sandbox(id) => {
            Problem::new("host", "sandbox_there", format!("sandbox {id} is there"))
                .hint("delete it first")
        }
        Held::Template(id) => {
            Problem::new("host", "only_copy", format!("template {id} is on no other host"))
                .hint("delete it first, if nobody needs it")
        }
    }
}
