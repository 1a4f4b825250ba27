//! A small client of the REST API, for the demo and the end-to-end tests.

use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

/// The REST API, with a key.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    url: String,
    key: String,
}

impl Api {
    /// The API at `url`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(url: String, key: &str) -> anyhow::Result<Self> {
        let client =
            Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy().build()?;
        Ok(Self { client, url, key: key.to_owned() })
    }

    /// Whether it and everything behind it is ready.
    pub async fn ready(&self) -> bool {
        let asked =
            self.client.get(format!("{}/readyz", self.url)).timeout(Duration::from_secs(5)).send();
        let Ok(answer) = asked.await else { return false };
        let told: Value = answer.json().await.unwrap_or_default();
        let is_there = |check: &Value| check["ok"] == true;
        told["checks"].as_array().is_some_and(|checks| checks.iter().all(is_there))
    }

    /// Announces a host; the answer holds the token for its agent.
    ///
    /// # Errors
    /// With the API's own words when it is refused.
    pub async fn host_create(&self, name: &str) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}/v1/admin/hosts", self.url));
        self.json(request.json(&serde_json::json!({ "name": name }))).await
    }

    /// The hosts; the first page of them.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn hosts(&self) -> anyhow::Result<Vec<Value>> {
        let request = self.client.get(format!("{}/v1/admin/hosts?limit=200", self.url));
        let page = self.json(request).await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    /// Gives a host labels.
    ///
    /// # Errors
    /// With the API's own words when it is refused.
    pub async fn host_labels_set(&self, id: &str, labels: &Value) -> anyhow::Result<Value> {
        let request = self.client.put(format!("{}/v1/admin/hosts/{id}/labels", self.url));
        self.json(request.json(&serde_json::json!({ "labels": labels }))).await
    }

    /// Submits a build.
    ///
    /// # Errors
    /// With the API's own words when it is refused.
    pub async fn build_create(&self, build: &Value) -> anyhow::Result<Value> {
        self.json(self.client.post(format!("{}/v1/admin/builds", self.url)).json(build)).await
    }

    /// Submits a build; the same key is the same build, however often it is asked for.
    ///
    /// # Errors
    /// With the API's own words when it is refused.
    pub async fn build_submit(&self, build: &Value, key: &str) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}/v1/admin/builds", self.url));
        self.json(request.header("idempotency-key", key).json(build)).await
    }

    /// A build.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn build_get(&self, id: &str) -> anyhow::Result<Value> {
        self.json(self.client.get(format!("{}/v1/admin/builds/{id}", self.url))).await
    }

    /// Cancels a build.
    ///
    /// # Errors
    /// With the API's own words when it is refused.
    pub async fn build_cancel(&self, id: &str, why: &str) -> anyhow::Result<Value> {
        let request = self.client.post(format!("{}/v1/admin/builds/{id}/cancel", self.url));
        self.json(request.json(&serde_json::json!({ "why": why }))).await
    }

    /// Submits a build that failed or was cancelled again.
    ///
    /// # Errors
    /// With the API's own words when it is refused.
    pub async fn build_retry(&self, id: &str) -> anyhow::Result<Value> {
        self.json(self.client.post(format!("{}/v1/admin/builds/{id}/retry", self.url))).await
    }

    /// The queue.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn queue(&self) -> anyhow::Result<Value> {
        self.json(self.client.get(format!("{}/v1/admin/queue", self.url))).await
    }

    /// The builds, newest first; the first page of them.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn builds(&self) -> anyhow::Result<Vec<Value>> {
        let page = self.json(self.client.get(format!("{}/v1/admin/builds", self.url))).await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    /// The templates, newest first; the first page of them.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn templates(&self) -> anyhow::Result<Vec<Value>> {
        let page = self.json(self.client.get(format!("{}/v1/admin/templates", self.url))).await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    /// Every template, newest first.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn templates_all(&self) -> anyhow::Result<Vec<Value>> {
        self.all("templates").await
    }

    /// All builds, newest first.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn builds_all(&self) -> anyhow::Result<Vec<Value>> {
        self.all("builds").await
    }

    async fn all(&self, what: &str) -> anyhow::Result<Vec<Value>> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let url = format!("{}/v1/admin/{what}?limit=100{cursor}", self.url);
            let page = self.json(self.client.get(url)).await?;
            all.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    /// A page of a build's log.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn logs(&self, id: &str, from_seq: u64, limit: u64) -> anyhow::Result<Value> {
        let url =
            format!("{}/v1/admin/builds/{id}/logs?from_seq={from_seq}&limit={limit}", self.url);
        self.json(self.client.get(url)).await
    }

    /// A build's log as server-sent events: every record from `after` + 1 on, to the terminal one.
    ///
    /// # Errors
    /// When the API refuses; later ones come with the stream.
    pub async fn logs_stream(
        &self,
        id: &str,
        after: u64,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Value>> + use<>> {
        let request = self
            .client
            .get(format!("{}/v1/admin/builds/{id}/logs/stream", self.url))
            .bearer_auth(&self.key)
            .header("accept", "text/event-stream");
        let request = if after > 0 { request.header("last-event-id", after) } else { request };
        let answer = request.send().await?.error_for_status()?;
        let mut events = Events::default();
        let records = answer.bytes_stream().map(move |chunk| {
            let chunk = chunk.context("the log stream broke")?;
            Ok::<_, anyhow::Error>(stream::iter(events.feed(&chunk)))
        });
        Ok(records.try_flatten())
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let request = request.bearer_auth(&self.key).timeout(Duration::from_secs(30));
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "the API says {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }
}

/// Takes `data:` lines out of a stream of server-sent events, however it is cut.
#[derive(Debug, Default)]
struct Events {
    rest: Vec<u8>,
}

impl Events {
    fn feed(&mut self, chunk: &[u8]) -> Vec<anyhow::Result<Value>> {
        self.rest.extend_from_slice(chunk);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let lines = whole.split(|byte| *byte == b'\n');
        let data = lines.filter_map(|line| line.strip_prefix(b"data:"));
        data.map(|json| serde_json::from_slice(json).context("an event that is not JSON")).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Events;

    #[test]
    fn events_are_read_however_the_stream_is_cut() {
        let text = ": heartbeat\n\nid: 1\ndata: {\"seq\":1}\n\nid: 2\ndata:{\"seq\":2}\r\n\n";
        for size in 1..=text.len() {
            let mut events = Events::default();
            let read: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| events.feed(chunk))
                .map(Result::unwrap)
                .collect();
            assert_eq!(read, [json!({"seq": 1}), json!({"seq": 2})], "cut every {size} bytes");
        }
    }
}
