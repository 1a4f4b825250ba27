//! Contexts that nobody needs go, from the object store and from Postgres; those that a build needs stay.

use std::time::Duration;

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectStore};
use ovenbird_bridge::streams::{Room, ensure};
use ovenbird_contract::id::BuildId;
use ovenbird_db::store::context::NewContext;
use sea_orm::ConnectionTrait as _;
use tokio::io::AsyncReadExt as _;

use crate::rig::{ROOM, Rig};

async fn bucket(rig: &Rig) -> ObjectStore {
    rig.js.get_object_store(rig.names.contexts_bucket()).await.unwrap()
}

/// A context as the api stores it, `days` ago.
async fn context(rig: &Rig, word: char, days: u32) -> String {
    let digest = word.to_string().repeat(64);
    let new = NewContext {
        digest: digest.clone(),
        size_bytes: 200_000,
        entries: 1,
        unpacked_bytes: 1,
        uploaded_by: "test".into(),
    };
    rig.store.context_note(&new, u64::MAX).await.unwrap().unwrap();
    bucket(rig).await.put(digest.as_str(), &mut vec![7; 200_000].as_slice()).await.unwrap();
    age(rig, &digest, days).await;
    digest
}

async fn age(rig: &Rig, digest: &str, days: u32) {
    let text = "UPDATE contexts SET used_at = now() - interval '1 day' *";
    let text = format!("{text} {days} WHERE digest = '{digest}'");
    rig.store.connection().execute_unprepared(&text).await.unwrap();
}

async fn is_stored(rig: &Rig, digest: &str) -> bool {
    match bucket(rig).await.info(digest).await {
        Ok(info) => !info.deleted,
        Err(error) => {
            assert_eq!(error.kind(), InfoErrorKind::NotFound);
            false
        }
    }
}

async fn over(rig: &Rig, build: BuildId) {
    let text = "UPDATE template_builds SET status = 'cancelled', cancel_requested_at = now(), \
                completed_at = now() WHERE id =";
    let text = format!("{text} '{}'", build.uuid());
    rig.store.connection().execute_unprepared(&text).await.unwrap();
}

#[tokio::test]
async fn context_that_nobody_needs_goes_and_leaves_nothing_and_one_that_a_build_needs_stays() {
    let rig = Rig::with_streams().await;
    let (old, needed, young) =
        (context(&rig, 'a', 30).await, context(&rig, 'b', 30).await, context(&rig, 'c', 0).await);
    let build = rig.build_from("web", Some(&needed)).await;
    // The build has made it young.
    age(&rig, &needed, 30).await;
    let mut sweep = rig.sweep();
    sweep.times.contexts_kept = Duration::from_secs(14 * 24 * 3600);
    assert_eq!(sweep.contexts().await.unwrap(), 1);
    assert_eq!(sweep.contexts().await.unwrap(), 0);
    assert!(rig.store.context_get(&old).await.unwrap().is_none());
    assert!(!is_stored(&rig, &old).await);
    for kept in [&needed, &young] {
        assert!(rig.store.context_get(kept).await.unwrap().is_some());
        assert!(is_stored(&rig, kept).await);
    }
    over(&rig, build).await;
    assert_eq!(sweep.contexts().await.unwrap(), 1);
    assert!(!is_stored(&rig, &needed).await);
    // A row whose object was never stored, or went with its stream, goes as well.
    let lost = context(&rig, 'd', 30).await;
    bucket(&rig).await.delete(&lost).await.unwrap();
    assert_eq!(sweep.contexts().await.unwrap(), 1);
    let mut stream = rig.js.get_stream(rig.names.contexts_stream().name).await.unwrap();
    let left = stream.info().await.unwrap().state.messages;
    // The chunks of the young one, and the word that it is there; and the mark of the lost one, which a client made.
    assert!(left <= 4, "{left}");
}

#[tokio::test]
async fn chunks_that_no_object_claims_go_once_they_are_old() {
    let rig = Rig::with_streams().await;
    let kept = context(&rig, 'a', 0).await;
    // As of an api that died while it stored one.
    for _ in 0..3 {
        let left = rig.names.context_chunks("half");
        rig.js.publish(left, vec![1; 1000].into()).await.unwrap().await.unwrap();
    }
    let mut sweep = rig.sweep();
    sweep.times.orphan_grace = Duration::from_secs(600);
    assert_eq!(sweep.context_leftovers().await.unwrap(), 0, "it may be on its way");
    sweep.times.orphan_grace = Duration::ZERO;
    assert_eq!(sweep.context_leftovers().await.unwrap(), 1);
    assert_eq!(sweep.context_leftovers().await.unwrap(), 0);
    let mut object = bucket(&rig).await.get(&kept).await.unwrap();
    let mut held = Vec::new();
    object.read_to_end(&mut held).await.unwrap();
    assert_eq!(held, vec![7; 200_000]);
}

#[tokio::test]
async fn context_whose_store_is_away_is_kept_until_it_answers() {
    let rig = Rig::with_streams().await;
    let old = context(&rig, 'a', 30).await;
    rig.js.delete_stream(rig.names.contexts_stream().name).await.unwrap();
    let mut sweep = rig.sweep();
    sweep.times.contexts_kept = Duration::from_secs(3600);
    sweep.contexts().await.unwrap_err();
    assert!(rig.store.context_get(&old).await.unwrap().is_some());
    ensure(&rig.js, &rig.names, ROOM).await.unwrap();
    assert_eq!(sweep.contexts().await.unwrap(), 1);
    assert!(rig.store.context_get(&old).await.unwrap().is_none());
}

#[tokio::test]
async fn store_that_is_full_refuses_the_next_context_and_holds_nothing_else_up() {
    let rig = Rig::with_streams().await;
    ensure(&rig.js, &rig.names, Room { contexts_bytes: 300_000, ..ROOM }).await.unwrap();
    let kept = context(&rig, 'a', 0).await;
    let other = vec![7; 200_000];
    let error = bucket(&rig).await.put("other", &mut other.as_slice()).await.unwrap_err();
    let error = ovenbird_kit::telemetry::chain(&error);
    // The api looks for these words.
    assert!(error.contains("maximum bytes exceeded"), "{error}");
    assert!(is_stored(&rig, &kept).await && !is_stored(&rig, "other").await);
    let event = rig.names.events(&BuildId::new());
    rig.js.publish(event, "{}".into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn build_does_not_begin_with_a_context_that_is_gone() {
    let rig = Rig::with_streams().await;
    let (known, gone) = (context(&rig, 'a', 30).await, "b".repeat(64));
    rig.build_from("web", Some(&known)).await;
    let row = rig.store.context_get(&known).await.unwrap().unwrap();
    assert!(row.used_at > row.uploaded_at - chrono::TimeDelta::days(1), "it counts as used");
    let text = format!(
        "INSERT INTO template_builds (id, name, tag, base_template, recipe, plan, plan_digest, vcpus, memory_mb, \
         context_digest) SELECT gen_random_uuid(), name, tag, base_template, recipe, plan, plan_digest, vcpus, \
         memory_mb, '{gone}' FROM template_builds LIMIT 1"
    );
    let refused = rig.store.connection().execute_unprepared(&text).await.unwrap_err();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
}
