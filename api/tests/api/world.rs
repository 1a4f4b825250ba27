//! One API with services of its own, and the hands of the processes that are not there.

use std::{path::PathBuf, time::Duration};

use async_nats::jetstream::{self, stream};
use chrono::{DateTime, Utc};
use ovenbird_api::{
    app::{
        App,
        keys::{self, Scope},
    },
    config::{Config, DEFAULTS, Nkeys},
    nats_access::{Revoker, files},
    server::{Error, Service},
};
use ovenbird_contract::{
    build::Status,
    desk::TemplateKind,
    id::BuildId,
    log::{Batch, LineRecord, Record, Stream},
    nats::{EXPECTED_LAST_SUBJECT_SEQUENCE, Names, Retention},
    nats_access::Role,
};
use ovenbird_db::{
    Store,
    store::{
        host::{Allocated, Capacity, Held, Report, Versions},
        ledger::LogBatch,
    },
};
use ovenbird_testkit::{Folder, Nats, Postgres, Redis, nats, postgres, redis};
use reqwest::{Client, Method, RequestBuilder, Response};
use sea_orm_migration::MigratorTrait as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Everything that runs, in the order in which it goes.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) store: Store,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) names: Names,
    pub(crate) nats: Nats,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    config: Config,
    stopping: CancellationToken,
    server: Option<JoinHandle<Result<(), Error>>>,
    /// Where the seeds are, when NATS asks.
    access: Option<PathBuf>,
    _folder: Folder,
}

fn as_role(dir: &std::path::Path, role: Role) -> async_nats::ConnectOptions {
    let seed = std::fs::read_to_string(files::seed(dir, role)).unwrap();
    async_nats::ConnectOptions::with_nkey(seed.trim().to_owned())
        .custom_inbox_prefix(role.inbox_prefix())
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A world whose configuration `change` has changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = Folder::new("api").unwrap();
        Box::pin(Self::on(nats::Options::default(), folder, change)).await
    }

    /// A world whose NATS asks who everybody is, as it does in production, with a host.
    pub(crate) async fn guarded(change: impl FnOnce(&mut Config)) -> Self {
        let folder = Folder::new("api").unwrap();
        let dir = folder.join("access");
        files::write(&dir, &Names::default(), true).unwrap();
        let include = Some(dir.join(files::SERVER_CONFIG));
        let options = nats::Options { include, ..nats::Options::default() };
        let world = Box::pin(Self::on(options, folder, |config| {
            config.nats_nkey = Some(files::seed(&dir, Role::Api));
            config.nats_access.nkeys = Some(Nkeys {
                issuer: files::issuer(&dir),
                callout: files::seed(&dir, Role::Callout),
                revoker: files::seed(&dir, Role::Revoker),
            });
            change(config);
        }))
        .await;
        world.host(4, 8192).await;
        let open = async {
            // Refused until somebody answers the server's questions.
            while async_nats::ConnectOptions::with_token(world.admin.clone())
                .connect(world.nats.url())
                .await
                .is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, open).await.unwrap();
        world
    }

    async fn on(
        nats_options: nats::Options,
        folder: Folder,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let (pg_dir, nats_dir, redis_dir) =
            (folder.join("pg"), folder.join("nats"), folder.join("redis"));
        let (postgres, nats, redis) = tokio::join!(
            Postgres::start(&pg_dir, postgres::Options::default()),
            Nats::start_with(&nats_dir, nats_options.clone()),
            Redis::start(&redis_dir, redis::Options { append_only: false }),
        );
        let (postgres, nats, redis) = (postgres.unwrap(), nats.unwrap(), redis.unwrap());
        let database = postgres.database("ovenbird").await.unwrap();

        let mut config: Config =
            ovenbird_kit::config::load(DEFAULTS, None, "OVENBIRD_API_TEST").unwrap();
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.metrics_listen = None;
        // Every request is counted, on a machine that stands still for a second, too.
        config.rate.redis_deadline = SOON;
        config.database_url = ovenbird_kit::Secret::new(database.clone());
        config.redis_url = ovenbird_kit::Secret::new(redis.url());
        config.nats_url = ovenbird_kit::Secret::new(nats.url());
        change(&mut config);

        let store = Store::new(ovenbird_db::connect(&database, 4, "test").await.unwrap());
        ovenbird_migrations::Migrator::up(store.connection(), None).await.unwrap();
        let admin = keys::create(&store, "test", Scope::Admin, None).await.unwrap();

        let names = Names::new(&config.prefix);
        let access = nats_options.include.is_some().then(|| folder.join("access"));
        let client = match &access {
            None => async_nats::connect(nats.url()).await.unwrap(),
            Some(dir) => as_role(dir, Role::Tools).connect(nats.url()).await.unwrap(),
        };
        let jetstream = jetstream::new(client);
        logs_stream(&jetstream, &names).await;
        contexts_stream(&jetstream, &names).await;

        let stopping = CancellationToken::new();
        let service = Service::bind(config.clone(), stopping.clone()).await.unwrap();
        let url = format!("http://{}", service.address().unwrap());
        let server = Some(tokio::spawn(service.run()));
        let admin = admin.expose().clone();
        let client = Client::new();
        Self {
            client,
            url,
            admin,
            store,
            jetstream,
            names,
            nats,
            redis,
            postgres,
            config,
            stopping,
            server,
            access,
            _folder: folder,
        }
    }

    /// How a process of ours connects to a NATS that asks.
    pub(crate) fn role(&self, role: Role) -> async_nats::ConnectOptions {
        as_role(self.access.as_ref().expect("the world is guarded"), role)
    }

    /// A world with a host that offers `minimal`.
    pub(crate) async fn with_host() -> Self {
        let world = Self::start().await;
        world.host(4, 8192).await;
        world
    }

    /// A host that offers `minimal` and sandboxes up to this size.
    pub(crate) async fn host(&self, vcpus: u32, memory_mb: u32) {
        let report = Report {
            address: format!("127.0.0.1:{vcpus}"),
            server_name: "agent".into(),
            capacity: Capacity {
                vcpus,
                memory_mb,
                max_sandbox_vcpus: vcpus,
                max_sandbox_memory_mb: memory_mb,
                disk_free_bytes: 1 << 40,
            },
            allocated: Allocated::default(),
            versions: Versions::default(),
            templates: vec![Held {
                host_name: "minimal".into(),
                kind: TemplateKind::Image,
                size_bytes: 1 << 20,
            }],
        };
        self.store.host_report(&report, Duration::ZERO).await.unwrap();
    }

    pub(crate) async fn key(&self, scope: Scope, expires_at: Option<DateTime<Utc>>) -> String {
        keys::create(&self.store, "another", scope, expires_at).await.unwrap().expose().clone()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    /// Submits a build that is in order.
    pub(crate) async fn submit(&self, name: &str) -> Value {
        self.submit_as(&self.admin, name).await
    }

    /// Submits a build with another key.
    pub(crate) async fn submit_as(&self, key: &str, name: &str) -> Value {
        let body = json!({"name": name, "recipe": ["RUN true"]});
        let request = self.client.post(format!("{}/v1/admin/builds", self.url));
        let response = request.bearer_auth(key).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 201);
        response.json().await.unwrap()
    }

    pub(crate) async fn submit_id(&self, name: &str) -> BuildId {
        self.submit(name).await["id"].as_str().unwrap().parse().unwrap()
    }

    /// Number of stored builds.
    pub(crate) async fn builds(&self) -> String {
        self.postgres.sql("ovenbird", "SELECT count(*) FROM template_builds").await.unwrap()
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.stopping.cancel();
        let server = self.server.take().unwrap();
        tokio::time::timeout(SOON, server).await.unwrap().unwrap().unwrap();
    }

    /// The use cases alone, over the same services.
    pub(crate) async fn app(&self) -> std::sync::Arc<App> {
        ovenbird_api::server::connect(&self.config, Revoker::default(), CancellationToken::new())
            .await
            .unwrap()
    }

    /// Another server over the same services.
    pub(crate) async fn replica(&self) -> Replica {
        let stopping = CancellationToken::new();
        let service = Service::bind(self.config.clone(), stopping.clone()).await.unwrap();
        let url = format!("http://{}", service.address().unwrap());
        Replica { url, stopping, server: tokio::spawn(service.run()) }
    }

    pub(crate) fn writer(&self, build: BuildId) -> Writer {
        Writer {
            jetstream: self.jetstream.clone(),
            subject: self.names.logs(&build),
            build,
            next: 1,
            stream_seq: 0,
        }
    }
}

/// One more server of a world.
pub(crate) struct Replica {
    pub(crate) url: String,
    stopping: CancellationToken,
    server: JoinHandle<Result<(), Error>>,
}

impl Replica {
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        tokio::time::timeout(SOON, self.server).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn logs_stream(jetstream: &jetstream::Context, names: &Names) {
    let spec = names.logs_stream();
    let Retention::Age(max_age) = spec.retention else { panic!("logs are kept by age") };
    let config = stream::Config {
        name: spec.name,
        subjects: spec.subjects,
        max_age,
        duplicate_window: spec.duplicate_window,
        max_message_size: spec.max_message_bytes,
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
}

async fn contexts_stream(jetstream: &jetstream::Context, names: &Names) {
    let spec = names.contexts_stream();
    let config = stream::Config {
        name: spec.name,
        subjects: spec.subjects,
        max_message_size: spec.max_message_bytes,
        allow_direct: true,
        allow_rollup: true,
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
}

/// Writes a build's log as a runner does: one publish at a time, each naming the one before.
pub(crate) struct Writer {
    jetstream: jetstream::Context,
    subject: String,
    build: BuildId,
    pub(crate) next: u64,
    stream_seq: u64,
}

impl Writer {
    /// Publishes `count` lines in one message.
    pub(crate) async fn lines(&mut self, count: u64) -> LogBatch {
        self.texts((0..count).map(|n| format!("line {}", self.next + n)).collect()).await
    }

    pub(crate) async fn texts(&mut self, texts: Vec<String>) -> LogBatch {
        let records = texts.into_iter().zip(self.next..).map(|(text, seq)| line(seq, text));
        self.publish(records.collect()).await
    }

    /// Publishes the terminal record.
    pub(crate) async fn end(&mut self, status: Status) -> LogBatch {
        self.publish(vec![Record::end(self.next, status)]).await
    }

    async fn publish(&mut self, records: Vec<Record>) -> LogBatch {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, self.stream_seq.to_string());
        headers.insert("Nats-Msg-Id", format!("{}.{}", self.build, self.next));
        self.next += records.len() as u64;
        let batch = Batch::of(records);
        let payload = serde_json::to_vec(&batch).unwrap();
        let ack = self
            .jetstream
            .publish_with_headers(self.subject.clone(), headers, payload.into())
            .await
            .unwrap();
        self.stream_seq = ack.await.unwrap().sequence;
        LogBatch { build: self.build, stream_seq: self.stream_seq, records: batch.records }
    }
}

pub(crate) fn line(seq: u64, text: String) -> Record {
    let stream = if seq.is_multiple_of(3) { Stream::Stderr } else { Stream::Stdout };
    let step = u32::try_from(1 + seq % 2).unwrap();
    let ts = Utc::now();
    Record::Line(LineRecord { seq, ts, attempt: 1, step, stream, text, cont: false, data: None })
}

/// The events of a log stream, as a client reads them.
pub(crate) struct Events {
    response: Response,
    buffer: Vec<u8>,
    place: usize,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) kind: Option<String>,
    pub(crate) data: Value,
}

impl World {
    pub(crate) async fn follow(&self, build: &BuildId, from_seq: u64) -> Events {
        let path = format!("/v1/admin/builds/{build}/logs/stream?from_seq={from_seq}");
        Events::of(self.get(&path).await)
    }
}

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: Vec::new(), place: 0 }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(block) = self.block() {
                if let Some(event) = event(&block) {
                    return Some(event);
                }
            }
            self.read().await?;
        }
    }

    /// Waits for a heartbeat; nothing else may come.
    pub(crate) async fn heartbeat(&mut self) {
        loop {
            match self.block() {
                Some(block) if block.starts_with(':') => return,
                Some(block) => assert_eq!(event(&block), None),
                None => self.read().await.expect("the stream goes on"),
            }
        }
    }

    fn block(&mut self) -> Option<String> {
        let unread = &self.buffer[self.place..];
        let length = unread.windows(2).position(|it| it == b"\n\n")?;
        let block = std::str::from_utf8(&unread[..length]).unwrap().to_owned();
        self.place += length + 2;
        Some(block)
    }

    async fn read(&mut self) -> Option<()> {
        self.buffer.drain(..std::mem::take(&mut self.place));
        let chunk = tokio::time::timeout(SOON, self.response.chunk()).await;
        self.buffer.extend_from_slice(&chunk.expect("the stream says something").unwrap()?);
        Some(())
    }

    /// The `seq` of the next record.
    pub(crate) async fn seq(&mut self) -> u64 {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.id, event.data["seq"].as_u64());
        event.id.unwrap()
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut records = Vec::new();
        while let Some(event) = self.next().await {
            assert_eq!(event.kind, None, "{event:?}");
            records.push(event.data);
        }
        records
    }
}

fn event(block: &str) -> Option<Event> {
    let field = |name: &str| {
        block.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().to_owned()))
    };
    let data = serde_json::from_str(&field("data:")?).unwrap();
    Some(Event { id: field("id:").map(|id| id.parse().unwrap()), kind: field("event:"), data })
}
