//! Customers on NATS: whoever has an API key may hear the logs and events of the builds that the key reads.
//!
//! ```text
//!   client ──token──► nats-server ──request──► callout ──► Postgres: whose key, which builds
//!     ▲                    │  ◄── user JWT ───────┘
//!     └── logs, events ────┤  connect, disconnect ─► guests: connections per key
//!         until the end    │  ◄── KICK ───────────── revoker: keys that ended
//! ```
//!
//! [`callout`] answers the server's question who a client is, [`revoker`] closes the connections of keys that end,
//! and [`guests`] counts who is there. Any number of replicas of the api may do this at once: the server asks one of
//! them, and tells all of them who comes and goes. While none runs nobody new is let in, and whoever is there stays.
//!
//! What a client may hear is decided when it connects. A key that reads everything hears every build; one of scope
//! `build` hears the builds that it had by then, those that still run first, up to a bound: for a build that is newer
//! than its connection it connects again. History is not here: it comes from REST, joined by `seq`.

mod callout;
pub mod files;
mod guests;
mod jwt;
mod revoker;

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event};
use futures::FutureExt as _;
use nkeys::KeyPair;
use ovenbird_contract::{nats::Names, nats_access::Role};
use ovenbird_kit::{Secret, secret};
use tokio_util::sync::CancellationToken;

pub use revoker::{Requests, Revoker};

use self::{callout::Callout, guests::Guests, revoker::Watch};
use crate::{
    app::App,
    config::{NatsAccess, Nkeys},
    nats::Server,
};

/// A request to NATS without an answer for this long has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of `[nats_access.nkeys]`.
    #[error("[nats_access.nkeys] cannot be used")]
    File(#[from] secret::Error),
    /// The issuer's file holds no seed of an account.
    #[error("`issuer` of [nats_access.nkeys] holds no account's seed")]
    Issuer(#[source] nkeys::error::Error),
    /// `nats_url` cannot be read.
    #[error("NATS: check `nats_url`")]
    Nats(#[from] async_nats::ConnectError),
}

/// Lets customers in and closes their connections again.
pub struct Service {
    callout: Callout,
    watch: Watch,
}

impl Service {
    /// Reads the seeds and connects, as the callout and as the revoker; NATS need not be there yet.
    ///
    /// # Errors
    /// What no waiting mends.
    pub async fn connect(
        server: &Server,
        settings: &NatsAccess,
        nkeys: &Nkeys,
        names: Names,
        app: Arc<App>,
        requests: Requests,
    ) -> Result<Self, Error> {
        let seed = Secret::read(&nkeys.issuer)?;
        let issuer = KeyPair::from_seed(seed.expose()).map_err(Error::Issuer)?;
        let guests = Arc::new(Guests::new(settings.connections_max));
        let asked = connection(server, Role::Callout, &Secret::read(&nkeys.callout)?).await?;
        let system = connection(server, Role::Revoker, &Secret::read(&nkeys.revoker)?).await?;
        Ok(Self {
            callout: Callout::new(
                asked,
                issuer,
                names,
                Arc::clone(&app),
                Arc::clone(&guests),
                settings.clone(),
            ),
            watch: Watch::new(system, app, guests, requests, settings.sweep),
        })
    }

    /// Runs until `stopping`. Clients stay connected.
    pub async fn run(self, stopping: CancellationToken) {
        let callout = self.callout.run(stopping.clone()).boxed();
        let watch = self.watch.run(stopping).boxed();
        tokio::join!(callout, watch);
    }
}

async fn connection(
    server: &Server,
    role: Role,
    seed: &Secret<String>,
) -> Result<Client, async_nats::ConnectError> {
    let options = ConnectOptions::new()
        .name(format!("ovenbird-api {}", role.as_str()))
        .nkey(seed.expose().clone())
        .custom_inbox_prefix(role.inbox_prefix())
        .request_timeout(Some(REQUEST_TIMEOUT))
        .event_callback(move |event| async move {
            let role = role.as_str();
            match event {
                Event::ClientError(error) => tracing::warn!(role, %error, "NATS connection"),
                event => tracing::info!(role, %event, "NATS connection"),
            }
        });
    server.connect(options).await
}
