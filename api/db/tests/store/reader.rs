//! What customers on NATS may hear, and for how long.

use chrono::{TimeDelta, Utc};
use ovenbird_contract::id::KeyId;
use ovenbird_db::store::{key::NewKey, reader::KeyTerm};

use crate::world::{World, finish_of, success};

#[tokio::test]
async fn own_builds_that_still_run_come_first_and_old_ones_not_at_all() {
    let world = World::with_host(4).await;
    let over = world.running("over").await;
    world.store.build_finish(&finish_of(&over, success())).await.unwrap().unwrap();
    let old = world.running("old").await;
    world.store.build_finish(&finish_of(&old, success())).await.unwrap().unwrap();
    let stuck = world.build("stuck").await;
    let of_another = world.build("another").await;
    let queued = world.build("queued").await;
    for (id, change) in [
        (old.build, "created_at = now() - interval '4 days'"),
        (stuck, "created_at = now() - interval '4 days'"),
        (of_another, "requested_by = 'another'"),
    ] {
        let id = id.uuid();
        world.sql(&format!("UPDATE template_builds SET {change} WHERE id = '{id}'")).await;
    }
    let live = world.store.build_ids_live("test", 10).await.unwrap();
    assert_eq!(live, [queued, stuck, over.build]);
    assert_eq!(world.store.build_ids_live("test", 1).await.unwrap(), [queued]);
    assert!(world.store.build_ids_live("nobody", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn key_has_ended_once_it_is_revoked_or_its_time_is_over() {
    let world = World::new().await;
    let now = Utc::now();
    let mut keys = Vec::new();
    for (name, expires_at) in [
        ("endless", None),
        ("later", Some(now + TimeDelta::hours(1))),
        ("past", Some(now - TimeDelta::seconds(1))),
        ("revoked", None),
    ] {
        let id = KeyId::new();
        let (name, scope, hash) = (name.to_owned(), "read".to_owned(), [keys.len() as u8; 32]);
        world.store.key_insert(&NewKey { id, name, hash, scope, expires_at }).await.unwrap();
        keys.push(id);
    }
    world.sql("UPDATE api_keys SET revoked_at = now() WHERE name = 'revoked'").await;
    let unknown = KeyId::new();
    let asked: Vec<KeyId> = keys.iter().copied().chain([unknown]).collect();
    let terms = world.store.key_terms(&asked).await.unwrap();
    assert_eq!(terms.len(), keys.len(), "one that does not exist is left out");
    let ended = |id| terms.iter().find(|term: &&KeyTerm| term.id == id).unwrap().ended;
    assert_eq!(keys.iter().map(|id| ended(*id)).collect::<Vec<_>>(), [false, false, true, true]);
    assert!(world.store.key_terms(&[]).await.unwrap().is_empty());
}
