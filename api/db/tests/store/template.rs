//! Tags and their history, and templates that are deleted.

use futures::future::join_all;
use ovenbird_contract::{
    build::Status,
    id::{BuildId, HostId, SandboxId, TemplateId},
};
use ovenbird_db::{
    entity::{template_placement, template_tag},
    store::{
        Error,
        template_delete::{Doomed, Refused, User},
        template_tag::TagFilter,
    },
};
use sea_orm::EntityTrait;

use crate::world::{World, finish_of, success};

/// Builds a template of this name.
async fn template(world: &World, name: &str) -> TemplateId {
    let holder = world.running(name).await;
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    TemplateId::from_uuid(world.row(holder.build).await.template_id.unwrap())
}

/// The history of `name:latest`, oldest first.
async fn history(world: &World, name: &str) -> Vec<template_tag::Model> {
    let filter = TagFilter { tag: Some("latest".into()), current: false };
    let mut entries = world.store.template_tag_list(name, &filter, None, 1000).await.unwrap();
    entries.reverse();
    entries
}

async fn delete(world: &World, name: &str) -> Result<Vec<TemplateId>, Refused> {
    world.store.template_delete(&Doomed::Name(name.into()), "me").await.unwrap()
}

#[tokio::test]
async fn concurrent_moves_of_a_tag_leave_a_history_without_hole_or_overlap() {
    let world = World::with_host(16).await;
    let mut versions = Vec::new();
    for _ in 0..3 {
        versions.push(template(&world, "web").await);
    }
    let unfinished = world.running("web").await;
    let moves = (0..40).map(|n| {
        let (world, template) = (&world, versions[n % versions.len()]);
        async move {
            let by = format!("mover-{n}");
            world.store.template_tag_set("web", "latest", template, &by).await.unwrap().unwrap()
        }
    });
    let finish = async {
        world.store.build_finish(&finish_of(&unfinished, success())).await.unwrap().unwrap();
    };
    tokio::join!(join_all(moves), finish);
    let entries = history(&world, "web").await;
    assert!(entries.len() >= 5, "each build has moved it, and others between");
    for pair in entries.windows(2) {
        assert_eq!(pair[0].superseded_at, Some(pair[1].set_at), "{pair:?}");
        assert_eq!(pair[0].superseded_by.as_ref(), Some(&pair[1].set_by), "{pair:?}");
        assert_ne!(pair[0].template_id, pair[1].template_id, "a move goes somewhere");
    }
    let last = entries.last().unwrap();
    assert_eq!((last.superseded_at, &last.superseded_by), (None, &None));
    let now = world.store.template_resolve("web", "latest").await.unwrap().unwrap();
    assert_eq!(now.id, last.template_id);
}

#[tokio::test]
async fn tag_goes_back_and_away_and_its_history_stays() {
    let world = World::with_host(4).await;
    let (old, new) = (template(&world, "web").await, template(&world, "web").await);
    let other = template(&world, "other").await;
    let set = async |template| {
        world.store.template_tag_set("web", "latest", template, "me").await.unwrap()
    };
    let back = set(old).await.unwrap();
    assert_eq!(set(old).await.unwrap(), back, "repeating it writes nothing");
    assert_eq!(set(other).await, None, "a tag points to templates of its own name");
    assert_eq!(set(TemplateId::new()).await, None);
    for expected in [true, false] {
        let removed = world.store.template_tag_remove("web", "latest", "you").await.unwrap();
        assert_eq!(removed, expected);
    }
    assert!(world.store.template_resolve("web", "latest").await.unwrap().is_none());
    let entries = history(&world, "web").await;
    let pointed: Vec<_> = entries.iter().map(|entry| entry.template_id).collect();
    assert_eq!(pointed, [old, new, old].map(|id| id.uuid()));
    assert_eq!(entries[2].superseded_by.as_deref(), Some("you"));
    let now = TagFilter { tag: None, current: true };
    assert!(world.store.template_tag_list("web", &now, None, 10).await.unwrap().is_empty());
    assert!(set(new).await.is_some(), "it can be set again");
}

#[tokio::test]
async fn deleted_template_is_in_no_list_and_to_go_from_every_host() {
    let world = World::with_host(4).await;
    let (old, new) = (template(&world, "web").await, template(&world, "web").await);
    let host = HostId::from_uuid(world.store.host_list().await.unwrap()[0].id);
    world.store.host_unreachable("10.0.0.1:1").await.unwrap();
    let one = world.store.template_delete(&Doomed::One(old), "me").await.unwrap();
    assert_eq!(one.unwrap(), [old]);
    assert_eq!(delete(&world, "web").await.unwrap(), [new]);
    assert_eq!(delete(&world, "web").await.unwrap_err(), Refused::NotFound, "repeated");
    assert!(world.store.template_list(Some("web"), None, 10).await.unwrap().is_empty());
    assert!(world.store.template_get(new).await.unwrap().is_none());
    assert!(world.store.template_resolve("web", "latest").await.unwrap().is_none());
    let mut deleting = world.store.template_list_deleting(host).await.unwrap();
    deleting.sort();
    assert_eq!(deleting, [old, new]);
    let mut told = crate::world::report("10.0.0.1:1", 4);
    told.templates.push(crate::world::image(&new.to_string()));
    world.store.host_report(&told, std::time::Duration::ZERO).await.unwrap();
    let states = template_placement::Entity::find().all(world.store.connection()).await.unwrap();
    let present = states.iter().filter(|one| one.state == "present").count();
    assert_eq!(present, 1, "only the base: the host's word brings nothing back");
    assert_eq!(history(&world, "web").await.len(), 2, "what was is still told");
    assert!(world.store.template_name_known("web").await.unwrap());
    assert!(!world.store.template_name_known("never").await.unwrap());
}

#[tokio::test]
async fn template_that_a_build_or_a_sandbox_needs_is_not_deleted() {
    let world = World::with_host(4).await;
    let base = template(&world, "web").await;
    let build = world.build("next").await;
    world
        .sql(&format!(
            "UPDATE template_builds SET base_template_id = '{}' WHERE id = '{}'",
            base.uuid(),
            build.uuid()
        ))
        .await;
    assert_eq!(delete(&world, "web").await.unwrap_err(), Refused::InUse(vec![User::Build(build)]));
    world.sql("UPDATE template_builds SET status = 'cancelled', completed_at = now(), cancel_requested_at = now() WHERE name = 'next'").await;
    let host = world.store.host_list().await.unwrap()[0].id;
    let sandbox = SandboxId::new();
    world
        .sql(&format!(
            "INSERT INTO sandboxes (id, template_id, host_id, status, vcpus, memory_mb, requested_by)
             VALUES ('{}', '{}', '{host}', 'paused', 1, 512, 'me')",
            sandbox.uuid(),
            base.uuid()
        ))
        .await;
    let refused = delete(&world, "web").await.unwrap_err();
    assert_eq!(refused, Refused::InUse(vec![User::Sandbox(sandbox)]));
    assert!(world.store.template_get(base).await.unwrap().is_some(), "nothing changed");
    world.sql("UPDATE sandboxes SET status = 'destroyed', destroyed_at = now()").await;
    assert_eq!(delete(&world, "web").await.unwrap(), [base]);
}

#[tokio::test]
async fn template_that_came_with_a_host_is_not_deleted() {
    let world = World::with_host(4).await;
    let refused = delete(&world, "minimal").await.unwrap_err();
    assert_eq!(refused, Refused::OfHost { host_name: "minimal".into() });
    assert!(world.store.template_resolve("minimal", "latest").await.unwrap().is_some());
}

#[tokio::test]
async fn build_and_deletion_of_its_base_at_once_never_both_happen() {
    let world = World::with_host(64).await;
    for round in 0..12 {
        let name = format!("web{round}");
        let base = template(&world, &name).await;
        let insert = async {
            let mut new = world.submission("next");
            new.base_template_id = base;
            let stored = world.store.build_insert(&new).await;
            stored.map(|_| new.id)
        };
        let (stored, deleted) = tokio::join!(insert, delete(&world, &name));
        match (stored, deleted) {
            (Ok(build), Err(Refused::InUse(users))) => assert_eq!(users, [User::Build(build)]),
            (Err(Error::TemplateDeleted), Ok(ids)) => assert_eq!(ids, [base]),
            other => panic!("{other:?}"),
        }
    }
    let queued: Vec<BuildId> =
        world.store.build_list_without_job(std::time::Duration::ZERO, 100).await.unwrap();
    for build in queued {
        assert_eq!(world.status(build).await, Status::Queued);
    }
}
