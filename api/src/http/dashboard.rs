//! `/admin/…`: the dashboard, embedded in the program as `npm run build` made it. Every path without a file is the page
//! itself, which knows its pages. Without a built one a placeholder says how to build it: the api needs no Node.
//!
//! The page may load nothing from elsewhere and run nothing that is not a file of its own, so that text which came
//! from a sandbox stays text even if the page had a mistake.

use bytes::Bytes;
use poem::{
    Body, Endpoint, EndpointExt as _, Request, Response, Route,
    endpoint::make_sync,
    get,
    http::{
        HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderName, IF_NONE_MATCH, LOCATION,
            REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Compression,
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "dashboard/dist/page"]
#[allow_missing = true]
struct Built;

const HOME: &str = "/admin/templates";
const INDEX: &str = "index.html";
/// Names of the files below hold their content's hash.
const HASHED: &str = "assets/";

const PLACEHOLDER: &str = include_str!("dashboard.html");

/// What each answer below `/admin` carries.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
         connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Adds the routes.
pub(super) fn add(route: Route) -> Route {
    route
        .at("/admin", get(dashboard()))
        .at("/admin/", get(dashboard()))
        .at("/admin/*path", get(dashboard()))
}

fn dashboard() -> impl Endpoint<Output = Response> {
    make_sync(|request: Request| answer(&request)).with(Compression::new()).map_to_response()
}

fn answer(request: &Request) -> Response {
    let path = request.uri().path();
    let name = path.strip_prefix("/admin").unwrap_or_default().trim_start_matches('/');
    let mut response = if name.is_empty() {
        Response::builder().status(StatusCode::FOUND).header(LOCATION, HOME).finish()
    } else if let Some(file) = Built::get(name).filter(|_| name != INDEX) {
        served(request, name, file)
    } else if name.starts_with(HASHED) {
        // A page from before an update asks for what is gone; the page itself would be no script.
        Response::builder().status(StatusCode::NOT_FOUND).finish()
    } else if let Some(page) = Built::get(INDEX) {
        served(request, INDEX, page)
    } else {
        Response::builder()
            .status(StatusCode::OK)
            .content_type("text/html; charset=utf-8")
            .header(CACHE_CONTROL, "no-store")
            .body(PLACEHOLDER)
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn served(request: &Request, name: &str, file: rust_embed::EmbeddedFile) -> Response {
    let tag = format!("\"{}\"", hex::encode(file.metadata.sha256_hash()));
    let caching =
        if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let response = Response::builder().header(ETAG, tag).header(CACHE_CONTROL, caching);
    if known {
        return response.status(StatusCode::NOT_MODIFIED).finish();
    }
    response
        .content_type(content_type(name))
        .body(Body::from_bytes(Bytes::from(file.data.into_owned())))
}

/// By the ending, since nothing may be guessed from the content.
fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}
