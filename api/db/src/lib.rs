//! Postgres: entities are passive rows, [`store::Store`] holds the queries under resource-first names
//! (`build_claim`, `template_list`). Ids are `uuid` columns here and the contract's TypeIDs outside.
//!
//! No HTTP, no NATS, no Redis, and no decision that a pure function of `ovenbird-contract` makes: the
//! store asks that function inside the transaction that writes.

pub mod chunk;
pub mod entity;
pub mod store;

use std::{path::Path, time::Duration};

use sea_orm::{ConnectOptions, Database, DatabaseConnection, sqlx::postgres::PgSslMode};

pub use store::{Error, Store};

/// A statement that takes longer than this is a fault; Postgres ends it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request waits for a connection of the pool, and for a new one to be made.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of at most `connections` to `url`, made lazily: a Postgres that is away makes calls fail, not
/// the start of the process.
///
/// # Errors
/// [`Error::Database`] when the URL cannot be read.
pub async fn connect(url: &str, connections: u32, name: &str) -> Result<DatabaseConnection, Error> {
    connect_over(url, None, connections, name).await
}

/// As [`connect`]; with an authority's file over TLS alone, to a server that has the URL's name in a certificate of that
/// authority, or of a public one of the web: sqlx adds the file to those (`import_root_certs`), and has no feature or
/// option without them.
///
/// # Errors
/// As [`connect`].
pub async fn connect_over(
    url: &str,
    authority: Option<&Path>,
    connections: u32,
    name: &str,
) -> Result<DatabaseConnection, Error> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        .statement_timeout(STATEMENT_TIMEOUT)
        // A round trip before each use would double the cost of the short statements here. One after a
        // pause finds the connections that a restart of Postgres broke; one that breaks in use fails one
        // call, which every caller repeats or answers as unavailable.
        .test_before_acquire_if_idle_for(Duration::from_secs(1))
        .set_application_name(name)
        .sqlx_logging(false)
        .connect_lazy(true);
    if let Some(authority) = authority.map(Path::to_owned) {
        options.map_sqlx_postgres_opts(move |postgres| {
            postgres.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(&authority)
        });
    }
    Ok(Database::connect(options).await?)
}
