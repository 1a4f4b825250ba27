//! Sandboxes of users: what their hosts say goes into the rows, and what the rows say to the hosts.

use std::time::Duration;

use ovenbird_bridge::sweep;
use ovenbird_contract::{
    id::{SandboxId, TemplateId},
    sandbox::{Event, Status},
};
use ovenbird_db::store::{
    sandbox::{NewSandbox, status},
    sandbox_state::{Begun, Intent, Word},
};
use sea_orm::ConnectionTrait as _;

use crate::{agent::Host, rig::Rig};

const BUSY: Duration = Duration::from_secs(600);

fn sweep_of(rig: &Rig, host: &Host) -> sweep::Service {
    sweep::Service { agents: Some(host.agents.clone()), ..rig.sweep() }
}

/// A row that an api has written before it asks the host.
async fn creating(rig: &Rig, busy: Duration) -> SandboxId {
    let template = rig.store.template_resolve("minimal", "latest").await.unwrap().unwrap();
    let new = NewSandbox {
        id: SandboxId::new(),
        template: TemplateId::from_uuid(template.id),
        vcpus: 1,
        memory_mb: 512,
        disk_mb: None,
        timeout_sec: 60,
        requested_by: "key".into(),
        busy,
    };
    rig.store.sandbox_create(&new).await.unwrap().unwrap();
    new.id
}

/// A sandbox that runs, and of which the host says this word now.
async fn running(rig: &Rig, host: &Host, word: Option<&'static str>) -> SandboxId {
    let id = creating(rig, BUSY).await;
    told(rig, id, Event::Runs).await;
    if let Some(word) = word {
        host.users_sandbox(id, word);
    }
    id
}

async fn told(rig: &Rig, id: SandboxId, event: Event) {
    let row = rig.store.sandbox_get(id).await.unwrap().unwrap().sandbox;
    rig.store.sandbox_told(&row, &Word::of(event)).await.unwrap().unwrap();
}

async fn begun(rig: &Rig, id: SandboxId, intent: Intent, busy: Duration) {
    let begun = rig.store.sandbox_begin(id, &intent, None, busy).await.unwrap();
    assert!(matches!(begun, Begun::Row(_)), "{begun:?}");
}

async fn stands(rig: &Rig, id: SandboxId) -> (Status, Option<String>) {
    let row = rig.store.sandbox_get(id).await.unwrap().unwrap().sandbox;
    let code = row.reason.as_ref().map(|reason| reason["code"].as_str().unwrap().to_owned());
    (status(&row).unwrap(), code)
}

#[tokio::test]
async fn hosts_word_about_a_users_sandbox_goes_into_its_row_and_its_end_to_the_host() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    let over = Duration::ZERO;
    let runs = running(&rig, &host, Some("running")).await;
    let idle = running(&rig, &host, Some("paused")).await;
    let on_its_way = running(&rig, &host, Some("pausing")).await;
    let stopped = running(&rig, &host, Some("stopped")).await;
    let lost = running(&rig, &host, None).await;
    let half_paused = running(&rig, &host, Some("running")).await;
    begun(&rig, half_paused, Intent::Pause, over).await;
    let half_resumed = running(&rig, &host, Some("paused")).await;
    begun(&rig, half_resumed, Intent::Resume { timeout_sec: None }, over).await;
    let to_go = running(&rig, &host, Some("running")).await;
    begun(&rig, to_go, Intent::Destroy { reason: None }, over).await;
    let half_made = creating(&rig, over).await;
    host.users_sandbox(half_made, "running");
    let never_made = creating(&rig, over).await;
    let gone = running(&rig, &host, Some("running")).await;
    begun(&rig, gone, Intent::Destroy { reason: None }, over).await;
    told(&rig, gone, Event::Gone).await;
    let unknown = SandboxId::new();
    host.users_sandbox(unknown, "running");

    let sweep = sweep_of(&rig, &host);
    assert_eq!(sweep.sandboxes().await.unwrap(), 10);
    let expected = [
        (runs, Status::Running, None),
        (idle, Status::Paused, None),
        (on_its_way, Status::Running, None),
        (stopped, Status::Failed, Some("stopped")),
        (lost, Status::Failed, Some("lost")),
        (half_paused, Status::Running, None),
        (half_resumed, Status::Paused, None),
        (to_go, Status::Destroyed, None),
        (half_made, Status::Failed, Some("create_interrupted")),
        (never_made, Status::Failed, Some("create_interrupted")),
        (gone, Status::Destroyed, None),
    ];
    for (id, status, reason) in expected {
        assert_eq!(stands(&rig, id).await, (status, reason.map(str::to_owned)), "{id}");
    }
    let mut left = [runs, idle, on_its_way, half_paused, half_resumed].map(|id| id.to_string());
    left.sort();
    assert_eq!(host.sandboxes(), left);
    assert!(host.late_users_create(never_made).is_err(), "it is not made any more");
    assert!(host.late_users_create(SandboxId::new()).is_ok());
    assert_eq!(sweep.sandboxes().await.unwrap(), 0);
}

#[tokio::test]
async fn what_an_api_works_on_and_what_is_young_is_left_alone() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    // The answer of the host is on its way.
    let being_made = creating(&rig, BUSY).await;
    host.users_sandbox(being_made, "running");
    let not_asked_yet = creating(&rig, BUSY).await;
    let being_paused = running(&rig, &host, Some("paused")).await;
    begun(&rig, being_paused, Intent::Pause, BUSY).await;
    let young = SandboxId::new();
    host.users_sandbox(young, "running");
    let mut sweep = sweep_of(&rig, &host);
    sweep.times.orphan_grace = Duration::from_secs(60);
    assert_eq!(sweep.sandboxes().await.unwrap(), 0);
    assert_eq!(host.sandboxes().len(), 3);
    for (id, status) in [
        (being_made, Status::Creating),
        (not_asked_yet, Status::Creating),
        (being_paused, Status::Pausing),
    ] {
        assert_eq!(stands(&rig, id).await.0, status);
    }
}

#[tokio::test]
async fn sandbox_whose_api_went_away_while_it_was_saved_is_its_template_or_nothing() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    let mut saved = Vec::new();
    for name in ["written", "not-written"] {
        let id = running(&rig, &host, None).await;
        let template = TemplateId::new();
        let intent = Intent::Save { template, name: name.into(), tag: "v1".into() };
        begun(&rig, id, intent, Duration::ZERO).await;
        saved.push((id, template));
    }
    host.template(saved[0].1);
    let sweep = sweep_of(&rig, &host);
    assert_eq!(sweep.templates().await.unwrap(), 0, "it is about to be published");
    assert_eq!(sweep.sandboxes().await.unwrap(), 2);
    assert_eq!(stands(&rig, saved[0].0).await, (Status::Destroyed, None));
    assert_eq!(stands(&rig, saved[1].0).await, (Status::Failed, Some("save_failed".into())));
    let found = rig.store.template_resolve("written", "v1").await.unwrap().unwrap();
    assert_eq!((found.id, found.kind.as_str()), (saved[0].1.uuid(), "snapshot"));
    assert!(rig.store.template_resolve("not-written", "v1").await.unwrap().is_none());
    assert_eq!(sweep.templates().await.unwrap(), 0);
    assert_eq!(host.templates(), [saved[0].1.to_string()]);
}

#[tokio::test]
async fn sandbox_to_be_destroyed_on_a_host_that_is_away_goes_when_it_is_back() {
    let rig = Rig::new().await;
    let mut host = Host::start(&rig.store).await;
    let id = running(&rig, &host, Some("running")).await;
    begun(&rig, id, Intent::Destroy { reason: None }, Duration::ZERO).await;
    let sweep = sweep_of(&rig, &host);
    host.goes().await;
    sweep.sandboxes().await.unwrap_err();
    assert_eq!(stands(&rig, id).await.0, Status::Destroying);
    host.comes_back().await;
    ovenbird_testkit::wait_until("the sandbox to go", crate::rig::SOON, || async {
        sweep.sandboxes().await.is_ok()
    })
    .await;
    assert_eq!(stands(&rig, id).await.0, Status::Destroyed);
    assert!(host.sandboxes().is_empty());
    let used = "SELECT count(*) AS n FROM sandboxes WHERE busy_until IS NOT NULL";
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, used);
    let row = rig.store.connection().query_one_raw(statement).await.unwrap().unwrap();
    assert_eq!(row.try_get::<i64>("", "n").unwrap(), 0);
}
