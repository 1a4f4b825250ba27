//! `cargo dev up`: the platform, until somebody ends it.

use std::{path::Path, time::Duration};

use anyhow::Context;
use fs_err as fs;
use tokio_util::sync::CancellationToken;

use crate::{
    dashboard::Server,
    platform::{self, Options, Platform, place, record::Record},
    progress::Ui,
    setup, tree,
};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Starts the platform, keeps it running until `ending` is cancelled, and ends it. With `dashboard_dev` the dashboard is
/// also served from its sources.
///
/// # Errors
/// When another one runs in this tree, or something does not start or end.
pub async fn run(
    ui: &Ui,
    runners: usize,
    agents: usize,
    dashboard_dev: bool,
    ending: CancellationToken,
) -> anyhow::Result<()> {
    fs::create_dir_all(tree::scratch())?;
    let _only = place::exclusive(&tree::scratch().join("up.lock"))?
        .context("`cargo dev up` runs already in this tree")?;
    let file = tree::scratch().join("up.json");
    // That of a killed one points to nothing any more.
    if file.exists() {
        fs::remove_file(&file)?;
    }
    let options =
        Options { kind: "up", runners, slots: 2, agents, durable: true, ..Options::default() };
    let start = async {
        platform::require_root()?;
        let artifacts = setup::run(ui, setup::Again::default()).await?;
        tree::build(ui).await?;
        Platform::start(ui, &artifacts, options).await
    };
    let Some(platform) = ending.run_until_cancelled(start).await else { return Ok(()) };
    let mut platform = platform?;
    let record = platform.record();
    record.write(&file)?;
    ui.line(greeting(&record, &file));
    let mut dashboard =
        if dashboard_dev { Some(Server::start(ui, &record.api).await?) } else { None };
    if let Some(dashboard) = &dashboard {
        ui.line(format!("  dashboard  {} (hot reload)", dashboard.address()));
    }
    while ending.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let said = platform.look_after().await;
        if !said.is_empty() {
            platform.record().write(&file)?;
        }
        for line in said {
            ui.notice(line);
        }
        if let Some(said) = dashboard.as_mut().and_then(Server::look_after) {
            ui.notice(said);
            dashboard = None;
        }
    }
    fs::remove_file(&file)?;
    if let Some(dashboard) = dashboard {
        dashboard.stop().await?;
    }
    platform.stop(ui).await
}

fn greeting(record: &Record, file: &Path) -> String {
    let agents: Vec<String> = record
        .agents
        .iter()
        .map(|agent| format!("{} ({})", agent.address, agent.server_name))
        .collect();
    format!(
        "\n  api        {api}   (docs at {api}/docs)\n  dashboard  {api}/admin/templates\n  admin key  {key}\n  NATS       {nats}  {websocket}   (token: the key)\n  \
         agents     {agents}\n  logs       {logs}\n  for scripts {file}\n\n  \
         curl -H 'Authorization: Bearer {key}' {api}/v1/admin/builds\n\nCtrl-C ends it.",
        api = record.api,
        key = record.admin_key,
        nats = record.nats,
        websocket = record.nats_websocket,
        agents = agents.join(", "),
        logs = record.logs.display(),
        file = file.display(),
    )
}
