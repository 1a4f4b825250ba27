//! Every query. One file per resource or duty; the names begin with the resource.
//!
//! Writing statements compare what they rely on (status, attempt, lease owner, lease) themselves. A
//! method that returns a refusal changed nothing.

pub mod audit;
pub mod build;
pub mod build_admin;
pub mod cancel;
pub mod claim;
mod claim_first;
pub mod context;
pub mod finish;
pub mod hearing;
pub mod host;
pub mod host_admin;
pub mod host_registration;
pub mod idempotency;
pub mod job;
pub mod key;
pub mod lease;
pub mod ledger;
pub mod orphan;
pub mod queue;
pub mod reader;
pub mod sandbox;
pub mod sandbox_state;
pub mod session;
pub mod stats;
pub mod template;
pub mod template_admin;
pub mod template_delete;
pub mod template_name;
pub mod template_tag;
pub mod turn;

use sea_orm::{DatabaseConnection, DbBackend, DbErr, Statement, Value};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

/// The queries over one pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    db: DatabaseConnection,
    key_builds_max: u32,
}

impl Store {
    /// Queries over `db`.
    pub fn new(db: DatabaseConnection) -> Self {
        Self { db, key_builds_max: 0 }
    }

    /// The same, with a limit of builds of one API key that run at the same time; 0: none.
    pub fn limited(self, key_builds_max: u32) -> Self {
        Self { key_builds_max, ..self }
    }

    /// The pool, for readiness checks and migrations.
    pub fn connection(&self) -> &DatabaseConnection {
        &self.db
    }

    /// Whether Postgres answers.
    ///
    /// # Errors
    /// [`Error::Database`] when it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(self.db.ping().await?)
    }
}

/// A query failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres refused the statement or could not be reached.
    #[error("Postgres did not do it")]
    Database(#[source] DbErr),
    /// What was to start from a template came too late: it is deleted.
    #[error("the template is deleted")]
    TemplateDeleted,
    /// The context that a new build names is not there any more.
    #[error("the context is gone")]
    ContextGone,
    /// A row holds what this code never writes.
    #[error("{table}.{column} holds an unknown value")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Log records could not be packed or unpacked.
    #[error("a log chunk is not usable")]
    Chunk(#[from] crate::chunk::Error),
    /// A value could not become JSON.
    #[error("a value has no JSON form")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// Whether Postgres ended the transaction because it and another one waited for each other; nothing of
    /// it was done.
    fn is_deadlock(&self) -> bool {
        matches!(self, Self::Database(error) if sqlstate(error).as_deref() == Some("40P01"))
    }

    /// Whether the statement itself is at fault, so that repeating it cannot help. Everything else
    /// (Postgres away, a deadlock, a full pool) is worth another try.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::TemplateDeleted
            | Self::ContextGone
            | Self::Corrupt { .. }
            | Self::Chunk(_)
            | Self::Json(_) => true,
            Self::Database(error) => sqlstate(error).is_some_and(|code| {
                // Data exceptions and broken constraints; see Postgres' appendix A.
                code.starts_with("22") || code.starts_with("23")
            }),
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match refusal(&error).and_then(|refusal| refusal.constraint()) {
            Some(TEMPLATE_IS_KEPT) => Self::TemplateDeleted,
            Some(CONTEXT_IS_THERE) => Self::ContextGone,
            _ => Self::Database(error),
        }
    }
}

/// The name under which the trigger of `template_builds` and `sandboxes` refuses a deleted template.
const TEMPLATE_IS_KEPT: &str = "template_is_kept";

/// The name under which the trigger of `template_builds` refuses a context that is gone.
const CONTEXT_IS_THERE: &str = "context_is_there";

/// What Postgres said, when it was Postgres that refused.
fn refusal(error: &DbErr) -> Option<&dyn sea_orm::sqlx::error::DatabaseError> {
    use sea_orm::RuntimeErr;
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error)) => error.as_database_error(),
        _ => None,
    }
}

/// The five letters of Postgres' error.
fn sqlstate(error: &DbErr) -> Option<String> {
    refusal(error)?.code().map(std::borrow::Cow::into_owned)
}

fn corrupt<E>(table: &'static str, column: &'static str) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| Error::Corrupt { table, column, source: source.into() }
}

fn sql(text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, text, values)
}

/// JSON that Postgres takes: `jsonb` refuses U+0000, which any program may print. It becomes U+FFFD.
fn json<T: Serialize>(value: &T) -> Result<Json, Error> {
    fn clean(value: &mut Json) {
        match value {
            Json::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
            Json::Array(items) => items.iter_mut().for_each(clean),
            Json::Object(map) => map.values_mut().for_each(clean),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(value)?;
    clean(&mut value);
    Ok(value)
}

fn from_json<T: DeserializeOwned>(
    value: Json,
    table: &'static str,
    column: &'static str,
) -> Result<T, Error> {
    serde_json::from_value(value).map_err(corrupt(table, column))
}
