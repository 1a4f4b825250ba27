//! Redis keys. Redis is transport only: everything in it can be derived again from Postgres.

/// Keys of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys under `ovenbird:{prefix}:`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The list of queued build ids: RPUSH by the api, BLMOVE from its head by a bridge.
    pub fn queued(&self) -> String {
        format!("ovenbird:{}:builds:queued", self.prefix)
    }

    /// The ids that one bridge is relaying.
    pub fn relaying(&self, bridge: &str) -> String {
        format!("ovenbird:{}:builds:relaying:{bridge}", self.prefix)
    }

    /// Pattern over every bridge's relaying list.
    pub fn relaying_all(&self) -> String {
        format!("ovenbird:{}:builds:relaying:*", self.prefix)
    }

    /// A token bucket of the rate limiter: a hash that expires once it is full again.
    pub fn rate(&self, bucket: &str) -> String {
        format!("ovenbird:{}:rate:{bucket}", self.prefix)
    }

    /// Lives (with an expiry) as long as the bridge does; without it the others take its relaying list.
    pub fn bridge_alive(&self, bridge: &str) -> String {
        format!("ovenbird:{}:bridge:{bridge}:alive", self.prefix)
    }
}
