//! A sandbox becomes a template: its memory and disk, under a name in the catalogue. The sandbox ends with it.

use ovenbird_contract::{
    id::{SandboxId, TemplateId},
    sandbox::Status,
};
use ovenbird_db::store::sandbox::{SandboxDetail, status};

use crate::app::{App, Error, keys::Caller};

/// Under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The name.
    pub name: String,
    /// The tag, which moves here once the template is there.
    pub tag: String,
    /// The id of the template to be.
    pub template: TemplateId,
    /// The same request may have made it before.
    pub again: bool,
}

impl App {
    /// Makes a template of a running sandbox. The template is published by the statement that ends the sandbox. One
    /// that has become this template, or is about to, is answered as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is not the caller's to use; [`Error::SandboxState`] when it does not run; [`Error::HostUnavailable`]: the sandbox's row says what came of it.
    pub async fn sandbox_snapshot(
        &self,
        caller: &Caller,
        id: SandboxId,
        naming: Naming,
    ) -> Result<SandboxDetail, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        let is_this_one = detail.sandbox.snapshot_id == Some(naming.template.uuid());
        if naming.again
            && is_this_one
            && matches!(status(&detail.sandbox)?, Status::Saving | Status::Destroyed)
        {
            return Ok(detail);
        }
        if let Some(problem) = self.template_name_problem(caller, &naming.name).await? {
            return Err(Error::Invalid(vec![problem]));
        }
        let work = self.work(&detail, id)?;
        let row = self.sandbox_work(id, work.save(naming)).await?;
        Ok(SandboxDetail { sandbox: row, ..detail })
    }
}
