//! A recipe becomes a template, and a sandbox starts from it.

use ovenbird_dev::{build::follow, host::Started};
use serde_json::json;

use crate::platform::Stage;

const MEMORY_MB: i32 = 256;

#[tokio::test]
async fn recipes_become_templates_and_a_fork_goes_on_where_its_build_stood() {
    let stage = Stage::set().await;
    let image = json!({
        "name": "an-image", "memory_mb": MEMORY_MB,
        "recipe": ["ENV COLOUR=green", "WORKDIR /srv", "USER baker", "RUN id -un > /var/tmp/who; echo $COLOUR"],
    });
    let snapshot = json!({
        "name": "a-snapshot", "memory_mb": MEMORY_MB,
        "recipe": ["RUN mkdir -p /srv/www && echo baked > /srv/www/index.html",
                   "START echo serving; exec busybox httpd -f -p 8080 -h /srv/www"],
        "healthcheck": "--interval=200ms busybox wget -q -O - http://127.0.0.1:8080/",
    });
    let (image, snapshot) =
        tokio::join!(follow(&stage.api, &image, |_| {}), follow(&stage.api, &snapshot, |_| {}));
    let (image, snapshot) = (image.unwrap(), snapshot.unwrap());
    for (build, lines) in [(&image, &["green"]), (&snapshot, &["serving"])] {
        assert_eq!(build.status(), "succeeded", "{}", build.reason());
        let texts: Vec<_> = build.records.iter().filter_map(|r| r["text"].as_str()).collect();
        assert!(lines.iter().all(|line| texts.contains(line)), "{texts:?}");
    }
    let templates = stage.api.templates().await.unwrap();
    let kind = |name: &str| {
        let template = templates.iter().find(|template| template["name"] == name);
        template.map(|template| template["type"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(kind("an-image").as_deref(), Some("image"));
    assert_eq!(kind("a-snapshot").as_deref(), Some("snapshot"));

    let boot = stage.host.start(image.template().unwrap(), MEMORY_MB).await.unwrap();
    let first = stage.host.start(snapshot.template().unwrap(), 0).await.unwrap();
    let fork = stage.host.start(snapshot.template().unwrap(), 0).await.unwrap();
    let [booted, forked] = [&boot, &fork].map(|sandbox| sandbox.first_exec);
    println!("request to first command: cold boot {booted:?}, fork {forked:?}");
    let said = async |sandbox: &Started, command| {
        let said = stage.host.exec(&sandbox.id, command).await.unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    assert_eq!(said(&boot, "cat /var/tmp/who").await, "baker\n");
    for fork in [&first, &fork] {
        let page = said(fork, "busybox wget -q -O - http://127.0.0.1:8080/").await;
        assert_eq!(page, "baked\n");
    }
    // The very process that the build started, by its id and when it began: nothing was booted or started anew.
    let server = "busybox cut -d' ' -f1,22 /proc/$(busybox pgrep -f '^busybox httpd')/stat";
    let (one, two) = (said(&first, server).await, said(&fork, server).await);
    assert!(!one.is_empty() && one == two, "{one} {two}");
    let page = format!("http://{}:8080/", fork.host_ip);
    let page = reqwest::get(page).await.unwrap().text().await.unwrap();
    assert_eq!(page, "baked\n", "the host reaches a sandbox's port");
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    assert_ne!(
        said(&first, random).await,
        said(&fork, random).await,
        "two forks drew the same random bytes"
    );
    for sandbox in [&boot, &first, &fork] {
        stage.host.destroy(&sandbox.id).await.unwrap();
    }
    stage.strike().await;
}
