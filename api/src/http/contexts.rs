//! `/v1/admin/contexts`: archives that `COPY` takes from.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_db::entity::context;
use poem::Body;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::Path,
    payload::{Binary, Json},
};

use super::{
    Tag,
    auth::{Allowed, Builds, Reads},
    error::Failure,
};
use crate::app::{App, contexts::Uploaded};

/// The resource.
#[derive(Debug, Clone)]
pub struct ContextRoutes {
    app: Arc<App>,
}

impl ContextRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// An archive that `COPY` can take from.
#[derive(Debug, Object)]
pub struct Context {
    /// sha256 of the archive, in hex: a build's `context`.
    #[oai(validator(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// Size of the archive, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub size_bytes: u64,
    /// Files, directories and links in it.
    #[oai(validator(minimum(value = "0")))]
    pub entries: u64,
    /// Size of its files when they are unpacked, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub unpacked_bytes: u64,
    /// Who uploaded it first.
    pub uploaded_by: String,
    /// When it was uploaded first.
    pub uploaded_at: DateTime<Utc>,
    /// When it was last uploaded, or named by a new build. It is removed a while after that (14 days unless the
    /// installation says otherwise), and not while a build needs it.
    pub used_at: DateTime<Utc>,
}

impl From<context::Model> for Context {
    fn from(row: context::Model) -> Self {
        Self {
            sha256: row.digest,
            size_bytes: row.size_bytes.unsigned_abs(),
            entries: row.entries.unsigned_abs(),
            unpacked_bytes: row.unpacked_bytes.unsigned_abs(),
            uploaded_by: row.uploaded_by,
            uploaded_at: row.uploaded_at,
            used_at: row.used_at,
        }
    }
}

/// The answer to an upload.
#[derive(Debug, ApiResponse)]
pub enum Stored {
    /// It was there already; it counts as used now.
    #[oai(status = 200)]
    Before(Json<Context>),
    /// It is stored.
    #[oai(status = 201)]
    New(Json<Context>),
}

#[OpenApi(prefix_path = "/v1/admin/contexts", tag = "Tag::Builds")]
impl ContextRoutes {
    /// Upload a context
    ///
    /// Streams an archive (tar, tar.gz or zip) that `COPY` can take from: the request's body is the file, and its path
    /// the file's sha256. It is stored whole or not at all, once. All of it is read and checked first; `details` names
    /// the entry that is not accepted. Ask with `HEAD` before: what is there need not be sent.
    #[oai(path = "/:sha256", method = "put", operation_id = "context_upload")]
    async fn upload(
        &self,
        caller: Allowed<Builds>,
        /// sha256 of the body, in hex.
        #[oai(validator(pattern = "^[0-9a-f]{64}$"))]
        sha256: Path<String>,
        content: Binary<Body>,
    ) -> Result<Stored, Failure> {
        let mut body = Box::pin(content.0.into_bytes_stream());
        match self.app.context_upload(&caller, &sha256.0, &mut body).await {
            Ok(Uploaded { context, is_new: true }) => Ok(Stored::New(Json(context.into()))),
            Ok(Uploaded { context, is_new: false }) => Ok(Stored::Before(Json(context.into()))),
            Err(error) => {
                // A client that still writes sees the answer.
                super::body::drain(body).await;
                Err(error.into())
            }
        }
    }

    /// Get a context
    ///
    /// Whether an archive is there, and what is known of it. `HEAD` answers the same without a body.
    #[oai(path = "/:sha256", method = "get", operation_id = "context_get")]
    async fn get(
        &self,
        _caller: Allowed<Reads>,
        /// sha256 of the archive, in hex.
        #[oai(validator(pattern = "^[0-9a-f]{64}$"))]
        sha256: Path<String>,
    ) -> Result<Json<Context>, Failure> {
        Ok(Json(self.app.context_get(&sha256.0).await?.into()))
    }
}
