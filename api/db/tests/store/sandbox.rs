//! Sandboxes of users: their room, and whose word counts.

use std::time::Duration;

use futures::future::join_all;
use ovenbird_contract::{
    id::{RunnerId, SandboxId, TemplateId},
    sandbox::{Event, ReasonCode, Status},
};
use ovenbird_db::{
    entity::sandbox::Model as Row,
    store::{
        sandbox::{MetricPoint, NewSandbox, Refused, SandboxFilter, status},
        sandbox_state::{Begun, Intent, Word},
    },
};

use crate::world::{World, report};

const BUSY: Duration = Duration::from_secs(60);

async fn new(world: &World) -> NewSandbox {
    let template = world.store.template_resolve("minimal", "latest").await.unwrap().unwrap();
    NewSandbox {
        id: SandboxId::new(),
        template: TemplateId::from_uuid(template.id),
        vcpus: 1,
        memory_mb: 512,
        disk_mb: None,
        timeout_sec: 0,
        requested_by: "key".into(),
        busy: BUSY,
    }
}

async fn running(world: &World) -> Row {
    let (row, _) = world.store.sandbox_create(&new(world).await).await.unwrap().unwrap();
    world.store.sandbox_told(&row, &Word::of(Event::Runs)).await.unwrap().unwrap()
}

async fn begin(world: &World, row: &Row, intent: Intent) -> Begun {
    let id = SandboxId::from_uuid(row.id);
    world.store.sandbox_begin(id, &intent, None, BUSY).await.unwrap()
}

fn row(begun: Begun) -> Row {
    match begun {
        Begun::Row(row) => *row,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn creates_and_claims_at_once_share_one_room_and_never_overbook_it() {
    let world = World::with_host(3).await;
    let builds = join_all((0..4).map(|n| world.build(["a", "b", "c", "d"][n]))).await;
    let wishes = join_all((0..4).map(|_| new(&world))).await;
    let creates = join_all(wishes.iter().map(|wish| world.store.sandbox_create(wish)));
    let claims = join_all(builds.iter().map(|build| world.claim(*build, 1, RunnerId::new())));
    let (creates, claims) = tokio::join!(creates, claims);
    let creates: Vec<_> = creates.into_iter().map(Result::unwrap).collect();
    let made = creates.iter().filter(|it| it.is_ok()).count();
    assert_eq!(made + claims.iter().filter(|it| it.is_ok()).count(), 3);
    assert!(creates.into_iter().filter_map(Result::err).all(|it| it == Refused::NoRoom));
}

#[tokio::test]
async fn sandbox_is_placed_only_where_its_template_is_and_a_host_answers() {
    let world = World::with_host(1).await;
    let mut wish = new(&world).await;
    world.store.host_report(&report("10.0.0.2:1", 8), Duration::ZERO).await.unwrap();
    world.sql("UPDATE template_placements SET state = 'missing' WHERE host_id = (SELECT id FROM hosts WHERE address = '10.0.0.2:1')").await;
    let (_, host) = world.store.sandbox_create(&wish).await.unwrap().unwrap();
    assert_eq!(host.address, "10.0.0.1:1");
    wish.id = SandboxId::new();
    assert_eq!(world.store.sandbox_create(&wish).await.unwrap(), Err(Refused::NoRoom));
    world.store.host_unreachable("10.0.0.1:1").await.unwrap();
    assert_eq!(world.store.sandbox_create(&wish).await.unwrap(), Err(Refused::NoHost));
    world.sql("UPDATE hosts SET status = 'draining', drain_requested_at = now()").await;
    assert_eq!(world.store.sandbox_create(&wish).await.unwrap(), Err(Refused::NoHost));
    world.sql("UPDATE hosts SET status = 'online'; UPDATE template_placements SET state = 'present'; UPDATE templates SET deleted_at = now()").await;
    assert!(world.store.sandbox_create(&wish).await.unwrap().is_err(), "it was deleted");
    let filter = SandboxFilter::default();
    assert_eq!(world.store.sandbox_list(&filter, None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn paused_sandbox_takes_no_room_and_gets_it_back_only_where_there_is_some() {
    let world = World::with_host(1).await;
    let first = running(&world).await;
    let paused = row(begin(&world, &first, Intent::Pause).await);
    let paused =
        world.store.sandbox_told(&paused, &Word::of(Event::Sleeps)).await.unwrap().unwrap();
    let second = running(&world).await;
    let resume = || Intent::Resume { timeout_sec: Some(7) };
    assert_eq!(begin(&world, &paused, resume()).await, Begun::NoRoom);
    let gone = row(begin(&world, &second, Intent::Destroy { reason: None }).await);
    assert_eq!(begin(&world, &paused, resume()).await, Begun::NoRoom, "until the host says so");
    world.store.sandbox_told(&gone, &Word::removed(&gone)).await.unwrap().unwrap();
    let wish = new(&world).await;
    let (one, other) =
        tokio::join!(begin(&world, &paused, resume()), world.store.sandbox_create(&wish));
    let both = (matches!(one, Begun::Row(_)), other.unwrap().is_ok());
    assert!(both.0 != both.1, "one of them has the room: {both:?}");
}

#[tokio::test]
async fn word_that_is_older_than_an_intent_changes_nothing() {
    let world = World::with_host(4).await;
    let first = running(&world).await;
    let pausing = row(begin(&world, &first, Intent::Pause).await);
    let destroying = row(begin(&world, &first, Intent::Destroy { reason: None }).await);
    let late = world.store.sandbox_told(&pausing, &Word::of(Event::Sleeps)).await.unwrap();
    assert_eq!(late, None);
    let refused = begin(&world, &first, Intent::Resume { timeout_sec: None }).await;
    assert!(matches!(refused, Begun::Refused(_)));
    let id = SandboxId::from_uuid(first.id);
    let outdated = Intent::Destroy { reason: Some(ReasonCode::Lost.reason()) };
    let begun = world.store.sandbox_begin(id, &outdated, Some(first.revision), BUSY).await.unwrap();
    assert!(matches!(begun, Begun::Refused(_)), "somebody has written since");
    let over = world.store.sandbox_told(&destroying, &Word::removed(&destroying)).await.unwrap();
    let over = over.unwrap();
    assert_eq!((status(&over).unwrap(), over.destroyed_at.is_some()), (Status::Destroyed, true));
    assert!(matches!(begin(&world, &over, Intent::Pause).await, Begun::Refused(_)));
    let unknown = world.store.sandbox_begin(SandboxId::new(), &Intent::Pause, None, BUSY).await;
    assert_eq!(unknown.unwrap(), Begun::NotFound);
}

#[tokio::test]
async fn saved_sandbox_is_published_once_and_a_failed_save_leaves_no_name() {
    let world = World::with_host(4).await;
    let save = |name: &str| {
        let template = TemplateId::new();
        Intent::Save { template, name: name.into(), tag: "v1".into() }
    };
    let first = row(begin(&world, &running(&world).await, save("kept")).await);
    let ended = world.store.sandbox_saved(&first, 99).await.unwrap().unwrap();
    assert_eq!(world.store.sandbox_saved(&first, 99).await.unwrap(), None);
    let template = world.store.template_resolve("kept", "v1").await.unwrap().unwrap();
    assert_eq!((Some(template.id), template.size_bytes), (ended.snapshot_id, 99));
    let fork = NewSandbox { template: TemplateId::from_uuid(template.id), ..new(&world).await };
    world.store.sandbox_create(&fork).await.unwrap().unwrap();

    let second = row(begin(&world, &running(&world).await, save("not-kept")).await);
    let again = world.store.sandbox_told(&second, &Word::of(Event::Runs)).await.unwrap().unwrap();
    assert_eq!((again.status.as_str(), again.snapshot_id), ("running", None));
}

#[tokio::test]
async fn metrics_are_kept_once_and_read_from_a_time_on() {
    let world = World::with_host(4).await;
    let id = SandboxId::from_uuid(running(&world).await.id);
    let start = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let point = |n: i64| MetricPoint {
        at: start + chrono::TimeDelta::seconds(n),
        cpu_pct: 1.5,
        mem_bytes: n,
        disk_bytes: 7,
    };
    let points: Vec<_> = (0..5).map(|n| ("10m", point(n))).collect();
    for _ in 0..2 {
        world.store.sandbox_metrics_store(id, &points).await.unwrap();
    }
    let read = world.store.sandbox_metrics(id, "10m", point(2).at, 2).await.unwrap();
    assert_eq!(read, [point(3), point(4)]);
    assert!(world.store.sandbox_metrics(id, "2h", start, 9).await.unwrap().is_empty());
}
