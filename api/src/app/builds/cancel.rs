//! Cancel: written to Postgres first, then said to whoever works on the build.

use ovenbird_contract::id::BuildId;
use ovenbird_db::store::{
    build_admin::BuildDetail,
    cancel::{Asked, Wish},
};

use crate::app::{App, Error, Problem, keys::Caller};

impl App {
    /// Cancels a build that `caller` sees. One that is being cancelled, or is cancelled, is answered as it is:
    /// who asked first, and why, stays.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] with `problems`; [`Error::BuildOver`] when it ended otherwise.
    pub async fn build_cancel(
        &self,
        caller: &Caller,
        id: BuildId,
        why: Option<String>,
        problems: Vec<Problem>,
    ) -> Result<BuildDetail, Error> {
        self.build_get(caller, id).await?;
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let wish = Wish { build: id, by: caller.name(), why };
        let build = match self.store.build_cancel(&wish).await? {
            Asked::Now(build) => {
                tracing::info!(build.id = %id, status = build.status, "build is cancelled");
                build
            }
            Asked::Before(build) => build,
            Asked::Over(status) => return Err(Error::BuildOver(status)),
            Asked::NotFound => return Err(Error::NotFound(format!("build {id}"))),
        };
        // Also for a repeated wish: the message of the first one may have been lost.
        self.control.wake(&id).await;
        Ok(BuildDetail { build: *build, template: None })
    }
}
