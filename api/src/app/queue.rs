//! The Redis list of queued builds. Only a shortcut: a build that is not on it is found by the bridges'
//! sweep, so a push that fails costs time and nothing else.

use std::time::Duration;

use ovenbird_contract::{id::BuildId, redis::Keys};
use redis::{
    AsyncCommands as _, Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// What one call gets, the making of a connection included.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis said no, or is away.
    #[error("Redis did not do it")]
    Redis(#[from] RedisError),
    /// No answer in time.
    #[error("Redis did not answer within {DEADLINE:?}")]
    Deadline,
}

/// The producer's side of the queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    connection: ConnectionManager,
    key: String,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue in the Redis of `client`, which need not be there yet.
    ///
    /// # Errors
    /// Only for settings that Redis' client does not take.
    pub fn new(client: &Client, keys: &Keys) -> Result<Self, Error> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE))
            .set_number_of_retries(1)
            .set_max_delay(RECONNECT_MAX);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { connection, key: keys.queued() })
    }

    /// Appends a build.
    ///
    /// # Errors
    /// Then the build may or may not be on the list.
    pub async fn push(&self, build: &BuildId) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        let push = connection.rpush::<_, _, ()>(&self.key, build.to_string());
        Ok(tokio::time::timeout(DEADLINE, push).await.map_err(|_| Error::Deadline)??)
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        let ping = connection.ping::<()>();
        Ok(tokio::time::timeout(DEADLINE, ping).await.map_err(|_| Error::Deadline)??)
    }
}
