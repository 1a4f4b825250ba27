//! Contexts: uploaded as a stream, whole or not at all, once; and builds that name one.

use std::{convert::Infallible, io::Write as _, sync::Arc, time::Duration};

use async_nats::jetstream::object_store::ObjectStore;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use ovenbird_api::app::keys::Scope;
use ovenbird_contract::nats_access::Role;
use ovenbird_testkit::wait_for;
use reqwest::{Body, Method, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncReadExt as _, sync::watch};

use crate::world::{SOON, World};

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A tar archive of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

/// Bytes that do not become smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

impl World {
    async fn upload(&self, digest: &str, body: impl Into<Body>) -> Response {
        self.request(Method::PUT, &format!("/v1/admin/contexts/{digest}"))
            .header("content-type", "application/octet-stream")
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// Uploads an archive that is in order; its digest.
    async fn context(&self, archive: Vec<u8>) -> String {
        let digest = sha256(&archive);
        assert_eq!(self.upload(&digest, archive).await.status(), 201);
        digest
    }

    async fn head(&self, digest: &str) -> u16 {
        let path = format!("/v1/admin/contexts/{digest}");
        let head = self.request(Method::HEAD, &path).send().await.unwrap();
        assert!(head.content_length().is_none_or(|length| length < 1000));
        head.status().as_u16()
    }

    async fn bucket(&self) -> ObjectStore {
        self.jetstream.get_object_store("CONTEXTS").await.unwrap()
    }

    /// Messages in the object store: chunks, and one for each object.
    async fn messages(&self) -> u64 {
        let stream = self.jetstream.get_stream("OBJ_CONTEXTS").await.unwrap();
        stream.cached_info().state.messages
    }

    async fn rows(&self) -> String {
        self.postgres.sql("ovenbird", "SELECT count(*) FROM contexts").await.unwrap()
    }

    /// Nothing of any upload is left.
    async fn holds_nothing(&self) {
        assert_eq!((self.messages().await, self.rows().await.as_str()), (0, "0"));
    }
}

/// Status, code, and the first detail: field, code, message.
async fn refusal(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let error = &body["error"];
    (status, error["code"].as_str().unwrap().to_owned(), error["details"][0].clone())
}

#[tokio::test]
async fn archive_is_uploaded_as_a_stream_found_by_head_and_stored_once() {
    let world = World::with_host().await;
    let content = noise(3 << 20);
    let archive = tar("a b/ünï ☂.bin", &content);
    let digest = sha256(&archive);
    assert_eq!(world.head(&digest).await, 404);
    // In pieces, without a length.
    let pieces: Vec<Result<Vec<u8>, Infallible>> =
        archive.chunks(10_000).map(|piece| Ok(piece.to_vec())).collect();
    let stored = world.upload(&digest, Body::wrap_stream(stream::iter(pieces))).await;
    assert_eq!(stored.status(), 201);
    let stored: Value = stored.json().await.unwrap();
    assert_eq!(stored["sha256"], digest);
    assert_eq!(stored["size_bytes"], archive.len());
    assert_eq!((&stored["entries"], &stored["unpacked_bytes"]), (&json!(1), &json!(content.len())));
    assert_eq!(world.head(&digest).await, 200);
    let messages = world.messages().await;
    let mut object = world.bucket().await.get(&digest).await.unwrap();
    let mut held = Vec::new();
    object.read_to_end(&mut held).await.unwrap();
    assert!(held == archive, "what is stored is what was sent");

    // Again, by two at once: nothing is stored again.
    let (one, other) = tokio::join!(
        world.upload(&digest, archive.clone()),
        world.upload(&digest, archive.clone())
    );
    assert_eq!((one.status(), other.status()), (200.try_into().unwrap(), 200.try_into().unwrap()));
    assert_eq!((world.messages().await, world.rows().await.as_str()), (messages, "1"));
    // Lost by the store: it is not there, until it is sent again.
    world.bucket().await.delete(&digest).await.unwrap();
    assert_eq!(world.head(&digest).await, 404);
    assert_eq!(world.upload(&digest, archive.clone()).await.status(), 201);
    assert_eq!(world.head(&digest).await, 200);
    // Whoever submits builds may upload; who only reads may ask.
    let path = format!("{}/v1/admin/contexts/{digest}", world.url);
    for (scope, put) in [(Scope::Build, 200), (Scope::Read, 403)] {
        let key = world.key(scope, None).await;
        let request = world.client.put(&path).bearer_auth(&key);
        let request = request.header("content-type", "application/octet-stream");
        assert_eq!(request.body(archive.clone()).send().await.unwrap().status(), put);
        let asked = world.client.head(&path).bearer_auth(&key).send().await.unwrap();
        assert_eq!(asked.status(), 200);
    }
}

#[tokio::test]
async fn upload_that_is_not_what_it_says_leaves_nothing_behind() {
    let world = World::with(|config| {
        config.contexts.bytes_max = 100_000;
        config.contexts.idle_timeout = Duration::from_secs(5);
        config.contexts.uploads_max = 1;
    })
    .await;
    let archive = tar("a", &noise(50_000));
    let digest = sha256(&archive);
    let (status, code, detail) =
        refusal(world.upload(&sha256(b"other"), archive.clone()).await).await;
    assert_eq!((status, code.as_str(), &detail["code"]), (422, "invalid", &json!("wrong_digest")));
    assert!(detail["message"].as_str().unwrap().contains(&digest), "{detail}");
    // Half of it is another file.
    let half = world.upload(&digest, archive[..20_000].to_vec()).await;
    assert_eq!(refusal(half).await.2["code"], "wrong_digest");
    let large = vec![0; 100_001];
    let (status, code, _) = refusal(world.upload(&sha256(&large), large.clone()).await).await;
    assert_eq!((status, code.as_str()), (413, "body_too_large"));
    // Nothing comes, and meanwhile nobody else may.
    let path = format!("/v1/admin/contexts/{digest}");
    let begin = || {
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<Vec<u8>, Infallible>>();
        sender.unbounded_send(Ok(archive[..10].to_vec())).unwrap();
        let slow = world
            .request(Method::PUT, &path)
            .header("content-type", "application/octet-stream")
            .body(Body::wrap_stream(receiver));
        (sender, tokio::spawn(slow.send()))
    };
    let (mut sender, mut slow) = begin();
    let busy = async {
        loop {
            let answer = world.upload(&sha256(b"other"), archive.clone()).await;
            if answer.status() == 429 {
                return answer;
            }
            // It was refused, for the one above had the place just then.
            if slow.is_finished() {
                (sender, slow) = begin();
            }
        }
    };
    let busy = tokio::time::timeout(SOON, busy).await.expect("one is too many");
    assert!(busy.headers().contains_key("retry-after"));
    assert_eq!(refusal(busy).await.1, "too_many_uploads");
    assert_eq!(refusal(slow.await.unwrap().unwrap()).await.1, "request_timeout");
    drop(sender);
    let bad = world.upload("ABC", archive.clone()).await;
    assert_eq!(bad.status(), 400);
    // The client goes away in the middle.
    let cut: Vec<Result<Vec<u8>, std::io::Error>> =
        vec![Ok(archive[..30_000].to_vec()), Err(std::io::Error::other("gone"))];
    let broken = world
        .request(Method::PUT, &path)
        .header("content-type", "application/octet-stream")
        .body(Body::wrap_stream(stream::iter(cut)));
    broken.send().await.unwrap_err();
    assert_eq!(world.head(&digest).await, 404);
    wait_for("the place is free again, and the archive as good as new", SOON, || async {
        (world.upload(&digest, archive.clone()).await.status() != 429).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(world.rows().await, "1");
}

#[tokio::test]
async fn bomb_is_refused_with_its_entry_and_a_code_and_nothing_is_stored() {
    let world = World::start().await;
    let mut zeros = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    zeros.write_all(header.as_bytes()).unwrap();
    zeros.write_all(&vec![0; 4 << 20]).unwrap();
    let mut device = tar::Header::new_gnu();
    device.set_path("dev/sda").unwrap();
    device.set_entry_type(tar::EntryType::Block);
    device.set_size(0);
    device.set_mode(0o600);
    device.set_cksum();
    let mut twice = tar("same", b"1");
    twice.truncate(1024);
    twice.extend(tar("same", b"2"));
    let cases = [
        (tar("../../etc/passwd", b"x"), "bad_path", "../../etc/passwd"),
        (tar("/etc/passwd", b"x"), "bad_path", "/etc/passwd"),
        (device.as_bytes().to_vec(), "unsupported_entry", "dev/sda"),
        (zeros.finish().unwrap(), "compressed_too_much", "zeros"),
        (twice, "duplicate_entry", "same"),
        (tar("a", &[1; 5000])[..3000].to_vec(), "wrong_size", "a"),
        (b"hello".to_vec(), "not_an_archive", ""),
    ];
    for (archive, expected, entry) in cases {
        let (status, code, detail) = refusal(world.upload(&sha256(&archive), archive).await).await;
        assert_eq!((status, code.as_str()), (422, "invalid"), "{detail}");
        assert_eq!((&detail["code"], &detail["field"]), (&json!(expected), &json!("body")));
        assert!(detail["message"].as_str().unwrap().contains(entry), "{detail}");
    }
    world.holds_nothing().await;
}

/// A byte now and then, and never an end.
fn trickle(sent: Arc<watch::Sender<usize>>) -> Body {
    Body::wrap_stream(stream::unfold(sent, |sent| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sent.send_modify(|sent| *sent += 1);
        Some((Ok::<_, Infallible>(vec![0]), sent))
    }))
}

#[tokio::test]
async fn what_keys_upload_has_a_bound_in_time_in_number_and_in_bytes() {
    let world = World::with(|config| {
        config.contexts.upload_timeout = Duration::from_secs(5);
        config.contexts.uploads_max = 3;
        config.contexts.uploads_of_one_key_max = 1;
        config.contexts.bytes_of_one_key_max = 250_000;
    })
    .await;
    let (first, second) = (tar("a", &noise(150_000)), tar("b", &noise(150_000)));
    let path = format!("/v1/admin/contexts/{}", sha256(&first));
    // Whichever comes first has the key's place: the slow one begins again until that is it.
    let busy = wait_for("one too many of the key", SOON, || async {
        let sent = Arc::new(watch::Sender::new(0));
        let request = world.request(Method::PUT, &path);
        let request = request.header("content-type", "application/octet-stream");
        let slow = tokio::spawn(request.body(trickle(Arc::clone(&sent))).send());
        let mut sending = sent.subscribe();
        tokio::time::timeout(SOON, sending.wait_for(|sent| *sent > 2)).await.ok()?.ok()?;
        let answer = world.upload(&sha256(b"other"), second.clone()).await;
        (answer.status() == 429).then_some((slow, answer))
    });
    let (slow, busy) = busy.await.unwrap();
    assert_eq!(refusal(busy).await.1, "too_many_uploads");
    // Another key has places still.
    let other = world.key(Scope::Build, None).await;
    let of_other = async |archive: &[u8]| {
        let url = format!("{}/v1/admin/contexts/{}", world.url, sha256(archive));
        let request = world.client.put(url).bearer_auth(&other);
        let request = request.header("content-type", "application/octet-stream");
        request.body(archive.to_vec()).send().await.unwrap()
    };
    assert_eq!(of_other(&first).await.status(), 201);
    assert_eq!(refusal(slow.await.unwrap().unwrap()).await.1, "request_timeout");

    // With the second one it would have too much; what is there costs nothing, whose it may be.
    let (status, code, _) = refusal(of_other(&second).await).await;
    assert_eq!((status, code.as_str()), (409, "contexts_full"));
    assert_eq!(world.rows().await, "1");
    assert_eq!(of_other(&first).await.status(), 200);
    let mut config =
        world.jetstream.get_stream("OBJ_CONTEXTS").await.unwrap().cached_info().config.clone();
    config.max_bytes = 250_000;
    config.discard = async_nats::jetstream::stream::DiscardPolicy::New;
    world.jetstream.update_stream(config).await.unwrap();
    // The store has no room: it says so, and has no half object.
    let (status, code, _) = refusal(world.upload(&sha256(&second), second.clone()).await).await;
    assert_eq!((status, code.as_str()), (409, "contexts_full"));
    assert_eq!(world.head(&sha256(&second)).await, 404);

    // Who asks for one is about to use it.
    let old = "UPDATE contexts SET used_at = now() - interval '13 days'";
    world.postgres.sql("ovenbird", old).await.unwrap();
    assert_eq!(world.head(&sha256(&first)).await, 200);
    let young = "SELECT count(*) FROM contexts WHERE used_at > now() - interval '1 minute'";
    assert_eq!(world.postgres.sql("ovenbird", young).await.unwrap(), "1");
}

#[tokio::test]
async fn build_copies_from_a_context_that_is_there_and_keeps_it() {
    let world = World::with_host().await;
    let build = |context: Option<&str>, recipe: &str| {
        let mut body = json!({"name": "web", "recipe": [recipe]});
        if let Some(context) = context {
            body["context"] = json!(context);
        }
        body
    };
    let problem = async |body: &Value| {
        let found = refusal(world.post("/v1/admin/builds", body).await).await;
        assert_eq!((found.0, &found.2["field"]), (422, &json!("context")), "{}", found.2);
        let validated = world.post("/v1/admin/builds/validate", body).await;
        let validated: Value = validated.json().await.unwrap();
        assert_eq!(validated["problems"][0]["code"], found.2["code"]);
        found.2["code"].as_str().unwrap().to_owned()
    };
    let copy = "COPY --chown=1000:1000 \"a b\" src/*.c /srv/";
    assert_eq!(problem(&build(None, copy)).await, "missing_context");
    let digest = sha256(&tar("a", b"x"));
    assert_eq!(problem(&build(Some(&digest), copy)).await, "context_not_found");
    assert_eq!(problem(&build(Some(&digest), "RUN true")).await, "context_not_found");
    world.context(tar("a", b"x")).await;
    let accepted = world.post("/v1/admin/builds", &build(Some(&digest), copy)).await;
    assert_eq!(accepted.status(), 201);
    let accepted: Value = accepted.json().await.unwrap();
    assert_eq!(accepted["context"], digest);
    let id = accepted["id"].as_str().unwrap();

    // Old, and needed by a build that is not over.
    let old = "UPDATE contexts SET used_at = now() - interval '30 days'";
    world.postgres.sql("ovenbird", old).await.unwrap();
    let kept = Duration::from_secs(24 * 3600);
    assert!(world.store.context_take_unneeded(kept).await.unwrap().is_none());
    let cancel = format!("/v1/admin/builds/{id}/cancel");
    assert_eq!(world.post(&cancel, &json!({})).await.status(), 200);
    let unneeded = world.store.context_take_unneeded(kept).await.unwrap().unwrap();
    assert_eq!(unneeded.digest, digest);
    // Left alone, it is as it was.
    drop(unneeded);
    let unneeded = wait_for("it is free again", SOON, || async {
        world.store.context_take_unneeded(kept).await.unwrap()
    });
    unneeded.await.unwrap().remove().await.unwrap();
    // A retry does not begin without it.
    let retry = world.post(&format!("/v1/admin/builds/{id}/retry"), &json!({})).await;
    let (status, _, detail) = refusal(retry).await;
    assert_eq!((status, &detail["code"]), (422, &json!("context_not_found")));
    assert!(detail["hint"].as_str().unwrap().contains("PUT /v1/admin/contexts"), "{detail}");
    assert_eq!(world.builds().await, "1");
    let again = world.upload(&digest, tar("a", b"x")).await;
    assert!(again.status().is_success());
    let retry = world.post(&format!("/v1/admin/builds/{id}/retry"), &json!({})).await;
    assert_eq!(retry.status(), 201);
}

#[tokio::test]
async fn api_and_runner_may_do_with_contexts_what_they_need_and_no_more() {
    let world = World::guarded(|_| {}).await;
    let archive = tar("a", &noise(300_000));
    let digest = world.context(archive.clone()).await;
    assert_eq!(world.head(&digest).await, 200);
    let runner = world.role(Role::Runner).connect(world.nats.url()).await.unwrap();
    let mut jetstream = async_nats::jetstream::new(runner);
    jetstream.set_timeout(Duration::from_secs(2));
    let bucket = jetstream.get_object_store("CONTEXTS").await.unwrap();
    let mut held = Vec::new();
    bucket.get(&digest).await.unwrap().read_to_end(&mut held).await.unwrap();
    assert!(held == archive);
    // It reads, and that is all.
    bucket.put("x", &mut &b"x"[..]).await.unwrap_err();
    bucket.delete(&digest).await.unwrap_err();
    let stream = jetstream.get_stream("OBJ_CONTEXTS").await.unwrap();
    stream.purge().await.unwrap_err();
    assert_eq!(world.head(&digest).await, 200);
}
