//! The dashboard in Debian's Chromium, against a whole platform. The tests themselves are Playwright's, in
//! `api/dashboard/tests`; the pictures that they take are left in `.ovenbird/dashboard`.

use std::{process::Stdio, time::Duration};

use ovenbird_dev::{cache::Cache, dashboard, setup::node::Node, tree};

use crate::platform::Stage;

/// Between two looks at what died.
const LOOK: Duration = Duration::from_millis(500);

fn node() -> Node {
    Node::locate(&Cache::open().unwrap()).unwrap()
}

#[tokio::test]
async fn dashboard_passes_its_own_checks_and_tests() {
    for script in ["check", "test"] {
        let output = node()
            .npm()
            .args(["run", script])
            .current_dir(dashboard::folder())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "npm run {script}:\n{said}\n{failed}");
    }
}

#[tokio::test]
async fn dashboard_leads_people_from_a_recipe_to_a_template_in_a_real_browser() {
    let folder = dashboard::folder();
    let playwright = folder.join("node_modules/@playwright/test/cli.js");
    assert!(playwright.is_file(), "the dashboard's packages are missing: run `cargo dev setup`");
    let mut stage = Stage::set().await;
    let record = stage.platform.record();
    let mut browser = node()
        .script(&playwright)
        .arg("test")
        .current_dir(&folder)
        .env("OVENBIRD_DASHBOARD", &record.api)
        .env("OVENBIRD_KEY", &record.admin_key)
        .env("OVENBIRD_API_PID", stage.pids("api")[0].to_string())
        .env("OVENBIRD_SCREENSHOTS", tree::scratch().join("dashboard"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // One test kills the api.
    let status = loop {
        if let Ok(ended) = tokio::time::timeout(LOOK, browser.wait()).await {
            break ended.unwrap();
        }
        stage.platform.look_after().await;
    };
    assert!(status.success(), "playwright ended with {status}: its report stands above");
    stage.strike().await;
}
