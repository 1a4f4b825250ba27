//! A sandbox becomes a template: its memory and disk, under a name in the catalogue. The sandbox ends with it.

use ovenbird_contract::id::SandboxId;
use ovenbird_db::store::sandbox::SandboxDetail;

use crate::app::{App, Error, keys::Caller};

/// Under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The name.
    pub name: String,
    /// The tag, which moves here once the template is there.
    pub tag: String,
}

impl App {
    /// Makes a template of a running sandbox. The template is published by the statement that ends the sandbox.
    ///
    /// # Errors
    /// [`Error::SandboxState`] when it does not run; [`Error::HostUnavailable`]: the sandbox's row says what came of it.
    pub async fn sandbox_snapshot(
        &self,
        caller: &Caller,
        id: SandboxId,
        naming: Naming,
    ) -> Result<SandboxDetail, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        let work = self.work(&detail, id)?;
        let row = self.sandbox_work(id, work.save(naming)).await?;
        Ok(SandboxDetail { sandbox: row, ..detail })
    }
}
