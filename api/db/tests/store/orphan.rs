//! What belongs to nobody.

use ovenbird_contract::id::{BuildId, HostId, TemplateId};
use ovenbird_db::{entity::template_placement, store::lease::Holder};

use crate::world::{World, finish_of, success};

#[tokio::test]
async fn template_is_an_orphan_unless_it_is_published_or_about_to_be() {
    let world = World::with_host(4).await;
    let planned = |row: ovenbird_db::entity::template_build::Model| {
        TemplateId::from_uuid(row.planned_template_id.unwrap())
    };
    let (running, done, lost) =
        (world.running("a").await, world.running("b").await, world.running("c").await);
    let running = planned(world.row(running.build).await);
    world.store.build_finish(&finish_of(&done, success())).await.unwrap().unwrap();
    let published = planned(world.row(done.build).await);
    let again = planned(world.row(lost.build).await);
    world.store.build_release(&lost).await.unwrap().unwrap();
    let unknown = TemplateId::new();
    let held = [running, published, again, unknown];
    assert_eq!(world.store.template_orphans(&held).await.unwrap(), [unknown]);

    world.claim(lost.build, 2, lost.runner).await.unwrap();
    assert_eq!(world.store.template_orphans(&held).await.unwrap(), [unknown], "it may go on");
    let second = Holder { attempt: 2, ..lost.clone() };
    world.store.build_begin_afresh(&second, "").await.unwrap().unwrap();
    let mut orphans = world.store.template_orphans(&held).await.unwrap();
    orphans.sort();
    assert_eq!(orphans, [again, unknown], "the next attempt writes another one");

    world.sql("UPDATE templates SET deleted_at = now() WHERE name = 'b'").await;
    assert_eq!(world.store.template_orphans(&[published]).await.unwrap(), [published]);
    let host = HostId::from_uuid(world.row(done.build).await.host_id.unwrap());
    for _ in 0..2 {
        world.store.template_removed(host, published).await.unwrap();
    }
    assert_eq!(world.count::<template_placement::Entity>().await, 1, "that of the base");
    assert!(world.store.template_orphans(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn owners_are_the_builds_that_exist() {
    let world = World::with_host(4).await;
    let holder = world.running("a").await;
    let owners = world.store.build_owners(&[holder.build, BuildId::new()]).await.unwrap();
    assert_eq!(owners.len(), 1);
    let row = world.row(holder.build).await;
    assert_eq!(owners[0].host.map(|id| id.uuid()), row.host_id);
    assert_eq!((owners[0].build, owners[0].attempt), (holder.build, 1));
}
