//! One Postgres, Redis and NATS for the tests that run at the same time; a database and a prefix for each.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_nats::jetstream::{
    self, consumer::PullConsumer, message::PublishMessage, stream::RawMessageErrorKind,
};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use ovenbird_bridge::{
    desk::{self, Desk},
    ledger,
    log::Log,
    metrics::Metrics,
    queue::Queue,
    relay,
    state::States,
    streams, sweep,
};
use ovenbird_contract::{
    desk::{
        Claim, ClaimRequest, FinishRequest, LogPosition, Outcome, Published, RefusalCode, Reply,
        TemplateKind,
    },
    id::{BuildId, RunnerId, TemplateId},
    job::Job,
    log::{Batch, LineRecord, LogCaps, Record, Stream},
    nats::Names,
    redis::Keys,
};
use ovenbird_db::{
    Store,
    entity::template_build,
    store::{
        build_admin::NewBuild,
        host::{Allocated, Capacity, Held, Report, Versions},
    },
};
use ovenbird_migrations::Migrator;
use ovenbird_testkit::{Folder, Nats, Postgres, Redis, postgres, redis as test_redis, wait_for};
use redis::{AsyncCommands, aio::ConnectionManagerConfig};
use sea_orm::ConnectionTrait;
use sea_orm_migration::MigratorTrait;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Little, for NATS sets it aside for each.
pub(crate) const ROOM: streams::Room =
    streams::Room { replicas: 1, contexts_bytes: 64 * 1024 * 1024 };
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const TIME_MAX: Duration = Duration::from_secs(3600);

pub(crate) struct Servers {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    pub(crate) nats: Nats,
    _folder: Folder,
}

static SERVERS: Mutex<Weak<Servers>> = Mutex::const_new(Weak::new());

impl Servers {
    /// For a test that kills them: what was committed survives that only when it is flushed.
    pub(crate) async fn durable() -> Self {
        Self::start(postgres::Options { durable: true, ..postgres::Options::default() }).await
    }

    async fn start(options: postgres::Options) -> Self {
        let folder = Folder::new("bridge").unwrap();
        let dirs = ["postgres", "redis", "nats"].map(|name| folder.join(name));
        let (postgres, redis, nats) = tokio::try_join!(
            Postgres::start(&dirs[0], options),
            Redis::start(&dirs[1], test_redis::Options::default()),
            Nats::start(&dirs[2]),
        )
        .unwrap();
        let url = postgres.database("migrated").await.unwrap();
        let db = ovenbird_db::connect(&url, 1, "bridge-tests").await.unwrap();
        Migrator::up(&db, None).await.unwrap();
        db.close().await.unwrap();
        Self { postgres, redis, nats, _folder: folder }
    }

    pub(crate) async fn shared() -> Arc<Self> {
        let mut shared = SERVERS.lock().await;
        if let Some(servers) = shared.upgrade() {
            return servers;
        }
        let servers = Arc::new(Self::start(postgres::Options::default()).await);
        *shared = Arc::downgrade(&servers);
        servers
    }
}

/// Everything a service needs, and what the tests look at.
pub(crate) struct Rig {
    pub(crate) prefix: String,
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) nats_url: String,
    pub(crate) store: Store,
    pub(crate) redis_client: redis::Client,
    pub(crate) redis: redis::aio::ConnectionManager,
    pub(crate) queue: Queue,
    pub(crate) keys: Keys,
    pub(crate) client: async_nats::Client,
    /// The test's own, patient.
    pub(crate) js: jetstream::Context,
    of_services: jetstream::Context,
    pub(crate) names: Names,
    pub(crate) log: Log,
    stop: CancellationToken,
    services: JoinSet<()>,
    // Last, so that it is dropped last.
    _servers: Option<Arc<Servers>>,
}

impl Rig {
    /// On the shared servers, with a host that holds `minimal` and has room for eight builds.
    pub(crate) async fn new() -> Self {
        let servers = Servers::shared().await;
        let mut rig = Self::on(&servers).await;
        rig._servers = Some(servers);
        rig
    }

    pub(crate) async fn on(servers: &Servers) -> Self {
        let prefix = format!("t{}", Uuid::now_v7().simple());
        let database_url = servers.postgres.database_from("migrated", &prefix).await.unwrap();
        let (redis_url, nats_url) = (servers.redis.url(), servers.nats.url());
        let db = ovenbird_db::connect(&database_url, 8, "bridge-tests").await.unwrap();
        let keys = Keys::new(&prefix);
        let redis_client = redis::Client::open(redis_url.as_str()).unwrap();
        let patient = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(SOON))
            .set_response_timeout(Some(SOON));
        let redis = redis_client.get_connection_manager_with_config(patient).await.unwrap();
        let client = async_nats::connect(&nats_url).await.unwrap();
        let [mut js, mut of_services] = [(); 2].map(|()| jetstream::new(client.clone()));
        js.set_timeout(SOON);
        of_services.set_timeout(Duration::from_secs(2));
        let names = Names::new(&prefix);
        let rig = Self {
            database_url,
            redis_url,
            nats_url,
            store: Store::new(db),
            queue: Queue::new(&redis_client, keys.clone()).unwrap(),
            redis_client,
            redis,
            keys,
            client,
            log: Log::new(of_services.clone(), names.clone(), streams::Handle::default()),
            js,
            of_services,
            names,
            prefix,
            stop: CancellationToken::new(),
            services: JoinSet::new(),
            _servers: None,
        };
        rig.store.host_report(&host(), Duration::ZERO).await.unwrap();
        rig
    }

    /// As [`Rig::new`], with all streams and consumers.
    pub(crate) async fn with_streams() -> Self {
        let rig = Self::new().await;
        rig.ensure().await;
        rig
    }

    pub(crate) async fn ensure(&self) {
        streams::ensure(&self.js, &self.names, ROOM).await.unwrap();
    }

    pub(crate) fn spawn(&mut self, service: impl Future<Output = ()> + Send + 'static) {
        self.services.spawn(service);
    }

    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Ends the services. The servers go on for as long as the caller keeps what it gets.
    pub(crate) async fn stop(mut self) -> Option<Arc<Servers>> {
        self.stop.cancel();
        while let Some(ended) = self.services.join_next().await {
            ended.unwrap();
        }
        self._servers
    }

    pub(crate) fn start_relay(&mut self, id: &str) {
        let parts = relay::Parts {
            client: self.redis_client.clone(),
            queue: self.queue.clone(),
            store: self.store.clone(),
            js: self.of_services.clone(),
            names: self.names.clone(),
            streams: streams::Handle::default(),
            metrics: Metrics::default(),
        };
        let relay = relay::Service::new(id.into(), parts, 32);
        self.spawn(relay.run(self.stop_token()));
    }

    pub(crate) fn start_desk(&mut self) {
        self.start_desk_with(LEASE);
    }

    pub(crate) fn start_desk_with(&mut self, lease: Duration) {
        let desk = Desk {
            store: self.store.clone(),
            log: self.log.clone(),
            queue: self.queue.clone(),
            states: States::new(self.of_services.clone(), self.names.clone()),
            lease,
            finish_wait: Duration::from_secs(3),
            attempts_max: 3,
            build_time_max: TIME_MAX,
            log_caps: LogCaps { step_bytes: 1_000, build_bytes: 2_000 },
            metrics: Metrics::default(),
        };
        let desk = desk::Service::new(desk, self.client.clone(), self.names.clone(), 16);
        self.spawn(desk.run(self.stop_token()));
    }

    pub(crate) fn start_ledger(&mut self) {
        let ledger = ledger::Service::new(
            self.store.clone(),
            self.of_services.clone(),
            self.names.clone(),
            streams::Handle::default(),
            Metrics::default(),
        );
        self.spawn(ledger.run(self.stop_token()));
    }

    /// A sweep without patience, whose rules the test runs.
    pub(crate) fn sweep(&self) -> sweep::Service {
        sweep::Service {
            store: self.store.clone(),
            queue: self.queue.clone(),
            log: self.log.clone(),
            states: States::new(self.of_services.clone(), self.names.clone()),
            agents: None,
            client: self.client.clone(),
            js: self.of_services.clone(),
            names: self.names.clone(),
            attempts_max: 3,
            build_time_max: TIME_MAX,
            times: sweep::Times {
                interval: Duration::from_millis(50),
                lease: LEASE,
                leases_interval: Duration::from_millis(50),
                orphans_interval: Duration::from_millis(50),
                orphan_grace: Duration::ZERO,
                cancel_patience: Duration::from_secs(600),
                push_after: Duration::ZERO,
                job_settled: Duration::ZERO,
                job_fallback: Duration::from_secs(600),
                audit_kept: Duration::from_secs(600),
                contexts_kept: Duration::from_secs(600),
            },
            metrics: Metrics::default(),
        }
    }

    pub(crate) async fn build(&self, name: &str) -> BuildId {
        self.build_from(name, None).await
    }

    /// A build that names a context.
    pub(crate) async fn build_from(&self, name: &str, context: Option<&str>) -> BuildId {
        let base = self.store.template_resolve("minimal", "latest").await.unwrap().unwrap();
        let new = NewBuild {
            id: BuildId::new(),
            name: name.into(),
            tag: "latest".into(),
            lane: "default".into(),
            base_template: "minimal".into(),
            base_template_id: TemplateId::from_uuid(base.id),
            recipe: serde_json::json!(["RUN true"]),
            plan: serde_json::json!({"steps": ["RUN true"]}),
            plan_digest: "d".into(),
            healthcheck: None,
            vcpus: 1,
            memory_mb: 512,
            disk_mb: None,
            context: context.map(str::to_owned),
            skip_hooks: false,
            labels: Default::default(),
            total_steps: 1,
            trace: String::new(),
            requested_by: "test".into(),
            retry_of: None,
        };
        self.store.build_insert(&new).await.unwrap();
        new.id
    }

    pub(crate) async fn row(&self, build: BuildId) -> template_build::Model {
        // A connection that a killed Postgres broke fails once.
        let row = || async { self.store.build_row(build).await.ok().flatten() };
        wait_for("the build's row", SOON, row).await.unwrap()
    }

    /// Of a runner that could have been heard.
    pub(crate) async fn lease_runs_out(&self, build: BuildId) {
        let heard = "INSERT INTO hearing (since, last) VALUES (now() - interval '1 hour', now())
            ON CONFLICT (id) DO UPDATE SET since = EXCLUDED.since, last = EXCLUDED.last";
        self.store.connection().execute_unprepared(heard).await.unwrap();
        self.lease_ends(build).await;
    }

    pub(crate) async fn lease_ends(&self, build: BuildId) {
        let text =
            "UPDATE template_builds SET lease_until = now() - interval '1 second' WHERE id = ";
        let text = format!("{text} '{}'", build.uuid());
        self.store.connection().execute_unprepared(&text).await.unwrap();
    }

    /// The first attempt of a build began this long ago.
    pub(crate) async fn began(&self, build: BuildId, ago: Duration) {
        let text = "UPDATE template_builds SET started_at = now() - interval '1 second' *";
        let text = format!("{text} {} WHERE id = '{}'", ago.as_secs(), build.uuid());
        self.store.connection().execute_unprepared(&text).await.unwrap();
    }

    pub(crate) async fn list(&self, key: String) -> Vec<String> {
        self.redis.clone().lrange(key, 0, -1).await.unwrap()
    }

    /// Asks the desk until it can decide, as runners do.
    pub(crate) async fn ask<Q: Serialize, T: DeserializeOwned>(
        &self,
        verb: &str,
        request: &Q,
    ) -> Reply<T> {
        let decided = || async {
            let reply = self.ask_once(verb, request).await;
            let is_open =
                matches!(&reply, Reply::Refused(it) if it.code == RefusalCode::Unavailable);
            (!is_open).then_some(reply)
        };
        wait_for("the desk decides", SOON, decided).await.unwrap()
    }

    /// Asks the desk until it is there.
    pub(crate) async fn ask_once<Q: Serialize, T: DeserializeOwned>(
        &self,
        verb: &str,
        request: &Q,
    ) -> Reply<T> {
        let payload = serde_json::to_vec(request).unwrap();
        let answer = wait_for("the desk answers", SOON, || {
            let request = self.client.request(self.names.desk(verb), payload.clone().into());
            async move { request.await.ok() }
        });
        serde_json::from_slice(&answer.await.unwrap().payload).unwrap()
    }

    pub(crate) async fn claim(
        &self,
        build_id: BuildId,
        attempt: u32,
        runner_id: RunnerId,
    ) -> Reply<Claim<serde_json::Value>> {
        self.ask("claim", &ClaimRequest { build_id, attempt, runner_id }).await
    }

    /// A job from the work queue, acknowledged.
    pub(crate) async fn job(&self) -> Job {
        let consumer = self.runners().await;
        let message = wait_for("a job", SOON, || async {
            let mut batch = consumer.fetch().max_messages(1).messages().await.ok()?;
            batch.next().await?.ok()
        });
        let message = message.await.unwrap();
        message.double_ack().await.unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    }

    pub(crate) async fn jobs(&self) -> u64 {
        let stream = self.js.get_stream(self.names.builds_stream().name).await.unwrap();
        stream.cached_info().state.messages
    }

    async fn runners(&self) -> PullConsumer {
        let spec = self.names.runners_consumer();
        wait_for("the consumer", SOON, || async {
            self.js.get_consumer_from_stream(&spec.durable, &spec.stream).await.ok()
        })
        .await
        .unwrap()
    }

    /// Publishes as a runner does; `Err` when the stream refuses the expectation.
    pub(crate) async fn log(
        &self,
        build: BuildId,
        at: LogPosition,
        lines: u64,
    ) -> Result<LogPosition, ()> {
        let records = (at.next_seq..at.next_seq + lines).map(line).collect();
        self.log_batch(build, at, &Batch::of(records)).await
    }

    pub(crate) async fn log_batch(
        &self,
        build: BuildId,
        at: LogPosition,
        batch: &Batch,
    ) -> Result<LogPosition, ()> {
        let lines = batch.records.len() as u64;
        let message = PublishMessage::build()
            .message_id(format!("{build}.{}", at.next_seq))
            .expected_last_subject_sequence(at.stream_seq)
            .payload(serde_json::to_vec(batch).unwrap().into());
        let ack = self.js.send_publish(self.names.logs(&build), message).await.unwrap();
        let ack = ack.await.map_err(drop)?;
        Ok(LogPosition { next_seq: at.next_seq + lines, stream_seq: ack.sequence })
    }

    /// Every record in the stream, in order.
    pub(crate) async fn streamed(&self, build: BuildId) -> Vec<Record> {
        let stream = self.js.get_stream(self.names.logs_stream().name).await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        let subject = self.names.logs(&build);
        let mut records = Vec::new();
        for seq in 1..=last {
            let message = match stream.get_raw_message(seq).await {
                Ok(message) => message,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => continue,
                Err(error) => panic!("{error}"),
            };
            if message.subject.as_str() == subject {
                let batch: Batch = serde_json::from_slice(&message.payload).unwrap();
                records.extend(batch.records);
            }
        }
        records
    }

    /// Every record in Postgres, in order.
    pub(crate) async fn stored(&self, build: BuildId) -> Vec<Record> {
        let read = || async { self.store.build_log_runs(build, 1, 1_000).await.ok() };
        let runs = wait_for("the stored log", SOON, read).await.unwrap();
        runs.into_iter().flatten().collect()
    }
}

pub(crate) fn line(seq: u64) -> Record {
    Record::Line(LineRecord {
        seq,
        ts: DateTime::<Utc>::UNIX_EPOCH,
        attempt: 1,
        step: 1,
        stream: Stream::Stdout,
        text: format!("line {seq}"),
        cont: false,
        data: None,
    })
}

pub(crate) fn ok<T: std::fmt::Debug>(reply: Reply<T>) -> T {
    match reply {
        Reply::Ok(done) => done,
        Reply::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

pub(crate) fn success() -> Outcome {
    Outcome::Succeeded(Published {
        kind: TemplateKind::Image,
        size_bytes: 7,
        default_env: [("A".to_owned(), "b".to_owned())].into(),
        default_user: None,
    })
}

pub(crate) fn finish(
    claim: &Claim<serde_json::Value>,
    runner_id: RunnerId,
    log: LogPosition,
    event_stream_seq: u64,
) -> FinishRequest {
    FinishRequest {
        build_id: claim.build_id,
        attempt: claim.attempt,
        runner_id,
        outcome: success(),
        log,
        event_stream_seq,
    }
}

fn host() -> Report {
    Report {
        address: "127.0.0.1:1".into(),
        server_name: "host".into(),
        capacity: Capacity { vcpus: 8, memory_mb: 64 * 1024, ..Capacity::default() },
        allocated: Allocated::default(),
        versions: Versions::default(),
        templates: vec![Held {
            host_name: "minimal".into(),
            kind: TemplateKind::Image,
            size_bytes: 1 << 20,
        }],
    }
}
