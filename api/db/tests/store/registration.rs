//! Hosts that register: tokens, keys, and what becomes of them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use ovenbird_contract::id::HostId;
use ovenbird_db::store::{
    audit::{AuditFilter, NewEntry},
    host_registration::{NewHost, NewToken, Refused, Registration},
};
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, report};

const HOUR: Duration = Duration::from_secs(3600);

fn token(byte: u8, lifetime: Duration) -> NewToken {
    NewToken { hash: [byte; 32], created_by: "me".into(), lifetime }
}

fn later() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(7)
}

/// Comes with a token's byte and a key's.
fn comes(token: u8, key: u8, address: &str) -> Registration {
    Registration {
        token_hash: [token; 32],
        key_hash: [key; 32],
        address: address.into(),
        expires_at: later(),
    }
}

fn entry(action: &str) -> NewEntry {
    NewEntry {
        id: Uuid::now_v7(),
        actor: String::new(),
        action: action.into(),
        target: "/v1/hosts".into(),
        request_id: None,
        status: Some(200),
        details: json!({}),
    }
}

impl World {
    async fn announced(&self, byte: u8) -> HostId {
        let id = HostId::new();
        let new = NewHost {
            id,
            name: Some("seven".into()),
            server_name: format!("{}.test", id.uuid()),
            labels: [("zone".to_owned(), "b".to_owned())].into(),
        };
        let (row, expires_at) = self.store.host_announce(&new, &token(byte, HOUR)).await.unwrap();
        assert_eq!((row.host.status.as_str(), row.host.address.as_str()), ("pending", ""));
        assert!(expires_at > Utc::now());
        id
    }

    async fn register(&self, registration: &Registration) -> Result<HostId, Refused> {
        let registered = self.store.host_register(registration, &entry("host_register")).await;
        registered.unwrap().map(|host| HostId::from_uuid(host.id))
    }

    async fn renew(&self, key: u8) -> Option<HostId> {
        let renewed = self.store.host_renew([key; 32], later(), &entry("host_renew")).await;
        renewed.unwrap().map(|host| HostId::from_uuid(host.id))
    }
}

#[tokio::test]
async fn token_makes_one_host_of_one_agent_once_and_is_noted() {
    let world = World::new().await;
    let id = world.announced(1).await;
    assert_eq!(world.register(&comes(9, 1, "h:1")).await, Err(Refused::Token), "unknown");
    let tries = (1..=8).map(|key| {
        let comes = comes(1, key, "h:1");
        let world = &world;
        async move { world.register(&comes).await }
    });
    let tries = join_all(tries).await;
    assert_eq!(tries.iter().filter(|tried| tried.is_ok()).count(), 1, "{tries:?}");
    assert!(tries.iter().flatten().all(|won| *won == id));
    assert!(tries.iter().flat_map(|tried| tried.err()).all(|refused| refused == Refused::Token));
    let filter = AuditFilter { actor: Some(id.to_string()), ..AuditFilter::default() };
    let noted = world.store.audit_list(&filter, None, 10).await.unwrap();
    assert_eq!(noted.len(), 1, "what was refused changed nothing");
    assert_eq!((noted[0].action.as_str(), noted[0].status), ("host_register", Some(200)));
}

#[tokio::test]
async fn token_is_over_after_its_time_and_another_takes_its_place() {
    let world = World::new().await;
    let id = world.announced(1).await;
    let give =
        async |byte, lifetime| world.store.host_token(id, &token(byte, lifetime)).await.unwrap();
    give(2, HOUR).await.unwrap();
    assert_eq!(world.register(&comes(1, 1, "h:1")).await, Err(Refused::Token), "replaced");
    give(3, Duration::ZERO).await.unwrap();
    assert_eq!(world.register(&comes(3, 1, "h:1")).await, Err(Refused::Token), "over");
    give(4, HOUR).await.unwrap();
    assert_eq!(world.register(&comes(4, 1, "h:1")).await, Ok(id));
    // Its agent may have lost its key: the one that comes with the next token counts.
    give(5, HOUR).await.unwrap();
    assert_eq!(world.renew(1).await, Some(id), "until then the old one does");
    assert_eq!(world.register(&comes(5, 2, "h:2")).await, Ok(id));
    assert_eq!((world.renew(1).await, world.renew(2).await), (None, Some(id)));
    // A host of the configuration has no tokens.
    let configured = world.store.host_report(&report("h:9", 1), Duration::ZERO).await.unwrap();
    assert!(world.store.host_token(configured, &token(6, HOUR)).await.unwrap().is_none());
}

#[tokio::test]
async fn key_and_address_are_one_hosts_alone_and_a_refusal_leaves_the_token() {
    let world = World::new().await;
    let (one, two) = (world.announced(1).await, world.announced(2).await);
    assert_eq!(world.register(&comes(1, 1, "h:1")).await, Ok(one));
    assert_eq!(world.register(&comes(2, 2, "h:1")).await, Err(Refused::Address));
    assert_eq!(world.register(&comes(2, 1, "h:2")).await, Err(Refused::Key));
    assert_eq!(world.register(&comes(2, 2, "h:2")).await, Ok(two));
    // The address of a host that was deleted is free.
    world.store.host_drain(one, "me").await.unwrap().unwrap();
    world.store.host_report_of(one, &report("h:1", 1), Duration::ZERO).await.unwrap();
    world.store.host_delete(one).await.unwrap().unwrap();
    let three = world.announced(3).await;
    assert_eq!(world.register(&comes(3, 3, "h:1")).await, Ok(three));
    // Wanted back, it has no address: nobody asks it, and nobody else is taken for it.
    let waits = world.announced(4).await;
    world.store.host_undrain(one).await.unwrap().unwrap();
    let asked = world.store.host_registered().await.unwrap();
    assert!(asked.iter().all(|host| host.id != one.uuid()), "{asked:?}");
    assert!(!world.store.host_unreachable("").await.unwrap());
    let row = world.store.host_get(waits).await.unwrap().unwrap();
    assert_eq!(row.host.status, "pending");
}

#[tokio::test]
async fn agent_of_a_deleted_host_registers_with_its_key_as_another_host() {
    let world = World::new().await;
    let one = world.announced(1).await;
    assert_eq!(world.register(&comes(1, 1, "h:1")).await, Ok(one));
    world.store.host_delete(one).await.unwrap().unwrap();
    let two = world.announced(2).await;
    assert_eq!(world.register(&comes(2, 1, "h:1")).await, Ok(two));
    assert_eq!(world.renew(1).await, Some(two));
    // The first one begins anew.
    world.store.host_undrain(one).await.unwrap().unwrap();
    world.store.host_token(one, &token(3, HOUR)).await.unwrap().unwrap();
    assert_eq!(world.register(&comes(3, 3, "h:3")).await, Ok(one));
    assert_eq!(world.renew(1).await, Some(two));
}

#[tokio::test]
async fn deleted_host_and_one_whose_certificate_is_over_renew_nothing() {
    let world = World::new().await;
    let id = world.announced(1).await;
    assert_eq!(world.renew(1).await, None, "not registered yet");
    assert_eq!(world.register(&comes(1, 1, "h:1")).await, Ok(id));
    assert_eq!(world.renew(1).await, Some(id));
    world.store.host_token(id, &token(2, HOUR)).await.unwrap().unwrap();
    world.store.host_delete(id).await.unwrap().unwrap();
    assert_eq!(world.renew(1).await, None);
    assert_eq!(world.register(&comes(2, 1, "h:1")).await, Err(Refused::Token), "it went, too");
    assert!(world.store.host_token(id, &token(3, HOUR)).await.unwrap().is_none());
    world.store.host_undrain(id).await.unwrap().unwrap();
    assert_eq!(world.renew(1).await, Some(id), "it is wanted back");
    world.sql("UPDATE hosts SET certificate_expires_at = now()").await;
    assert_eq!(world.renew(1).await, None);
}

#[tokio::test]
async fn registered_host_is_known_by_its_id_whatever_a_configuration_says_of_its_address() {
    let world = World::new().await;
    let id = world.announced(1).await;
    assert!(world.store.host_registered().await.unwrap().is_empty());
    assert!(!world.store.host_report_of(id, &report("", 4), Duration::ZERO).await.unwrap());
    world.register(&comes(1, 1, "h:1")).await.unwrap();
    assert_eq!(world.store.host_registered().await.unwrap().len(), 1);
    assert_eq!(world.store.host_left_alone("h:1").await.unwrap(), Some(id));
    // The configuration changes nothing of it.
    assert_eq!(world.store.host_report(&report("h:1", 4), Duration::ZERO).await.unwrap(), id);
    let row = world.store.host_get(id).await.unwrap().unwrap();
    assert_eq!((row.host.status.as_str(), row.load.templates), ("pending", 0));
    assert!(world.store.host_report_of(id, &report("h:1", 4), Duration::ZERO).await.unwrap());
    let row = world.store.host_get(id).await.unwrap().unwrap();
    assert_eq!((row.host.status.as_str(), row.load.templates), ("online", 1));
    assert_eq!(row.host.labels, json!({"zone": "b"}));
    // An answer from where it was before is none of it.
    assert!(!world.store.host_report_of(id, &report("h:2", 4), Duration::ZERO).await.unwrap());
}
