//! Hosts and what they hold.

use std::time::Duration;

use ovenbird_db::{entity::template, store::host::Held};
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
        .push(Held { kind: ovenbird_contract::desk::TemplateKind::Snapshot, ..image("x") });
    world.store.host_report(&told, Duration::ZERO).await.unwrap();
    assert_eq!(world.count::<template::Entity>().await, 1);
}
