//! `ovenbird-api`: serves, and does what has to be done before the first start.

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use chrono::Utc;
use clap::{Args, Parser, Subcommand};
use ovenbird_api::{
    app::keys::{self, Scope},
    config::{Config, DEFAULTS},
    http,
    nats_access::{Revoker, files},
    server,
};
use ovenbird_contract::nats::Names;
use ovenbird_kit::{
    shutdown,
    telemetry::{self, Traces},
};
use sea_orm_migration::{
    MigratorTrait as _,
    sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, TransactionTrait as _},
};
use tokio_util::sync::CancellationToken;

/// The REST API of Ovenbird.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// TOML file over the documented defaults (`ovenbird-api defaults` prints them).
    #[arg(long, global = true, env = "OVENBIRD_API_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT (the default).
    Serve,
    /// Bring the database to this version's schema.
    Migrate,
    /// Print the OpenAPI document.
    Openapi,
    /// Print the documented defaults of the configuration.
    Defaults,
    /// Write what NATS needs to know our processes and customers: a seed each, and `access.conf`, which the
    /// server's own configuration includes. Seeds that are there are kept.
    NatsAccess(NatsAccessArguments),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and print it, alone, on standard output. It is shown this once.
    Create(KeyArguments),
}

#[derive(Debug, Args)]
struct KeyArguments {
    /// What the key may do.
    #[arg(long, value_enum)]
    scope: Scope,
    /// What people call it.
    #[arg(long)]
    name: String,
    /// It ends by itself after this long, such as `30d`; never when absent.
    #[arg(long, value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
}

#[derive(Debug, Args)]
struct NatsAccessArguments {
    /// Where to.
    dir: PathBuf,
    /// Also for an operator's tools, which may do everything with builds.
    #[arg(long)]
    tools: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = || Config::load(arguments.config.as_deref());
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let config = config()?;
            let telemetry = telemetry::init("ovenbird-api", &config.telemetry, Traces::Begun)?;
            let service = server::Service::bind(config, shutdown::on_signals()).await?;
            let ended = service.run().await;
            telemetry.close().await;
            ended?;
        }
        Command::Migrate => {
            let config = config()?;
            let telemetry =
                telemetry::init("ovenbird-api migrate", &config.telemetry, Traces::Joined)?;
            let store = server::store(&config).await?;
            migrate(store.connection())
                .await
                .context("the database cannot be brought to this version's schema")?;
            telemetry.close().await;
        }
        Command::Openapi => print(&openapi(config()?).await?)?,
        Command::Defaults => print(DEFAULTS)?,
        Command::NatsAccess(NatsAccessArguments { dir, tools }) => {
            files::write(&dir, &Names::new(config()?.prefix), tools)?;
        }
        Command::Key(KeyCommand::Create(key)) => {
            let expires_at = key.expires_in.map(|time| Utc::now() + time);
            let store = server::store(&config()?).await?;
            let text = keys::bootstrap(&store, &key.name, key.scope, expires_at)
                .await
                .context("the key cannot be stored; was the database migrated?")?;
            print(&format!("{}\n", text.expose()))?;
        }
    }
    Ok(())
}

/// Those of several replicas that start at the same time wait for each other.
async fn migrate(database: &DatabaseConnection) -> Result<(), DbErr> {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('ovenbird migrate'))";
    let turn = database.begin().await?;
    turn.execute_unprepared(LOCK).await?;
    ovenbird_migrations::Migrator::up(database, None).await?;
    turn.commit().await
}

/// The document follows from the code alone; nothing is connected to.
async fn openapi(config: Config) -> anyhow::Result<String> {
    let app = server::connect(&config, Revoker::default(), CancellationToken::new()).await?;
    let service = http::service(&app, &config.http, &config.logs);
    Ok(http::spec::text(&service)?)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
