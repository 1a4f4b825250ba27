//! `cargo dev demo`: two recipes become templates, live, and a sandbox starts from each.

use std::time::Duration;

use anyhow::Context;
use console::style;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    build::{self, Followed},
    host::{Host, Started},
    platform::{self, Options, Platform},
    progress::Ui,
    setup, tree,
};

const MEMORY_MB: i32 = 256;

/// An image: root disk only, its sandboxes boot.
fn image_build() -> Value {
    json!({
        "name": "demo-image",
        "memory_mb": MEMORY_MB,
        "recipe": [
            "ENV GREETING=\"hello from an image\"",
            "WORKDIR /srv/app",
            "RUN for n in 1 2 3 4 5; do echo \"line $n of 5\"; sleep 0.2; done",
            "RUN echo \"$GREETING\" > greeting.txt && cat greeting.txt",
        ],
    })
}

/// A snapshot: the web server already runs in every sandbox.
fn snapshot_build() -> Value {
    json!({
        "name": "demo-snapshot",
        "memory_mb": MEMORY_MB,
        "recipe": [
            "WORKDIR /srv/www",
            "RUN echo 'hello from a snapshot' > index.html",
            "START busybox httpd -f -v -p 8080 -h /srv/www",
        ],
        "healthcheck": "--interval=200ms --timeout=5s busybox wget -q -O - http://127.0.0.1:8080/",
    })
}

/// Runs the demo; whatever happens, everything it started is ended.
///
/// # Errors
/// With the end of the logs when a part fails; all logs are then in `.ovenbird/demo-failed`.
pub async fn run(ui: &Ui, ending: CancellationToken) -> anyhow::Result<()> {
    let start = async {
        platform::require_root()?;
        let artifacts = setup::run(ui, setup::Again::default()).await?;
        tree::build(ui).await?;
        let options = Options { kind: "demo", runners: 2, ..Options::default() };
        Platform::start(ui, &artifacts, options).await
    };
    let Some(platform) = ending.run_until_cancelled(start).await else {
        anyhow::bail!("ended by a signal")
    };
    let mut platform = platform?;
    let shown = ending.run_until_cancelled(show(ui, &mut platform)).await;
    let shown = shown.unwrap_or_else(|| Err(anyhow::anyhow!("ended by a signal")));
    let kept = match &shown {
        Ok(_) => None,
        Err(_) => Some((platform.log_tails(12), platform.keep_logs("demo-failed")?)),
    };
    let stopped = platform.stop(ui).await;
    match (shown, kept) {
        (Ok(table), _) => {
            stopped?;
            ui.line(table);
            Ok(())
        }
        (Err(error), kept) => {
            let (tails, place) = kept.unwrap_or_default();
            Err(error
                .context(format!("{tails}all logs are in {}", place.display()))
                .context("the demo failed"))
        }
    }
}

async fn show(ui: &Ui, platform: &mut Platform) -> anyhow::Result<String> {
    let api = platform.api()?;
    let record = platform.record();
    let agent = record.agents.first().context("a platform without agent")?;
    let host = Host::connect(agent).await?;
    let (image, snapshot) =
        tokio::try_join!(bake(ui, &api, image_build()), bake(ui, &api, snapshot_build()))?;

    let step = ui.step("start a sandbox from each template");
    let cold =
        host.start(image.template()?, MEMORY_MB).await.context("cold start from the image")?;
    let fork = host.start(snapshot.template()?, 0).await.context("start from the snapshot")?;
    step.done("");
    let said = host.exec(&cold.id, "cat /srv/app/greeting.txt").await?;
    ui.line(format!("  {} {}", style("image sandbox says").dim(), text(&said.stdout)));
    let said = host.exec(&fork.id, "busybox wget -q -O - http://127.0.0.1:8080/").await?;
    ui.line(format!("  {} {}", style("snapshot sandbox says").dim(), text(&said.stdout)));
    anyhow::ensure!(
        text(&said.stdout) == "hello from a snapshot",
        "the forked web server is silent"
    );
    for sandbox in [&cold, &fork] {
        host.destroy(&sandbox.id).await?;
    }
    Ok(table(&image, &snapshot, &cold, &fork))
}

/// Submits a build and shows its log with a bar of its steps.
async fn bake(ui: &Ui, api: &Api, request: Value) -> anyhow::Result<Followed> {
    let name = request["name"].as_str().unwrap_or_default().to_owned();
    let steps = request["recipe"].as_array().map_or(0, Vec::len) as u64;
    let bar = ui.bar(&name, steps);
    let followed = build::follow(api, &request, |record| {
        let Some(line) = record["text"].as_str() else { return };
        let step = record["step"].as_u64().unwrap_or_default();
        if step > 0 {
            bar.position(step - 1);
        }
        bar.message(line);
        let label = style(format!("{name:>13} {step}")).cyan();
        ui.line(format!("  {label} {line}"));
    })
    .await
    .with_context(|| format!("build {name}"))?;
    anyhow::ensure!(followed.status() == "succeeded", "build {name}: {}", followed.reason());
    bar.position(steps);
    let template = followed.template()?.to_owned();
    bar.done(&template);
    Ok(followed)
}

fn table(image: &Followed, snapshot: &Followed, cold: &Started, fork: &Started) -> String {
    let mut rows: Vec<(String, Duration)> = Vec::new();
    for (name, followed) in [("demo-image", image), ("demo-snapshot", snapshot)] {
        if let Some(first) = followed.first_line {
            rows.push((format!("{name}: submit to first line of a step"), first));
        }
        for entry in followed.build["logs"].as_array().into_iter().flatten() {
            let command: String =
                entry["cmd"].as_str().unwrap_or_default().chars().take(44).collect();
            let place = match entry["phase"].as_str() {
                Some("step") => format!("step {}", entry["step"]),
                Some(phase) => phase.to_owned(),
                None => String::new(),
            };
            let elapsed = Duration::from_millis(entry["elapsed_ms"].as_u64().unwrap_or_default());
            rows.push((format!("{name}: {place} {command}"), elapsed));
        }
        rows.push((format!("{name}: submit to end of log"), followed.total));
    }
    rows.push(("sandbox from the image: request to first command".into(), cold.first_exec));
    rows.push(("sandbox from the snapshot: request to first command".into(), fork.first_exec));
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or_default();
    let lines =
        rows.iter().map(|(what, time)| format!("  {what:width$}  {:>7.3} s\n", time.as_secs_f64()));
    format!("\n{}", lines.collect::<String>())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}
