//! Hosts and what they hold.

use std::time::Duration;

use futures::future::join_all;
use ovenbird_contract::id::{HostId, RunnerId, TemplateId};
use ovenbird_db::{
    entity::template,
    store::{
        claim::Refused,
        host,
        host_admin::{Held, Refused as NotDeleted},
    },
};
use sea_orm::EntityTrait;

use crate::world::{World, finish_of, image, report, success};

#[tokio::test]
async fn host_keeps_its_id_and_its_base_template_is_made_once() {
    let world = World::new().await;
    let first = world.store.host_report(&report("h:1", 2), Duration::ZERO).await.unwrap();
    let base = world.store.template_resolve("minimal", "latest").await.unwrap().unwrap();
    let again = world.store.host_report(&report("h:1", 4), Duration::ZERO).await.unwrap();
    let other = world.store.host_report(&report("h:2", 2), Duration::ZERO).await.unwrap();
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(world.count::<template::Entity>().await, 1);
    assert_eq!(base.host_name, "minimal");
    let hosts = world.store.host_list().await.unwrap();
    assert_eq!(hosts[0].capacity["vcpus"], 4);
}

#[tokio::test]
async fn base_template_is_found_by_its_name_only_when_the_name_is_valid() {
    let world = World::new().await;
    let mut told = report("h:1", 2);
    told.templates.push(image("Not A Name"));
    world.store.host_report(&told, Duration::ZERO).await.unwrap();
    assert_eq!(world.count::<template::Entity>().await, 1);
}

#[tokio::test]
async fn template_that_the_host_lost_is_missing_until_it_is_back() {
    let world = World::with_host(2).await;
    let build = world.build("web").await;
    let mut empty = report("10.0.0.1:1", 2);
    empty.templates.clear();
    world.sql("UPDATE template_placements SET seen_at = now() - interval '1 minute'").await;
    world.store.host_report(&empty, Duration::ZERO).await.unwrap();
    let runner = ovenbird_contract::id::RunnerId::new();
    assert!(world.claim(build, 1, runner).await.is_err());
    world.store.host_report(&report("10.0.0.1:1", 2), Duration::ZERO).await.unwrap();
    assert!(world.claim(build, 1, runner).await.is_ok());
}

#[tokio::test]
async fn template_published_after_the_question_is_not_missing() {
    let world = World::with_host(2).await;
    let holder = world.running("web").await;
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    let before_the_publication = report("10.0.0.1:1", 2);
    let asked_ago = Duration::from_secs(5);
    world.store.host_report(&before_the_publication, asked_ago).await.unwrap();
    let placements = ovenbird_db::entity::template_placement::Entity::find()
        .all(world.store.connection())
        .await
        .unwrap();
    assert!(placements.iter().all(|placement| placement.state == "present"));
}

#[tokio::test]
async fn snapshot_or_built_image_of_a_host_makes_no_base_template() {
    let world = World::new().await;
    let mut told = report("h:1", 2);
    let built = ovenbird_contract::id::TemplateId::new().to_string();
    told.templates.push(image(&built));
    told.templates
        .push(host::Held { kind: ovenbird_contract::desk::TemplateKind::Snapshot, ..image("x") });
    world.store.host_report(&told, Duration::ZERO).await.unwrap();
    assert_eq!(world.count::<template::Entity>().await, 1);
}

#[tokio::test]
async fn drain_outlives_heartbeats_and_absence_and_only_new_builds_are_kept_away() {
    let world = World::with_host(4).await;
    let running = world.running("runs").await;
    let handed_over = world.running("waits").await;
    world
        .sql(&format!(
            "UPDATE template_builds SET sandbox_id = '{}' WHERE name = 'waits'",
            uuid::Uuid::now_v7()
        ))
        .await;
    world.store.build_release(&handed_over).await.unwrap().unwrap();
    let id = only(&world).await.0;
    let drained = world.store.host_drain(id, "me").await.unwrap().unwrap();
    assert_eq!((drained.host.status.as_str(), drained.load.builds), ("draining", 2));
    let again = world.store.host_drain(id, "you").await.unwrap().unwrap();
    assert_eq!(again.host.drain_requested_by.as_deref(), Some("me"), "who asked first");
    for _ in 0..2 {
        world.store.host_report(&report("10.0.0.1:1", 4), Duration::ZERO).await.unwrap();
        assert_eq!(only(&world).await.1, "draining");
        assert!(world.store.host_unreachable("10.0.0.1:1").await.unwrap());
        assert_eq!(only(&world).await.1, "unreachable");
        world.store.host_report(&report("10.0.0.1:1", 4), Duration::ZERO).await.unwrap();
    }
    let new = world.build("new").await;
    let runner = ovenbird_contract::id::RunnerId::new();
    assert_eq!(world.claim(new, 1, runner).await.unwrap_err(), Refused::NoHost);
    // What was begun there ends there.
    world.claim(handed_over.build, 2, runner).await.unwrap();
    world.store.build_finish(&finish_of(&running, success())).await.unwrap().unwrap();
    for _ in 0..2 {
        let back = world.store.host_undrain(id).await.unwrap().unwrap();
        assert_eq!((back.host.status.as_str(), back.host.drain_requested_at), ("online", None));
    }
    world.claim(new, 1, runner).await.unwrap();
}

#[tokio::test]
async fn claims_and_a_drain_at_once_leave_nothing_behind_the_drain() {
    let world = World::with_host(32).await;
    let mut builds = Vec::new();
    for n in 0..16 {
        builds.push(world.build(&format!("web{n}")).await);
    }
    let id = only(&world).await.0;
    let claims = builds.iter().map(|build| world.claim(*build, 1, RunnerId::new()));
    let drain = async { world.store.host_drain(id, "me").await.unwrap().unwrap() };
    let (claims, _) = tokio::join!(join_all(claims), drain);
    let begun = claims.iter().filter(|claim| claim.is_ok()).count();
    let late = world.build("late").await;
    assert_eq!(world.claim(late, 1, RunnerId::new()).await.unwrap_err(), Refused::NoHost);
    let load = world.store.host_get(id).await.unwrap().unwrap().load;
    assert_eq!(usize::try_from(load.builds).unwrap(), begun);
}

#[tokio::test]
async fn host_is_deleted_only_drained_and_empty_and_stays_away() {
    let world = World::with_host(4).await;
    let id = only(&world).await.0;
    let delete = async || world.store.host_delete(id).await.unwrap();
    let holder = world.running("web").await;
    assert_eq!(delete().await, Err(NotDeleted::NotDrained("online".into())));
    world.store.host_drain(id, "me").await.unwrap().unwrap();
    assert_eq!(delete().await, Err(NotDeleted::InUse(vec![Held::Build(holder.build)])));
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    let template = TemplateId::from_uuid(world.row(holder.build).await.template_id.unwrap());
    assert_eq!(
        delete().await,
        Err(NotDeleted::InUse(vec![Held::Template(template)])),
        "the only copy"
    );
    let doomed = ovenbird_db::store::template_delete::Doomed::One(template);
    world.store.template_delete(&doomed, "me").await.unwrap().unwrap();
    assert_eq!(delete().await, Ok(()));
    assert_eq!(delete().await, Err(NotDeleted::NotFound), "repeated");
    assert!(world.store.host_get(id).await.unwrap().is_none());
    assert!(world.store.host_drain(id, "me").await.unwrap().is_none());

    // Its agent goes on answering.
    assert_eq!(
        world.store.host_report(&report("10.0.0.1:1", 4), Duration::ZERO).await.unwrap(),
        id
    );
    assert_eq!(world.store.host_left_alone("10.0.0.1:1").await.unwrap(), Some(id));
    assert!(world.store.host_list().await.unwrap().is_empty());
    let build = world.build("next").await;
    assert_eq!(world.claim(build, 1, RunnerId::new()).await.unwrap_err(), Refused::NoHost);
    // Until somebody wants it back.
    let back = world.store.host_undrain(id).await.unwrap().unwrap();
    assert_eq!(back.host.status, "pending");
    world.store.host_report(&report("10.0.0.1:1", 4), Duration::ZERO).await.unwrap();
    world.claim(build, 1, RunnerId::new()).await.unwrap();
}

/// The only host: its id and status.
async fn only(world: &World) -> (HostId, String) {
    let hosts = world.store.host_page(None, 10).await.unwrap();
    assert_eq!(hosts.len(), 1);
    (HostId::from_uuid(hosts[0].host.id), hosts[0].host.status.clone())
}
