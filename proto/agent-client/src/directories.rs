//! Directories of a guest.

use ovenbird_hostagent::v1;

use crate::{agent::Agent, error::Error, types::DirectoryPage};

impl Agent {
    /// A page of a directory: at most `limit` names (1000 at most) after `after`. Repeated when the host cannot be
    /// reached.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a path that does not exist; [`Error::FailedPrecondition`] for one that is no directory.
    pub async fn list_directory(
        &self,
        sandbox_id: &str,
        path: &str,
        after: Vec<u8>,
        limit: u32,
    ) -> Result<DirectoryPage, Error> {
        let message = v1::ListDirectoryRequest {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            after,
            limit,
        };
        let deadline = self.config.deadlines.file;
        let page = self
            .repeated(deadline, message, |mut client, request| async move {
                client.list_directory(request).await
            })
            .await?;
        let entries = page.entries.into_iter().map(Into::into).collect();
        Ok(DirectoryPage { entries, more: page.more })
    }

    /// Makes a directory, and those above it that are missing if `make_parents`; answers whether it was not there
    /// before. Repeated when the host cannot be reached.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] where a file is in the way.
    pub async fn make_directory(
        &self,
        sandbox_id: &str,
        path: &str,
        make_parents: bool,
    ) -> Result<bool, Error> {
        let message = v1::MakeDirectoryRequest {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            make_parents,
        };
        let deadline = self.config.deadlines.file;
        let made = self
            .repeated(deadline, message, |mut client, request| async move {
                client.make_directory(request).await
            })
            .await?;
        Ok(made.made)
    }

    /// Removes a file, a link or a directory. Not repeated: somebody may have made another one meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a path that does not exist; [`Error::FailedPrecondition`] for a directory that is not
    /// empty, unless `recursive`.
    pub async fn remove_path(
        &self,
        sandbox_id: &str,
        path: &str,
        recursive: bool,
    ) -> Result<(), Error> {
        let message = v1::RemovePathRequest {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            recursive,
        };
        let deadline = self.config.deadlines.file;
        self.once(deadline, message, |mut client, request| async move {
            client.remove_path(request).await
        })
        .await
        .map(drop)
    }
}
