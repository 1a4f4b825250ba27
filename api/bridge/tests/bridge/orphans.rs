//! What stands on hosts and belongs to nobody.

use std::time::Duration;

use ovenbird_bridge::sweep;
use ovenbird_contract::{
    build::Status,
    id::{BuildId, RunnerId, SandboxId, TemplateId},
};
use ovenbird_db::store::{claim, finish, lease::Holder, ledger::Progress, template_delete::Doomed};
use ovenbird_testkit::wait_until;
use sea_orm::ConnectionTrait as _;

use crate::{
    agent::{Host, report},
    rig::{LEASE, Rig, SOON, success},
};

async fn claim(rig: &Rig, build: BuildId, attempt: u32) -> Holder {
    let runner = RunnerId::new();
    let request = claim::Request { build, attempt, runner, lease: LEASE };
    rig.store.build_claim(&request).await.unwrap().unwrap();
    Holder { build, attempt, runner }
}

async fn told(rig: &Rig, holder: &Holder, sandbox: SandboxId) {
    let progress = Progress {
        build: holder.build,
        attempt: holder.attempt,
        steps: Vec::new(),
        current_step: 0,
        sandbox: Some(sandbox),
        stream_seq: 1,
    };
    rig.store.build_progress(&[progress]).await.unwrap();
}

async fn succeed(rig: &Rig, holder: Holder) {
    let request = finish::Request { holder, outcome: success() };
    let ended = rig.store.build_finish(&request).await.unwrap().unwrap();
    assert_eq!(ended.status, Status::Succeeded);
}

fn sweep_of(rig: &Rig, host: &Host) -> sweep::Service {
    sweep::Service { agents: Some(host.agents.clone()), ..rig.sweep() }
}

/// An id as it was made an hour ago.
fn old() -> TemplateId {
    let at = uuid::Timestamp::from_unix(
        uuid::NoContext,
        u64::try_from(chrono::Utc::now().timestamp()).unwrap() - 3600,
        0,
    );
    TemplateId::from_uuid(uuid::Uuid::new_v7(at))
}

/// Fault 5 of the closest pipeline: a crash leaks build VMs that neither its scheduler nor its reconciler sees.
#[tokio::test]
async fn sandboxes_that_no_build_needs_are_destroyed_and_the_others_stay() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    let [runs, over, waits] = [rig.build("a").await, rig.build("b").await, rig.build("c").await];
    // Left over from a microVM that did not become ready, before the one that is used.
    let superseded = host.sandbox(runs, 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let used = host.sandbox(runs, 1);
    told(&rig, &claim(&rig, runs, 1).await, used).await;
    let of_over = host.sandbox(over, 1);
    succeed(&rig, claim(&rig, over, 1).await).await;
    let of_waits = host.sandbox(waits, 1);
    let holder = claim(&rig, waits, 1).await;
    rig.store.build_release(&holder).await.unwrap().unwrap();
    let of_nobody = host.sandbox(BuildId::new(), 7);
    host.foreign_sandbox("sbx-by-hand", "");
    host.foreign_sandbox("another", "not one of ours");

    let mut patient = sweep_of(&rig, &host);
    patient.times.orphan_grace = Duration::from_secs(60);
    assert_eq!(patient.sandboxes().await.unwrap(), 0, "all of them are young");
    let sweep = sweep_of(&rig, &host);
    assert_eq!(sweep.sandboxes().await.unwrap(), 3);
    let left = host.sandboxes();
    for gone in [superseded, of_over, of_nobody] {
        assert!(!left.contains(&gone.to_string()));
    }
    for stays in [used, of_waits] {
        assert!(left.contains(&stays.to_string()));
    }
    assert!(left.contains(&"sbx-by-hand".into()) && left.contains(&"another".into()));
    assert_eq!(sweep.sandboxes().await.unwrap(), 0);
    assert!(host.late_create(over, 1).is_err(), "a build that is over makes no sandbox any more");
    assert!(host.late_create(runs, 1).is_ok(), "one that runs does");
}

#[tokio::test]
async fn sandbox_on_a_host_that_its_build_has_left_is_destroyed() {
    let rig = Rig::new().await;
    let mut host = Host::start(&rig.store).await;
    let build = rig.build("a").await;
    let holder = claim(&rig, build, 1).await;
    host.sandbox(build, 1);
    rig.store.build_release(&holder).await.unwrap().unwrap();
    host.goes().await;
    rig.store.host_unreachable(&host.address).await.unwrap();
    // Its agent has another authority than the first one's: asking it fails, and holds up nobody.
    let other = Host::start(&rig.store).await;
    claim(&rig, build, 2).await;
    assert_eq!(rig.row(build).await.host_id, Some(other.id.uuid()));
    assert_eq!(sweep_of(&rig, &other).sandboxes().await.unwrap(), 0, "who is away is not asked");
    let sweep = sweep_of(&rig, &host);
    host.comes_back().await;
    rig.store.host_report(&report(&host.address), Duration::ZERO).await.unwrap();
    wait_until("the sandbox to go", SOON, || async {
        sweep.sandboxes().await.unwrap_err();
        host.sandboxes().is_empty()
    })
    .await;
    assert!(host.sandboxes().is_empty());
    assert!(host.late_create(build, 1).is_err(), "nor does the attempt before make another one");
}

#[tokio::test]
async fn templates_that_were_never_published_are_removed_and_those_to_be_are_not() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    let planned = |row: ovenbird_db::entity::template_build::Model| {
        TemplateId::from_uuid(row.planned_template_id.unwrap())
    };
    let (runs, done) = (rig.build("a").await, rig.build("b").await);
    claim(&rig, runs, 1).await;
    let to_be = planned(rig.row(runs).await);
    let holder = claim(&rig, done, 1).await;
    let published = planned(rig.row(done).await);
    succeed(&rig, holder).await;
    let (never, young) = (old(), TemplateId::new());
    for id in [to_be, published, never, young] {
        host.template(id);
    }
    host.foreign_template("minimal");
    let mut sweep = sweep_of(&rig, &host);
    sweep.times.orphan_grace = Duration::from_secs(60);
    assert_eq!(sweep.templates().await.unwrap(), 1);
    assert!(!host.templates().contains(&never.to_string()));
    assert_eq!(host.templates().len(), 4);
    assert_eq!(sweep.templates().await.unwrap(), 0);
    sweep.times.orphan_grace = Duration::ZERO;
    assert_eq!(sweep.templates().await.unwrap(), 1);
    assert!(!host.templates().contains(&young.to_string()));
}

/// Fault 10 of the closest pipeline: there, a template that is deleted stays for ever on hosts that are away.
#[tokio::test]
async fn template_deleted_while_its_host_was_away_goes_when_it_is_back() {
    let rig = Rig::new().await;
    let mut host = Host::start(&rig.store).await;
    let build = rig.build("a").await;
    let holder = claim(&rig, build, 1).await;
    host.template(TemplateId::from_uuid(rig.row(build).await.planned_template_id.unwrap()));
    succeed(&rig, holder).await;
    // The host loses this one by itself.
    let lost = rig.build("b").await;
    let holder = claim(&rig, lost, 1).await;
    succeed(&rig, holder).await;
    let mut sweep = sweep_of(&rig, &host);
    // What somebody deleted needs no grace.
    sweep.times.orphan_grace = Duration::from_secs(600);
    assert_eq!(sweep.templates().await.unwrap(), 0);
    host.goes().await;
    for name in ["a", "b"] {
        let doomed = Doomed::Name(name.into());
        rig.store.template_delete(&doomed, "me").await.unwrap().unwrap();
    }
    assert!(sweep.templates().await.is_err());
    host.comes_back().await;
    wait_until("the template to go", SOON, || async {
        sweep.templates().await.is_ok_and(|removed| removed == 1)
    })
    .await;
    assert!(host.templates().is_empty());
    let placed =
        "SELECT count(*) AS n FROM template_placements p JOIN templates t ON t.id = p.template_id
                  WHERE t.name IN ('a', 'b')";
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, placed);
    let row = rig.store.connection().query_one_raw(statement).await.unwrap().unwrap();
    assert_eq!(row.try_get::<i64>("", "n").unwrap(), 0);
}
