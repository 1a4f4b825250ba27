//! The process: its services are connected to, its routes served until it is told to stop.
//!
//! It starts without Postgres, NATS or Redis being there; `/readyz` says which of them are missing.

use std::{net::SocketAddr, sync::Arc};

use async_nats::jetstream;
use ovenbird_agent_client::Agents;
use ovenbird_contract::{nats::Names, redis::Keys};
use ovenbird_db::Store;
use ovenbird_kit::{Secret, metrics, secret, tls};
use poem::Server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        App,
        contexts::Contexts,
        control::Control,
        logs, queue,
        rate::Limiter,
        registration::{self, Authority, Registrar},
        sandboxes::Sandboxes,
        slots::Slots,
    },
    config::{self, Config},
    first_head::FirstHead,
    http,
    listener::Bounded,
    nats,
    nats_access::{self, Revoker},
};

/// The process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: check `{key}`")]
    Listen {
        /// Which key of the configuration says so.
        key: &'static str,
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
    /// `database_ca`, `redis_ca` or `nats_ca`.
    #[error("an authority cannot be used")]
    Authority(#[source] ovenbird_kit::tls::Error),
    /// A TLS file for the host agents cannot be read.
    #[error("host agents: check `agents.tls`")]
    Tls(#[from] ovenbird_kit::tls::Error),
    /// A file of the authority for hosts cannot be used.
    #[error("hosts' certificates: check `registration.authority`")]
    HostAuthority(#[from] registration::AuthorityError),
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
    /// Where metrics are served, if anywhere.
    metrics_listener: Option<TcpListener>,
    stopping: CancellationToken,
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { key, address, source })
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
                let server = nats::Server::new(&config).map_err(Error::Authority)?;
                let access = nats_access::Service::connect(
                    &server,
                    &config.nats_access,
                    &nkeys,
                    Names::new(&config.prefix),
                    Arc::clone(&app),
                    requests,
                );
                (app, Some(access.await?))
            }
        };
        let listener = listen("listen", config.listen).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen("metrics_listen", address).await?),
            None => None,
        };
        Ok(Self { config, app, access, listener, metrics_listener, stopping })
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
        let Self { config, app, access, listener, metrics_listener, stopping } = self;
        let (connections_max, write_timeout) =
            (config.http.connections_max, config.logs.slow_client_timeout);
        let acceptor =
            Bounded::new(listener, connections_max, write_timeout).map_err(Error::Serve)?;
        let endpoint = http::endpoint(&app, acceptor.open(), &config.http, &config.logs)?;
        let acceptor = FirstHead::new(acceptor, config.http.head_timeout);
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
        let metrics = async {
            let Some(listener) = metrics_listener else { return };
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "metrics are served");
            }
            let registry = app.metrics().registry(Arc::clone(&app));
            metrics::serve(listener, registry, ended.clone()).await;
        };
        let access = async {
            if let Some(access) = access {
                access.run(ended.clone()).await;
            }
        };
        tokio::join!(serve, access, metrics).0.map_err(Error::Serve)
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
    let (redis, keys) = (redis_client(config)?, Keys::new(&config.prefix));
    let queue = queue::Queue::new(&redis, &keys).map_err(Error::Redis)?;
    let limiter =
        Limiter::new(&redis, keys, config.rate).map_err(|error| Error::Redis(error.into()))?;
    let names = Names::new(&config.prefix);
    let nats = nats::Server::new(config).map_err(Error::Authority)?;
    let nkey = config.nats_nkey.as_deref().map(Secret::read).transpose()?;
    let logs = logs::Reader::connect(
        &nats,
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
    let config::Registration { certificate_lifetime, token_lifetime, authority } =
        &config.registration;
    let authority = authority.as_ref().map(Authority::read).transpose()?;
    let registrar = Registrar::new(authority, *certificate_lifetime, *token_lifetime);
    let bounds = config.bounds;
    Ok(Arc::new(App::new(
        store, queue, logs, control, revoker, sandboxes, limiter, slots, registrar, contexts,
        bounds,
    )))
}

/// The configured Postgres.
///
/// # Errors
/// A URL or an authority's file that cannot be read.
pub async fn store(config: &Config) -> Result<Store, Error> {
    if let Some(file) = &config.database_ca {
        tls::authority("database_ca", file).map_err(Error::Authority)?;
    }
    let (url, authority) = (config.database_url.expose(), config.database_ca.as_deref());
    let connections = config.database_connections;
    let pool = ovenbird_db::connect_over(url, authority, connections, "ovenbird-api").await?;
    Ok(Store::new(pool))
}

fn redis_client(config: &Config) -> Result<redis::Client, Error> {
    let url = config.redis_url.expose().as_str();
    let opened = match &config.redis_ca {
        None => redis::Client::open(url),
        Some(file) => {
            let root_cert = Some(tls::authority("redis_ca", file).map_err(Error::Authority)?);
            let authorities = redis::TlsCertificates { client_tls: None, root_cert };
            redis::Client::build_with_tls(url, authorities)
        }
    };
    opened.map_err(|error| Error::Redis(error.into()))
}
