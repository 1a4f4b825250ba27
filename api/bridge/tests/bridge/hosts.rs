//! What an admin decides about a host outlives what the host says.

use std::time::Duration;

use ovenbird_bridge::{config, hosts};
use ovenbird_db::store::host_admin::HostRow;
use ovenbird_testkit::wait_until;
use sea_orm::ConnectionTrait as _;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Host,
    rig::{Rig, SOON},
};

async fn row(rig: &Rig, host: &Host) -> HostRow {
    rig.store.host_get(host.id).await.unwrap().unwrap()
}

/// Waits until the host has answered twice more, so that one answer came to a question asked after now.
async fn answers_again(rig: &Rig, host: &Host) {
    for _ in 0..2 {
        let before = row(rig, host).await.host.heartbeat;
        wait_until("the host to answer", SOON, || async {
            row(rig, host).await.host.heartbeat > before
        })
        .await;
    }
}

#[tokio::test]
async fn drained_host_stays_so_while_it_answers_and_a_deleted_one_comes_back_when_it_is_wanted() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    host.foreign_template("minimal");
    let configured =
        config::Host { address: host.address.clone(), server_name: "agent.test".into() };
    let interval = Duration::from_millis(20);
    let service =
        hosts::Service::new(rig.store.clone(), host.agents.clone(), vec![configured], interval);
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));

    answers_again(&rig, &host).await;
    assert_eq!(row(&rig, &host).await.host.status, "online");
    rig.store.host_drain(host.id, "me").await.unwrap().unwrap();
    answers_again(&rig, &host).await;
    assert_eq!(row(&rig, &host).await.host.status, "draining");

    rig.store.host_delete(host.id).await.unwrap().unwrap();
    assert!(rig.store.host_get(host.id).await.unwrap().is_none());
    rig.store.host_undrain(host.id).await.unwrap().unwrap();
    answers_again(&rig, &host).await;
    let back = row(&rig, &host).await;
    assert_eq!((back.host.status.as_str(), back.load.templates), ("online", 1));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn registered_host_is_asked_without_configuration_until_it_is_deleted() {
    let rig = Rig::new().await;
    let host = Host::start(&rig.store).await;
    let registered = format!(
        "UPDATE hosts SET registered_at = now(), key_hash = sha256('key'), status = 'pending',
           certificate_expires_at = now() + interval '1 day' WHERE id = '{}'",
        host.id.uuid()
    );
    rig.store.connection().execute_unprepared(&registered).await.unwrap();
    // A configuration that names it, too, by another name, changes nothing.
    let stale = config::Host { address: host.address.clone(), server_name: "another.test".into() };
    let interval = Duration::from_millis(20);
    let service =
        hosts::Service::new(rig.store.clone(), host.agents.clone(), vec![stale], interval);
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));

    answers_again(&rig, &host).await;
    assert_eq!(row(&rig, &host).await.host.status, "online");
    assert_eq!(row(&rig, &host).await.host.server_name, "agent.test");
    rig.store.host_drain(host.id, "me").await.unwrap().unwrap();
    rig.store.host_delete(host.id).await.unwrap().unwrap();
    // Wanted back, it is asked again.
    rig.store.host_undrain(host.id).await.unwrap().unwrap();
    answers_again(&rig, &host).await;
    assert_eq!(row(&rig, &host).await.host.status, "online");
    stop.cancel();
    running.await.unwrap();
}
