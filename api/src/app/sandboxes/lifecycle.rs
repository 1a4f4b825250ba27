//! Pause, resume, delete, ping. Repeating one of them is fine.

use ovenbird_contract::{id::SandboxId, sandbox::Status};
use ovenbird_db::store::sandbox::{SandboxDetail, status};

use super::work::Work;
use crate::app::{App, Error, keys::Caller};

impl App {
    /// Puts a sandbox's memory on its host's disk.
    ///
    /// # Errors
    /// [`Error::SandboxState`] when it is over, or on its way somewhere else; [`Error::HostUnavailable`].
    pub async fn sandbox_pause(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<SandboxDetail, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        if status(&detail.sandbox)? == Status::Paused {
            return Ok(detail);
        }
        let work = self.work(&detail, id)?;
        let row = self.sandbox_work(id, work.pause()).await?;
        Ok(SandboxDetail { sandbox: row, ..detail })
    }

    /// Lets a sandbox go on, with another idle limit if one is named.
    ///
    /// # Errors
    /// As for a pause; [`Error::NoCapacity`]: it stays paused.
    pub async fn sandbox_resume(
        &self,
        caller: &Caller,
        id: SandboxId,
        timeout_sec: Option<u32>,
    ) -> Result<SandboxDetail, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        let work = self.work(&detail, id)?;
        let row = self.sandbox_work(id, work.resume(timeout_sec)).await?;
        Ok(SandboxDetail { sandbox: row, ..detail })
    }

    /// Removes a sandbox, whatever it is doing. Once this has answered it will be gone, also when its host does not
    /// answer now.
    ///
    /// # Errors
    /// Postgres; host access that is not configured.
    pub async fn sandbox_delete(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<SandboxDetail, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        if status(&detail.sandbox)?.is_terminal() {
            return Ok(detail);
        }
        let work = self.work(&detail, id)?;
        let row = self.sandbox_work(id, work.delete()).await?;
        Ok(SandboxDetail { sandbox: row, ..detail })
    }

    /// Counts as use of a sandbox.
    ///
    /// # Errors
    /// [`Error::SandboxState`] when it does not run; [`Error::HostUnavailable`].
    pub async fn sandbox_ping(&self, caller: &Caller, id: SandboxId) -> Result<(), Error> {
        let sandbox = self.sandbox_in_use(caller, id).await?;
        match sandbox.agent.ping_sandbox(&sandbox.id).await {
            Ok(()) => Ok(()),
            Err(error) => Err(sandbox.explain(error, &format!("sandbox {id}")).await),
        }
    }

    pub(super) fn work(&self, detail: &SandboxDetail, id: SandboxId) -> Result<Work, Error> {
        let agent = self.sandboxes.agent(&detail.host)?;
        Ok(Work { store: self.store.clone(), agent, id })
    }
}
