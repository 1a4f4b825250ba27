//! Retry: the submission of a build that failed or was cancelled, submitted once more as a build of its own.

use ovenbird_contract::{build::Status, id::BuildId};
use ovenbird_db::{
    entity::template_build,
    store::{build, build_admin::BuildDetail},
};
use serde_json::Value;

use super::{Draft, Origin};
use crate::app::{App, Error};

impl App {
    /// Stores and queues a build with the submission of `id`, which names it. Everything is checked again: the
    /// base template is the one that its name points to now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::BuildNotEnded`] unless it failed or was cancelled; [`Error::Invalid`] when
    /// its submission would not be accepted any more.
    pub async fn build_retry(&self, id: BuildId, origin: Origin) -> Result<BuildDetail, Error> {
        let BuildDetail { build, .. } = self.build_get(&origin.caller, id).await?;
        match build::status(&build)? {
            Status::Failed | Status::Cancelled => {}
            status => return Err(Error::BuildNotEnded(status)),
        }
        self.build_store(draft(build), Vec::new(), origin, Some(id)).await
    }
}

fn draft(row: template_build::Model) -> Draft {
    Draft {
        name: Some(row.name),
        tag: Some(row.tag),
        base_template: Some(row.base_template),
        recipe: match row.recipe {
            Value::Array(entries) => Some(entries.into()),
            Value::String(text) => Some(text.into()),
            _ => None,
        },
        healthcheck: row.healthcheck,
        vcpus: Some(row.vcpus.unsigned_abs()),
        memory_mb: Some(row.memory_mb.unsigned_abs()),
        disk_mb: row.disk_mb.map(i32::unsigned_abs),
        context: row.context_digest,
        lane: Some(row.lane),
        skip_hooks: row.skip_hooks,
        // What is stored has the form.
        labels: serde_json::from_value(row.labels).unwrap_or_default(),
    }
}
