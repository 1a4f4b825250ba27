//! Tells whoever works on a build, over NATS, to look at it again now. Only a shortcut: what is to be done
//! stands in Postgres, a runner hears of it at its next renewal and a bridge at its next sweep. So a message
//! that is lost costs time and nothing else, and it does not matter which replica of the api sends it.

use std::time::Duration;

use async_nats::Client;
use ovenbird_contract::{id::BuildId, nats::Names};

/// The client's own queue is full after so long without NATS.
const DEADLINE: Duration = Duration::from_secs(1);

/// The sender. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    client: Client,
    names: Names,
}

impl Control {
    /// A sender over `client`.
    pub fn new(client: Client, names: Names) -> Self {
        Self { client, names }
    }

    /// Says that something about `build` changed.
    pub async fn wake(&self, build: &BuildId) {
        let publish = self.client.publish(self.names.control(build), "".into());
        if !matches!(tokio::time::timeout(DEADLINE, publish).await, Ok(Ok(()))) {
            tracing::info!(build.id = %build, "NATS takes no message; the change is noticed later");
        }
    }
}
