//! Closes the connections of keys that ended.
//!
//! Whoever revokes a key first says so in Postgres and then to [`Revoker::cut`], which closes what is known to be
//! there, then what the servers list under the key, and from then on whoever still comes with it: a client that was
//! let in a moment before. What a replica that died did not do, the sweep does: it lists all connections and asks
//! Postgres whose keys have ended. That a key's own time is over, the server knows by itself.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Client;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use ovenbird_contract::{
    id::KeyId,
    nats_access::{Account, customers},
};
use ovenbird_kit::telemetry::chain;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::guests::{Connection, Guests};
use crate::app::{App, Error as AppError};

/// Keys that wait to be cut; further ones are left to the sweep.
const WAITING_MAX: usize = 1_024;
const CUTS_AT_ONCE: usize = 16;
/// Connections in one answer of a server.
const PAGE: usize = 1_000;
/// The first server answers in this time, or NATS is away.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Further servers of a cluster answer this soon after each other.
const NEXT_ANSWER: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(1);

/// Tells the service that a key has ended. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Revoker {
    /// None where customers have no access to NATS.
    keys: Option<mpsc::Sender<KeyId>>,
}

/// What the service is told.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<KeyId>);

impl Revoker {
    /// A handle and what it talks to.
    pub fn new() -> (Self, Requests) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { keys: Some(sender) }, Requests(receiver))
    }

    /// Has the connections of `key` closed, which Postgres must say has ended. Does not wait for it, and cannot
    /// fail: whatever is left is found by the sweep.
    pub fn cut(&self, key: KeyId) {
        if let Some(Err(error)) = self.keys.as_ref().map(|keys| keys.try_send(key)) {
            tracing::warn!(key.id = %key, %error, "the key's connections are left to the sweep");
        }
    }
}

/// The list of connections cannot be had.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("NATS cannot be asked")]
    Nats(#[source] async_nats::Error),
    #[error("no server lists its connections")]
    Away,
    #[error("Postgres cannot be asked")]
    Store(#[source] AppError),
}

/// Sees who comes and goes, and closes connections.
pub(super) struct Watch {
    hands: Arc<Hands>,
    requests: Requests,
    every: Duration,
}

struct Hands {
    client: Client,
    app: Arc<App>,
    guests: Arc<Guests>,
}

/// A connection that comes or goes, as far as it matters.
#[derive(Deserialize)]
struct Event {
    server: ServerId,
    client: Arrival,
}

#[derive(Deserialize)]
struct ServerId {
    id: String,
}

#[derive(Deserialize)]
struct Arrival {
    id: u64,
    /// The key's id: the name in the token that let it in.
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct Listing {
    server: ServerId,
    #[serde(default)]
    data: Listed,
}

#[derive(Default, Deserialize)]
struct Listed {
    #[serde(default)]
    connections: Vec<Present>,
}

#[derive(Deserialize)]
struct Present {
    cid: u64,
    #[serde(default)]
    authorized_user: String,
}

impl Watch {
    /// Watches over `client`, which is in the system account; sweeps every `every`.
    pub(super) fn new(
        client: Client,
        app: Arc<App>,
        guests: Arc<Guests>,
        requests: Requests,
        every: Duration,
    ) -> Self {
        Self { hands: Arc::new(Hands { client, app, guests }), requests, every }
    }

    /// Runs until `stopping`.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let Self { hands, mut requests, every } = self;
        let cuts = stream::poll_fn(|context| requests.0.poll_recv(context)).for_each_concurrent(
            CUTS_AT_ONCE,
            |key| {
                let hands = Arc::clone(&hands);
                async move { hands.cut(key).await }
            },
        );
        let all = async { tokio::join!(hands.listen(), hands.sweep_every(every), cuts) };
        let _ = stopping.run_until_cancelled(all).await;
    }
}

impl Hands {
    async fn listen(&self) {
        loop {
            let (came, left) = tokio::join!(
                self.client.subscribe(customers("CONNECT")),
                self.client.subscribe(customers("DISCONNECT")),
            );
            if let (Ok(came), Ok(left)) = (came, left) {
                let came = came.map(|message| (true, message));
                let left = left.map(|message| (false, message));
                let mut events = stream::select(came, left);
                while let Some((came, message)) = events.next().await {
                    self.heard(came, &message.payload).await;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn heard(&self, came: bool, payload: &[u8]) {
        let Ok(Event { server, client }) = serde_json::from_slice(payload) else {
            return tracing::warn!("the server's word on a customer is not read");
        };
        let Ok(key) = client.user.parse::<KeyId>() else { return };
        let connection = (server.id, client.id);
        if !came {
            self.guests.left(key, &connection);
        } else if !self.guests.came(key, connection.clone()) {
            self.kick(key, &connection).await;
        }
    }

    async fn cut(&self, key: KeyId) {
        let begun = Instant::now();
        let known = self.guests.end(key);
        for connection in &known {
            self.kick(key, connection).await;
        }
        match self.list(Some(key)).await {
            Ok(listed) => {
                for (_, connection) in &listed {
                    self.kick(key, connection).await;
                }
                let (known, listed) = (known.len(), listed.len());
                let took = begun.elapsed();
                tracing::info!(key.id = %key, known, listed, ?took, "a key's connections are closed");
            }
            Err(error) => {
                tracing::warn!(key.id = %key, error = chain(&error), "a key's connections are left to the sweep");
            }
        }
    }

    /// The server answers, but nobody needs to hear it: a connection that is still there is listed again.
    async fn kick(&self, key: KeyId, (server, number): &Connection) {
        let payload = Bytes::from(json!({ "cid": number }).to_string());
        let subject = format!("$SYS.REQ.SERVER.{server}.KICK");
        // Without a reply subject the server does nothing.
        let inbox = self.client.new_inbox();
        if let Err(error) = self.client.publish_with_reply(subject, inbox, payload).await {
            tracing::warn!(key.id = %key, %error, "a connection is left to the sweep");
        }
    }

    async fn sweep_every(&self, every: Duration) {
        loop {
            if let Err(error) = self.sweep().await {
                tracing::info!(error = chain(&error), "customers' connections are not swept now");
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn sweep(&self) -> Result<(), Error> {
        self.guests.forget();
        let listed = self.list(None).await?;
        let keys: BTreeSet<KeyId> = listed.iter().map(|(key, _)| *key).collect();
        self.guests.set(listed);
        let keys: Vec<KeyId> = keys.into_iter().collect();
        for key in self.app.keys_ended(&keys).await.map_err(Error::Store)? {
            self.cut(key).await;
        }
        Ok(())
    }

    /// Customers' connections at all servers; only those of one key, if one is named.
    async fn list(&self, of: Option<KeyId>) -> Result<Vec<(KeyId, Connection)>, Error> {
        let mut found = Vec::new();
        for page in 0.. {
            let (more, full) = self.page(of, page * PAGE).await?;
            found.extend(more);
            if !full {
                break;
            }
        }
        Ok(found)
    }

    /// Answers whether a server may have more, too.
    async fn page(
        &self,
        of: Option<KeyId>,
        offset: usize,
    ) -> Result<(Vec<(KeyId, Connection)>, bool), Error> {
        let mut query = json!({
            "acc": Account::Readers.as_str(), "auth": true, "limit": PAGE, "offset": offset,
        });
        if let Some(key) = of {
            query["user"] = key.to_string().into();
        }
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|error| Error::Nats(error.into()))?;
        self.client
            .publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, Bytes::from(query.to_string()))
            .await
            .map_err(|error| Error::Nats(error.into()))?;
        let (mut found, mut full, mut patience, mut servers) = (Vec::new(), false, FIRST_ANSWER, 0);
        while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
            let Ok(Listing { server, data }) = serde_json::from_slice(&answer.payload) else {
                tracing::warn!("a server's list of connections is not read");
                continue;
            };
            patience = NEXT_ANSWER;
            servers += 1;
            full |= data.connections.len() >= PAGE;
            found.extend(data.connections.into_iter().filter_map(|present| {
                let key = present.authorized_user.parse::<KeyId>().ok()?;
                Some((key, (server.id.clone(), present.cid)))
            }));
        }
        if servers == 0 { Err(Error::Away) } else { Ok((found, full)) }
    }
}
