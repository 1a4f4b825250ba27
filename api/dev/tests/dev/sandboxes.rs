//! Sandboxes over REST on the real platform: everything that can be asked of one, in a microVM.

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use ovenbird_dev::build::follow;
use ovenbird_testkit::wait_for;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::platform::Stage;

const SOON: Duration = Duration::from_secs(90);
const MIB: usize = 1024 * 1024;

/// The routes, with the admin key.
struct Rest {
    client: Client,
    url: String,
    key: String,
}

impl Rest {
    fn of(stage: &mut Stage) -> Self {
        let record = stage.platform.record();
        let client = Client::builder().no_proxy().timeout(SOON).build().unwrap();
        Self { client, url: record.api, key: record.admin_key }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/v1/sandboxes{path}", self.url);
        self.client.request(method, url).bearer_auth(&self.key)
    }

    async fn sent(request: RequestBuilder) -> Response {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        if !status.is_success() {
            panic!("{status}: {}", answer.text().await.unwrap());
        }
        answer
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        Self::sent(self.request(Method::POST, path).json(&body)).await.json().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        Self::sent(self.request(Method::GET, path)).await.json().await.unwrap()
    }

    /// Status and code of what is refused.
    async fn refused(request: RequestBuilder) -> (u16, String) {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn create(&self, body: Value) -> Of<'_> {
        let made = self.post("", body).await;
        assert_eq!(made["status"], "running", "{made}");
        Of { rest: self, id: made["id"].as_str().unwrap().to_owned() }
    }
}

/// One sandbox.
struct Of<'a> {
    rest: &'a Rest,
    id: String,
}

impl Of<'_> {
    fn path(&self, below: &str) -> String {
        format!("/{}{below}", self.id)
    }

    async fn shell(&self, script: &str) -> String {
        let done = self.rest.post(&self.path("/exec"), json!({ "script": script })).await;
        assert_eq!(done["exit_code"], 0, "{script}: {done}");
        done["stdout"].as_str().unwrap().trim_end().to_owned()
    }

    async fn status(&self) -> String {
        self.rest.get(&self.path("")).await["status"].as_str().unwrap().to_owned()
    }

    async fn upload(&self, path: &str, content: Vec<u8>) {
        let pieces: Vec<_> =
            content.chunks(100_000).map(|piece| anyhow::Ok(piece.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        let request = self.rest.request(Method::PUT, &self.path(&format!("/files?path={path}")));
        let request = request.header("content-type", "application/octet-stream").body(body);
        assert_eq!(Rest::sent(request).await.status(), 204);
    }

    fn download(&self, path: &str) -> RequestBuilder {
        self.rest.request(Method::GET, &self.path(&format!("/files?path={path}")))
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let below = format!("/directories?path={path}&limit=2{cursor}");
            let page = self.rest.get(&self.path(&below)).await;
            let items = page["items"].as_array().unwrap();
            names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return names,
            }
        }
    }

    async fn remove(&self, path: &str, more: &str) -> RequestBuilder {
        let below = format!("/files?path={path}{more}");
        self.rest.request(Method::DELETE, &self.path(&below))
    }

    async fn delete(&self) {
        let request = self.rest.request(Method::DELETE, &self.path(""));
        let gone: Value = Rest::sent(request).await.json().await.unwrap();
        assert_eq!(gone["status"], "destroyed", "{gone}");
    }
}

async fn template(stage: &Stage) {
    let build = json!({
        "name": "tools", "tag": "v1", "memory_mb": 256,
        "recipe": ["ENV COLOUR=green", "RUN id -u > /etc/baked"],
    });
    let built = follow(&stage.api, &build, |_| {}).await.unwrap();
    assert_eq!(built.status(), "succeeded", "{}", built.reason());
}

#[tokio::test]
async fn sandbox_runs_commands_keeps_files_sleeps_and_becomes_a_template() {
    let mut stage = Stage::set().await;
    template(&stage).await;
    let rest = Rest::of(&mut stage);
    let sandbox = rest.create(json!({"template": "tools:v1"})).await;
    assert_eq!(sandbox.shell("cat /etc/baked; echo $COLOUR").await, "0\ngreen");
    commands(&sandbox).await;
    files(&sandbox).await;
    directories(&sandbox).await;

    sandbox.shell("sleep 1000 > /dev/null 2>&1 & echo $! > /root/pid").await;
    let paused = rest.post(&sandbox.path("/pause"), json!({})).await;
    assert_eq!(paused["status"], "paused");
    let refused = Rest::refused(sandbox.download("/etc/baked")).await;
    assert_eq!(refused, (409, "sandbox_paused".into()));
    let resumed = rest.post(&sandbox.path("/resume"), json!({})).await;
    assert_eq!(resumed["status"], "running");
    sandbox.shell("kill -0 $(cat /root/pid)").await;
    Rest::sent(rest.request(Method::POST, &sandbox.path("/ping"))).await;
    let metrics = wait_for("a point of its metrics", SOON, || async {
        let metrics = rest.get(&sandbox.path("/metrics")).await;
        metrics["points"].as_array().filter(|points| !points.is_empty()).cloned()
    });
    assert!(metrics.await.unwrap()[0]["mem_bytes"].as_u64().unwrap() > 0);

    let save = json!({"name": "tools", "tag": "warm"});
    let saved = rest.post(&sandbox.path("/snapshot"), save).await;
    assert_eq!(saved["status"], "destroyed", "{saved}");
    assert!(!rest.get(&sandbox.path("/metrics")).await["points"].as_array().unwrap().is_empty());
    let fork = rest.create(json!({"template": "tools:warm"})).await;
    fork.shell("kill -0 $(cat /root/pid); test $COLOUR = green").await;

    // Idle, it is paused by itself, and its row hears of it.
    rest.post(&fork.path("/resume"), json!({"timeout_sec": 1})).await;
    wait_for("the idle sandbox to be told as paused", SOON, || async {
        (fork.status().await == "paused").then_some(())
    })
    .await
    .unwrap();
    fork.delete().await;
    assert_eq!(rest.get("?status=running").await["items"], json!([]));
    stage.strike().await;
}

async fn commands(sandbox: &Of<'_>) {
    let path = sandbox.path("/exec");
    let exec = |body: Value| sandbox.rest.post(&path, body);
    let done = exec(json!({"command": ["sh", "-c", "echo out; echo err >&2; exit 3"]})).await;
    assert_eq!(
        (&done["exit_code"], &done["stdout"], &done["stderr"]),
        (&json!(3), &json!("out\n"), &json!("err\n"))
    );
    let done = exec(json!({"script": "echo started; sleep 60", "timeout_sec": 5})).await;
    assert_eq!(
        (&done["timed_out"], &done["stdout"]),
        (&json!(true), &json!("started\n")),
        "{done}"
    );
    let done =
        exec(json!({"script": "printf 'a\\377'", "env": {"A": "b"}, "workdir": "/etc"})).await;
    assert_eq!(done["stdout_data"], "Yf8=", "{done}");
    let done = exec(json!({"command": ["no-such-program"]})).await;
    assert_eq!(done["exit_code"], 127, "{done}");
    let done = exec(json!({"script": "true", "user": "nobody-here"})).await;
    assert_ne!(done["exit_code"], 0, "{done}");
    assert!(done["error"].as_str().is_some_and(|why| why.contains("nobody-here")), "{done}");

    let script = "for i in 1 2 3; do echo line $i; sleep 0.2; done; exit 4";
    let request = sandbox.rest.request(Method::POST, &sandbox.path("/exec/stream"));
    let answer = Rest::sent(request.json(&json!({ "script": script }))).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut chunks = answer.bytes_stream();
    let first = chunks.next().await.context("no events").unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&first).contains("event: end"), "it comes as it is written");
    let mut text = String::from_utf8(first.to_vec()).unwrap();
    while let Some(chunk) = chunks.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    let written: String = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|data| data["text"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(written, "line 1\nline 2\nline 3\n");
    assert!(
        text.ends_with("event: end\ndata: {\"exit_code\":4,\"timed_out\":false}\n\n"),
        "{text}"
    );
}

async fn files(sandbox: &Of<'_>) {
    let mut content = vec![0; 5 * MIB + 17];
    let mut state = 1_u32;
    content.fill_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let digest = hex::encode(Sha256::digest(&content));
    sandbox.upload("/srv/new/file", content.clone()).await;
    let sum = sandbox.shell("sha256sum /srv/new/file").await;
    assert!(sum.starts_with(&digest), "{sum}");
    let back = Rest::sent(sandbox.download("/srv/new/file")).await;
    assert_eq!(back.headers()["content-disposition"], "attachment");
    let back = back.bytes().await.unwrap();
    assert_eq!(hex::encode(Sha256::digest(&back)), digest);
    let size = content.len();
    for (range, from, to) in [
        ("bytes=0-9".to_owned(), 0, 10),
        (format!("bytes={}-", size - 5), size - 5, size),
        ("bytes=-3".to_owned(), size - 3, size),
        (format!("bytes=1000000-{}", size * 2), 1_000_000, size),
    ] {
        let answer = Rest::sent(sandbox.download("/srv/new/file").header("range", &range)).await;
        assert_eq!(answer.status(), 206);
        let said = answer.headers()["content-range"].to_str().unwrap().to_owned();
        assert_eq!(said, format!("bytes {from}-{}/{size}", to - 1));
        assert!(answer.bytes().await.unwrap() == content[from..to], "{range}");
    }
    let outside = sandbox.download("/srv/new/file").header("range", format!("bytes={size}-"));
    assert_eq!(Rest::refused(outside).await, (416, "range_outside".into()));
    assert_eq!(Rest::refused(sandbox.download("/srv/none")).await, (404, "not_found".into()));
    assert_eq!(Rest::refused(sandbox.download("/srv/new")).await, (409, "sandbox_refused".into()));

    // Half an upload is none.
    let pieces = [anyhow::Ok(vec![1; MIB]), Err(anyhow::anyhow!("the client gives up"))];
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let request = sandbox.rest.request(Method::PUT, &sandbox.path("/files?path=/srv/new/file"));
    let request = request.header("content-type", "application/octet-stream").body(body);
    assert!(request.send().await.is_err());
    assert!(sandbox.shell("sha256sum /srv/new/file; ls -A /srv/new").await.starts_with(&digest));
}

async fn directories(sandbox: &Of<'_>) {
    let make = json!({"path": "/srv/a/b"});
    let made = sandbox.rest.post(&sandbox.path("/directories"), make.clone()).await;
    assert_eq!(made["made"], true);
    assert_eq!(sandbox.rest.post(&sandbox.path("/directories"), make).await["made"], false);
    sandbox.shell("cd /srv/a && touch x y z && ln -s / link").await;
    assert_eq!(sandbox.names("/srv/a").await, ["b", "link", "x", "y", "z"]);
    let none = sandbox.rest.request(Method::GET, &sandbox.path("/directories?path=/srv/none"));
    assert_eq!(Rest::refused(none).await, (404, "not_found".into()));
    let full = sandbox.remove("/srv/a", "").await;
    assert_eq!(Rest::refused(full).await, (409, "sandbox_refused".into()));
    assert_eq!(Rest::sent(sandbox.remove("/srv/a/link", "").await).await.status(), 204);
    assert_eq!(Rest::sent(sandbox.remove("/srv/a", "&recursive=true").await).await.status(), 204);
    assert_eq!(sandbox.shell("ls /srv; test -d /proc/1").await, "new");
    let again = sandbox.remove("/srv/a", "").await;
    assert_eq!(Rest::refused(again).await, (404, "not_found".into()));
}
