//! The list of queued builds in Redis, and the lists of ids that the bridges are relaying.
//!
//! Redis is transport: everything here may vanish at any moment, and the sweep derives it again.

use std::{collections::HashSet, time::Duration};

use ovenbird_contract::{id::BuildId, redis::Keys};
use redis::{
    AsyncCommands, Direction, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// An answer takes less, or Redis is away.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Ids read from one list at most; a longer queue is long enough to see.
const LISTED_MAX: isize = 20_000;
/// Ids moved back from one dead bridge's list in one go.
const MOVED_MAX: usize = 10_000;
/// Keys looked at by each step of a scan.
const SCAN_COUNT: usize = 500;

/// The lists, over one shared connection that comes back by itself.
#[derive(Clone)]
pub struct Queue {
    redis: ConnectionManager,
    keys: Keys,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Queue {
    /// Connects at the first use.
    ///
    /// # Errors
    /// Only for settings that Redis' client does not take.
    pub fn new(client: &redis::Client, keys: Keys) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_secs(1))
            .set_number_of_retries(2);
        let redis = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { redis, keys })
    }

    /// The keys in use.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Appends builds to the queue.
    ///
    /// # Errors
    /// When Redis is away; they may be in the list or not.
    pub async fn push(&self, builds: &[BuildId]) -> Result<(), RedisError> {
        if builds.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = builds.iter().map(ToString::to_string).collect();
        self.redis.clone().rpush(self.keys.queued(), ids).await
    }

    /// Every id in the queue and in the bridges' hands.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn ids(&self) -> Result<HashSet<String>, RedisError> {
        let mut redis = self.redis.clone();
        let mut ids: HashSet<String> = redis.lrange(self.keys.queued(), 0, LISTED_MAX - 1).await?;
        for list in self.relaying().await? {
            let more: Vec<String> = redis.lrange(list, 0, LISTED_MAX - 1).await?;
            ids.extend(more);
        }
        Ok(ids)
    }

    /// Says that `bridge` lives for `time` from now.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn alive(&self, bridge: &str, time: Duration) -> Result<(), RedisError> {
        self.redis.clone().set_ex(self.keys.bridge_alive(bridge), 1, time.as_secs().max(1)).await
    }

    /// Gives back what `bridge` was relaying, and says that it lives no more.
    ///
    /// # Errors
    /// When Redis is away; the other bridges do it then.
    pub async fn retire(&self, bridge: &str) -> Result<(), RedisError> {
        self.give_back(&self.keys.relaying(bridge)).await?;
        self.redis.clone().del(self.keys.bridge_alive(bridge)).await
    }

    /// Gives back the lists of bridges that do not live any more; answers how many ids there were. A
    /// bridge that was only slow publishes the same job under the same message id, so nothing doubles.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn reclaim(&self) -> Result<usize, RedisError> {
        let mut moved = 0;
        for list in self.relaying().await? {
            let Some((_, bridge)) = list.rsplit_once(':') else { continue };
            let alive: bool = self.redis.clone().exists(self.keys.bridge_alive(bridge)).await?;
            if !alive {
                moved += self.give_back(&list).await?;
            }
        }
        Ok(moved)
    }

    /// Moves a relaying list to the head of the queue, in its order.
    async fn give_back(&self, list: &str) -> Result<usize, RedisError> {
        let mut redis = self.redis.clone();
        for moved in 0..MOVED_MAX {
            let id: Option<String> =
                redis.lmove(list, self.keys.queued(), Direction::Right, Direction::Left).await?;
            if id.is_none() {
                return Ok(moved);
            }
        }
        Ok(MOVED_MAX)
    }

    async fn relaying(&self) -> Result<Vec<String>, RedisError> {
        let mut redis = self.redis.clone();
        let mut lists = Vec::new();
        let mut cursor = 0u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(self.keys.relaying_all())
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut redis)
                .await?;
            lists.extend(keys);
            if next == 0 {
                return Ok(lists);
            }
            cursor = next;
        }
    }
}
