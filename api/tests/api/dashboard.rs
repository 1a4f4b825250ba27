//! What is served below `/admin`, whether or not the dashboard was built.

use reqwest::redirect::Policy;

use crate::world::World;

const PATHS: [&str; 6] = [
    "/admin",
    "/admin/",
    "/admin/templates",
    "/admin/builds/bld_01h455vb4pex5vsknk084sn02q",
    "/admin/assets/none.js",
    "/admin/..%2f..%2fCargo.toml",
];

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_no_policy_allows_inline() {
    let world = World::start().await;
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    for path in PATHS {
        let answer = client.get(format!("{}{path}", world.url)).send().await.unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name).unwrap_or_else(|| panic!("{path} lacks {name}"));
            value.to_str().unwrap().to_owned()
        };
        let policy = header("content-security-policy");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"));
        for rule in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
    }
}

#[tokio::test]
async fn every_page_is_the_same_document_and_it_holds_nothing_inline() {
    let world = World::start().await;
    let page = |path: &str| {
        let request = world.client.get(format!("{}{path}", world.url));
        async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
            answer.text().await.unwrap()
        }
    };
    let home = page("/admin").await;
    assert_eq!(home, page("/admin/templates").await);
    assert_eq!(home, page("/admin/builds/bld_01h455vb4pex5vsknk084sn02q?step=1").await);
    assert!(!home.contains("style=") && !home.contains("<style") && !home.contains("onload"));
    for script in home.split("<script").skip(1) {
        let tag = script.split('>').next().unwrap();
        assert!(tag.contains("src=\"/admin/assets/"), "{tag}");
    }
    let built = home.contains("/admin/assets/");
    let placeholder = home.contains("cargo dev dashboard");
    assert!(built != placeholder, "{home}");
}

#[tokio::test]
async fn files_are_cached_for_good_and_the_page_is_asked_for_again() {
    let world = World::start().await;
    let get = |path: String| world.client.get(format!("{}{path}", world.url));
    let home = get("/admin/templates".into()).send().await.unwrap().text().await.unwrap();
    // Without a built dashboard there is only the placeholder, which nobody may keep.
    let Some(script) = home.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()) else {
        let answer = get("/admin/templates".into()).send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        return;
    };
    let answer = get(script.into()).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(answer.headers()["cache-control"], "public, max-age=31536000, immutable");
    let page = get("/admin/templates".into()).send().await.unwrap();
    assert_eq!(page.headers()["cache-control"], "no-cache");
    let again = get("/admin/templates".into()).header("if-none-match", &page.headers()["etag"]);
    assert_eq!(again.send().await.unwrap().status(), 304);
    assert_eq!(get("/admin/assets/gone-0000.js".into()).send().await.unwrap().status(), 404);
}
