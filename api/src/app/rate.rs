//! How often a caller may ask, and how much of it is kept: token buckets in Redis, some for each key, and one for each
//! address that sends none or a wrong one. All replicas share them.
//!
//! Without Redis every request goes through. The limits keep one caller from taking everybody's share; they hold
//! no secret and no state, and an installation that answers nobody because its limiter is away would have done to
//! itself what they guard against.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ovenbird_contract::{id::KeyId, redis::Keys};
use ovenbird_kit::telemetry;
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::App;
use crate::config;

/// Redis is not asked for so long after it failed, or each request would wait for it.
const PAUSE: Duration = Duration::from_secs(1);
/// Refusals of callers without a key that the audit log takes, of all addresses together.
const AUDIT: Rate = Rate { per_second: 1, burst: 60 };

/// Refusals of one key that the audit log takes. Who is refused more often than that has told all there is to tell.
const REFUSED: Rate = Rate { per_second: 1, burst: 60 };

/// Takes `ARGV[3]` tokens from `KEYS[1]`, which holds at most `ARGV[1]` and gains `ARGV[2]` a second. Answers whether
/// there were so many, the whole tokens left, and the milliseconds until it is full and until there are so many. The
/// clock is Redis' own: those of the replicas differ.
const TAKE: &str = r"
local burst, per_second, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(kept[1]) or burst, tonumber(kept[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * per_second / 1000)
local granted = tokens >= wanted
if granted then tokens = tokens - wanted end
local full = math.max(1, math.ceil((burst - tokens) * 1000 / per_second))
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], full)
return {granted and 1 or 0, math.floor(tokens), full, math.max(0, math.ceil((wanted - tokens) * 1000 / per_second))}
";

/// Whose tokens are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// A key's.
    Key(KeyId),
    /// Those of an address that comes without a valid key.
    Address(IpAddr),
    /// The audit log's, for refusals of callers without a key.
    Audit,
    /// The audit log's, for refusals of a key.
    Refused(KeyId),
    /// A key's, for requests that may be sent again.
    Repeats(KeyId),
    /// A key's, for the KiB of their answers.
    Kept(KeyId),
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// How a bucket stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether there was a token.
    pub granted: bool,
    /// What it holds at most.
    pub limit: u32,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// Until it is full.
    pub reset: Duration,
    /// Until there is a token.
    pub retry: Duration,
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Redis did not do it")]
    Redis(#[from] RedisError),
    #[error("Redis did not answer within {0:?}")]
    Deadline(Duration),
}

/// The buckets.
pub struct Limiter {
    connection: ConnectionManager,
    script: Script,
    keys: Keys,
    rates: config::Rate,
    started: Instant,
    /// Milliseconds after `started` before which Redis is not asked.
    pause_until: AtomicU64,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("rates", &self.rates).finish_non_exhaustive()
    }
}

impl Limiter {
    /// Buckets in the Redis of `client`, which need not be there.
    ///
    /// # Errors
    /// Only for settings that Redis' client does not take.
    pub fn new(client: &Client, keys: Keys, rates: config::Rate) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(rates.redis_deadline))
            .set_response_timeout(Some(rates.redis_deadline))
            .set_number_of_retries(1)
            .set_max_delay(PAUSE);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let (script, started) = (Script::new(TAKE), Instant::now());
        Ok(Self { connection, script, keys, rates, started, pause_until: AtomicU64::new(0) })
    }

    /// Takes `wanted` tokens. `None` when Redis is away.
    async fn take(&self, bucket: Bucket, wanted: u32) -> Option<Standing> {
        if self.elapsed_ms() < self.pause_until.load(Ordering::Relaxed) {
            return None;
        }
        match self.ask(bucket, wanted).await {
            Ok(standing) => Some(standing),
            Err(error) => {
                let until = self.elapsed_ms() + PAUSE.as_millis() as u64;
                self.pause_until.store(until, Ordering::Relaxed);
                tracing::warn!(error = telemetry::chain(&error), "requests are not limited");
                None
            }
        }
    }

    async fn ask(&self, bucket: Bucket, wanted: u32) -> Result<Standing, Error> {
        let (name, rate) = self.rate(bucket);
        let mut connection = self.connection.clone();
        let mut call = self.script.key(self.keys.rate(&name));
        call.arg(rate.burst).arg(rate.per_second).arg(wanted);
        let asked = call.invoke_async::<(bool, u32, u64, u64)>(&mut connection);
        let deadline = self.rates.redis_deadline;
        let (granted, remaining, reset_ms, retry_ms) = tokio::time::timeout(deadline, asked)
            .await
            .map_err(|_| Error::Deadline(deadline))??;
        let (reset, retry) = (Duration::from_millis(reset_ms), Duration::from_millis(retry_ms));
        Ok(Standing { granted, limit: rate.burst, remaining, reset, retry })
    }

    fn rate(&self, bucket: Bucket) -> (String, Rate) {
        let rate = |per_second: NonZeroU32, burst: NonZeroU32| Rate {
            per_second: per_second.get(),
            burst: burst.get(),
        };
        let rates = &self.rates;
        match bucket {
            Bucket::Key(key) => (key.to_string(), rate(rates.key_per_second, rates.key_burst)),
            Bucket::Address(address) => (
                format!("address:{}", network(address)),
                rate(rates.address_per_second, rates.address_burst),
            ),
            Bucket::Audit => ("audit".to_owned(), AUDIT),
            Bucket::Refused(key) => (format!("refused:{key}"), REFUSED),
            Bucket::Repeats(key) => {
                (format!("repeats:{key}"), rate(rates.repeats_per_second, rates.repeats_burst))
            }
            Bucket::Kept(key) => {
                (format!("kept:{key}"), rate(rates.kept_kib_per_second, rates.kept_kib_burst))
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Who has one IPv6 address has the 2^64 beside it.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

impl App {
    /// Takes a token from `bucket`. `None` when nobody knows how it stands: the request goes on.
    pub async fn rate_take(&self, bucket: Bucket) -> Option<Standing> {
        self.rate_take_many(bucket, 1).await
    }

    /// Takes `wanted` tokens from `bucket`, or none. `None` when nobody knows how it stands.
    pub async fn rate_take_many(&self, bucket: Bucket, wanted: u32) -> Option<Standing> {
        let standing = self.limiter.take(bucket, wanted).await;
        if let (Bucket::Address(address), Some(Standing { granted: false, .. })) =
            (bucket, standing)
        {
            self.strangers.was_empty(address);
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_share_a_bucket() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
