//! One Postgres for the tests that run at the same time, a database for each, and builders of rows.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use ovenbird_contract::{
    build::Status,
    desk::{Outcome, Published, TemplateKind},
    id::{BuildId, RunnerId, TemplateId},
};
use ovenbird_db::{
    Store,
    entity::template_build,
    store::{
        build_admin::{Inserted, NewBuild},
        claim, finish,
        host::{Allocated, Capacity, Held, Report, Versions},
        lease::Holder,
    },
};
use ovenbird_migrations::Migrator;
use ovenbird_testkit::{Folder, Postgres, postgres};
use sea_orm::{ConnectionTrait, EntityTrait};
use sea_orm_migration::MigratorTrait;
use tokio::sync::Mutex;
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

struct Server {
    postgres: Postgres,
    _folder: Folder,
}

static SERVER: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

/// A database of its own.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) url: String,
    _server: Arc<Server>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = server().await;
        let name = format!("store_{}", Uuid::now_v7().simple());
        let url = server.postgres.database_from("migrated", &name).await.unwrap();
        let db = ovenbird_db::connect(&url, 8, "store-tests").await.unwrap();
        Self { store: Store::new(db), url, _server: server }
    }

    /// A host that holds the base template `minimal`, with room for `vcpus` builds.
    pub(crate) async fn with_host(vcpus: u32) -> Self {
        let world = Self::new().await;
        world.store.host_report(&report("10.0.0.1:1", vcpus), Duration::ZERO).await.unwrap();
        world
    }

    pub(crate) async fn build(&self, name: &str) -> BuildId {
        let base = self.store.template_resolve("minimal", "latest").await.unwrap();
        let mut new = self.submission(name);
        new.base_template_id =
            base.map_or_else(TemplateId::new, |row| TemplateId::from_uuid(row.id));
        let inserted = self.store.build_insert(&new).await.unwrap();
        assert!(matches!(inserted, Inserted::New(_)));
        new.id
    }

    /// A submission whose base is not known yet.
    pub(crate) fn submission(&self, name: &str) -> NewBuild {
        NewBuild {
            id: BuildId::new(),
            name: name.into(),
            tag: "latest".into(),
            lane: "default".into(),
            base_template: "minimal".into(),
            base_template_id: TemplateId::new(),
            recipe: serde_json::json!(["RUN true"]),
            plan: serde_json::json!({"steps": []}),
            plan_digest: "d".into(),
            healthcheck: None,
            vcpus: 1,
            memory_mb: 512,
            disk_mb: None,
            context: None,
            skip_hooks: false,
            labels: Default::default(),
            total_steps: 1,
            trace: String::new(),
            requested_by: "test".into(),
            retry_of: None,
        }
    }

    pub(crate) async fn claim(
        &self,
        build: BuildId,
        attempt: u32,
        runner: RunnerId,
    ) -> Result<claim::Claimed, claim::Refused> {
        let request = claim::Request { build, attempt, runner, lease: LEASE };
        self.store.build_claim(&request).await.unwrap()
    }

    /// A claimed build.
    pub(crate) async fn running(&self, name: &str) -> Holder {
        let build = self.build(name).await;
        let runner = RunnerId::new();
        self.claim(build, 1, runner).await.unwrap();
        Holder { build, attempt: 1, runner }
    }

    pub(crate) async fn row(&self, build: BuildId) -> template_build::Model {
        self.store.build_row(build).await.unwrap().unwrap()
    }

    pub(crate) async fn status(&self, build: BuildId) -> Status {
        ovenbird_db::store::build::status(&self.row(build).await).unwrap()
    }

    pub(crate) async fn count<E: EntityTrait>(&self) -> usize {
        E::find().into_json().all(self.store.connection()).await.unwrap().len()
    }

    pub(crate) async fn sql(&self, text: &str) {
        self.store.connection().execute_unprepared(text).await.unwrap();
    }

    /// Of a runner that could have been heard.
    pub(crate) async fn lease_runs_out(&self, build: BuildId) {
        self.lease_runs_out_after(build, "1 hour", "0 seconds").await;
    }

    /// A second ago, where desks heard from `since` ago until `last` ago.
    pub(crate) async fn lease_runs_out_after(&self, build: BuildId, since: &str, last: &str) {
        // One statement: both go by one `now()`.
        self.sql(&format!(
            "WITH heard AS ({}) UPDATE template_builds
             SET lease_until = now() - interval '1 second' WHERE id = '{}'",
            hearing(since, last),
            build.uuid()
        ))
        .await;
    }

    /// Desks heard from so long ago until so long ago.
    pub(crate) async fn heard_for(&self, since: &str, last: &str) {
        self.sql(&hearing(since, last)).await;
    }

    pub(crate) async fn cancel(&self, build: BuildId) {
        self.sql(&format!(
            "UPDATE template_builds SET status = 'cancelling', cancel_requested_at = now() WHERE id = '{}'",
            build.uuid()
        ))
        .await;
    }
}

async fn server() -> Arc<Server> {
    let mut shared = SERVER.lock().await;
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let folder = Folder::new("store").unwrap();
    let postgres = Postgres::start(&folder.path().join("postgres"), postgres::Options::default())
        .await
        .unwrap();
    let url = postgres.database("migrated").await.unwrap();
    let db = ovenbird_db::connect(&url, 1, "store-tests").await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    db.close().await.unwrap();
    let server = Arc::new(Server { postgres, _folder: folder });
    *shared = Arc::downgrade(&server);
    server
}

pub(crate) fn report(address: &str, vcpus: u32) -> Report {
    Report {
        address: address.into(),
        server_name: "host".into(),
        capacity: Capacity { vcpus, memory_mb: 64 * 1024, ..Capacity::default() },
        allocated: Allocated::default(),
        versions: Versions::default(),
        templates: vec![image("minimal")],
    }
}

pub(crate) fn image(name: &str) -> Held {
    Held { host_name: name.into(), kind: TemplateKind::Image, size_bytes: 1 << 20 }
}

pub(crate) fn success() -> Outcome {
    Outcome::Succeeded(Published {
        kind: TemplateKind::Image,
        size_bytes: 7,
        default_env: [("A".to_owned(), "b".to_owned())].into(),
        default_user: Some("app".into()),
    })
}

pub(crate) fn finish_of(holder: &Holder, outcome: Outcome) -> finish::Request {
    finish::Request { holder: holder.clone(), outcome }
}

fn hearing(since: &str, last: &str) -> String {
    format!(
        "INSERT INTO hearing (since, last) VALUES (now() - interval '{since}', now() - interval '{last}')
         ON CONFLICT (id) DO UPDATE SET since = EXCLUDED.since, last = EXCLUDED.last"
    )
}
