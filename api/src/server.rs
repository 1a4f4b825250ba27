//! The process: its services are connected to, its routes served until it is told to stop.
//!
//! It starts without Postgres, NATS or Redis being there; `/readyz` says so until they are.

use std::{net::SocketAddr, sync::Arc};

use async_nats::jetstream;
use ovenbird_agent_client::Agents;
use ovenbird_contract::{nats::Names, redis::Keys};
use ovenbird_db::Store;
use ovenbird_kit::{Secret, secret};
use poem::Server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        App, contexts::Contexts, control::Control, logs, queue, rate::Limiter,
        sandboxes::Sandboxes, slots::Slots,
    },
    config::Config,
    http,
    listener::Bounded,
    nats_access::{self, Revoker},
};

/// The process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: check `listen`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `database_url` cannot be read.
    #[error("Postgres: check `database_url`")]
    Database(#[from] ovenbird_db::Error),
    /// `redis_url` cannot be read.
    #[error("Redis: check `redis_url`")]
    Redis(#[source] queue::Error),
    /// `nats_url` cannot be read.
    #[error("NATS: check `nats_url`")]
    Nats(#[from] async_nats::ConnectError),
    /// `nats_nkey`.
    #[error("`nats_nkey` cannot be used")]
    Nkey(#[from] secret::Error),
    /// `[nats_access]`.
    #[error("customers cannot be let in to NATS")]
    NatsAccess(#[from] nats_access::Error),
    /// A TLS file for the host agents cannot be read.
    #[error("host agents: check `agents.tls`")]
    Tls(#[from] ovenbird_kit::tls::Error),
    /// The API's own description is broken.
    #[error("the OpenAPI document cannot be made")]
    Spec(#[from] serde_json::Error),
    /// The server broke.
    #[error("the server broke")]
    Serve(#[source] std::io::Error),
}

/// A process that listens and is ready to run.
pub struct Service {
    config: Config,
    app: Arc<App>,
    access: Option<nats_access::Service>,
    listener: TcpListener,
    stopping: CancellationToken,
}

impl Service {
    /// Connects and listens. Log streams end as soon as `stopping` is cancelled, other requests may end.
    ///
    /// # Errors
    /// A URL that cannot be read, an address that cannot be listened on.
    pub async fn bind(config: Config, stopping: CancellationToken) -> Result<Self, Error> {
        let (app, access) = match config.nats_access.nkeys.clone() {
            None => (connect(&config, Revoker::default(), stopping.clone()).await?, None),
            Some(nkeys) => {
                let (revoker, requests) = Revoker::new();
                let app = connect(&config, revoker, stopping.clone()).await?;
                let access = nats_access::Service::connect(
                    &config.nats_url,
                    &config.nats_access,
                    &nkeys,
                    Names::new(&config.prefix),
                    Arc::clone(&app),
                    requests,
                );
                (app, Some(access.await?))
            }
        };
        let address = config.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        Ok(Self { config, app, access, listener, stopping })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(Error::Serve)
    }

    /// The use cases.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Serves until it is told to stop, and then until the requests in flight have ended.
    ///
    /// # Errors
    /// When the server breaks.
    pub async fn run(self) -> Result<(), Error> {
        let Self { config, app, access, listener, stopping } = self;
        let endpoint = http::endpoint(&app, &config.http, &config.logs)?;
        let acceptor =
            Bounded::new(listener, config.logs.slow_client_timeout).map_err(Error::Serve)?;
        // Until the last change is made: it may revoke a key.
        let ended = CancellationToken::new();
        let serve = async {
            let served = Server::new_with_acceptor(acceptor)
                .name("ovenbird-api")
                .idle_timeout(config.http.idle_timeout)
                .run_with_graceful_shutdown(
                    endpoint,
                    stopping.cancelled_owned(),
                    Some(config.http.shutdown_timeout),
                )
                .await;
            app.sandboxes().close(config.http.shutdown_timeout).await;
            app.changes().close();
            let changes = app.changes().wait();
            if tokio::time::timeout(config.http.shutdown_timeout, changes).await.is_err() {
                tracing::warn!(changes = app.changes().len(), "changes are broken off");
            }
            ended.cancel();
            served
        };
        let access = async {
            if let Some(access) = access {
                access.run(ended.clone()).await;
            }
        };
        tokio::join!(serve, access).0.map_err(Error::Serve)
    }
}

/// The use cases over the configured services. Keys that end are told to `revoker`.
///
/// # Errors
/// A URL that cannot be read, an nkey that is not there.
pub async fn connect(
    config: &Config,
    revoker: Revoker,
    stopping: CancellationToken,
) -> Result<Arc<App>, Error> {
    let store = store(config).await?;
    let (redis_url, keys) = (config.redis_url.expose(), Keys::new(&config.prefix));
    let queue = queue::Queue::new(redis_url, &keys).map_err(Error::Redis)?;
    let limiter =
        Limiter::new(redis_url, keys, config.rate).map_err(|error| Error::Redis(error.into()))?;
    let names = Names::new(&config.prefix);
    let url = config.nats_url.expose();
    let nkey = config.nats_nkey.as_deref().map(Secret::read).transpose()?;
    let logs = logs::Reader::connect(
        url,
        nkey,
        names.clone(),
        store.clone(),
        config.logs.clone(),
        stopping.clone(),
    )
    .await?;
    let jetstream = jetstream::new(logs.client().clone());
    let contexts = Contexts::new(jetstream.clone(), &names, config.contexts.clone());
    let slots = Slots::new(jetstream, names.clone());
    let control = Control::new(logs.client().clone(), names);
    let agents = match &config.agents.tls {
        Some(files) => Some(Agents::new(files, ovenbird_agent_client::Config::default())?),
        None => None,
    };
    // Before its connection is given up, a client that reads again finds out why nothing more comes.
    let patience = config.logs.slow_client_timeout / 2;
    let sandboxes = Sandboxes::new(agents, config.sandboxes.clone(), patience, stopping);
    let bounds = config.bounds;
    Ok(Arc::new(App::new(
        store, queue, logs, control, revoker, sandboxes, limiter, slots, contexts, bounds,
    )))
}

/// The configured Postgres.
///
/// # Errors
/// A URL that cannot be read.
pub async fn store(config: &Config) -> Result<Store, ovenbird_db::Error> {
    let url = config.database_url.expose();
    let pool = ovenbird_db::connect(url, config.database_connections, "ovenbird-api").await?;
    Ok(Store::new(pool))
}
