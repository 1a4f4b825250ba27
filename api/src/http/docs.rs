//! `/openapi.json`, and `/docs`: a page that needs nothing from any other server.

use bytes::Bytes;
use poem::{
    Body, Endpoint, EndpointExt as _, Response, Route,
    endpoint::make_sync,
    get,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS},
    middleware::Compression,
};
use poem_openapi::{OpenApi, OpenApiService, Webhook};

use super::spec;

/// What poem-openapi's page begins its document with.
const PLACE: &str = "id=\"api-reference\"";
/// Scalar would load its fonts, and send what is tried out through its proxy.
const SETTINGS: &str = r#"id="api-reference" data-configuration='{"withDefaultFonts":false,"hideClientButton":true,"telemetry":false}'"#;

/// Adds the two routes.
///
/// # Errors
/// As [`spec::document`].
pub(super) fn add<T: OpenApi, W: Webhook>(
    route: Route,
    service: &OpenApiService<T, W>,
) -> serde_json::Result<Route> {
    let document = spec::text(service)?;
    // The document stands in a script element, where `</script>` in it would end the element.
    let embedded = document.replace('<', "\\u003c");
    let page = service.scalar_html().replacen(PLACE, SETTINGS, 1);
    let page = Bytes::from(page.replacen(&service.spec(), &embedded, 1));
    Ok(route
        .at("/openapi.json", get(fixed("application/json", document.into())))
        .at("/docs", get(fixed("text/html; charset=utf-8", page))))
}

/// The same answer each time.
fn fixed(content_type: &'static str, body: Bytes) -> impl Endpoint<Output = Response> {
    let answer = move |_| {
        Response::builder()
            .content_type(content_type)
            .header(CACHE_CONTROL, "no-cache")
            // A page of another site around it could make people try out what they do not mean to.
            .header(CONTENT_SECURITY_POLICY, "frame-ancestors 'none'")
            .header(X_FRAME_OPTIONS, "DENY")
            .body(Body::from_bytes(body.clone()))
    };
    make_sync(answer).with(Compression::new()).map_to_response()
}
