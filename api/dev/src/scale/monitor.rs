//! The lag of consumers, read where KEDA's scaler for JetStream reads it: the monitoring endpoint of NATS.

use std::time::Duration;

use anyhow::Context;
use reqwest::Client;
use serde_json::Value;

use super::autoscaler::Trigger;

/// Jobs of consumers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// `num_pending`: that nobody has.
    pub pending: u64,
    /// `num_ack_pending`: that a runner has, or gave back for a while.
    pub ack_pending: u64,
}

impl Lag {
    /// What KEDA counts.
    pub fn total(self) -> u64 {
        self.pending + self.ack_pending
    }
}

/// A NATS server's monitoring endpoint.
#[derive(Debug)]
pub struct Monitor {
    client: Client,
    url: String,
}

impl Monitor {
    /// At `http://host:port`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(url: String) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        Ok(Self { client, url })
    }

    /// The lag of all `triggers` together.
    ///
    /// # Errors
    /// When the server does not answer, or knows none of a trigger's stream.
    pub async fn lag(&self, triggers: &[Trigger]) -> anyhow::Result<Lag> {
        let mut sum = Lag::default();
        for trigger in triggers {
            let lag = self.lag_of(trigger).await?;
            sum.pending += lag.pending;
            sum.ack_pending += lag.ack_pending;
        }
        Ok(sum)
    }

    async fn lag_of(&self, trigger: &Trigger) -> anyhow::Result<Lag> {
        let Trigger { account, stream, consumer } = trigger;
        let url = format!("{}/jsz?acc={account}&consumers=true&config=true", self.url);
        let text = self.client.get(&url).send().await?.error_for_status()?.text().await?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))?;
        let found = named(&answer["account_details"], account)
            .and_then(|account| named(&account["stream_detail"], stream))
            .with_context(|| format!("{url} knows no stream {stream} of {account}: {text}"))?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        // Without the consumer, KEDA takes every message that there ever was for work.
        Ok(named(&found["consumer_detail"], consumer).map_or_else(
            || Lag { pending: number(&found["state"]["last_seq"]), ack_pending: 0 },
            |consumer| Lag {
                pending: number(&consumer["num_pending"]),
                ack_pending: number(&consumer["num_ack_pending"]),
            },
        ))
    }
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|one| one["name"] == name)
}
