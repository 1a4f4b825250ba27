//! `/openapi.json`, and `/docs`: a page that needs nothing from any other server.

use std::sync::Arc;

use poem::{
    EndpointExt as _, IntoEndpoint, IntoResponse as _, Response, Route, endpoint::make_sync, get,
    http::header::CACHE_CONTROL, middleware::Compression, web::Html,
};
use poem_openapi::{OpenApi, OpenApiService, Webhook};

use super::spec;

/// What poem-openapi's page begins its document with.
const PLACE: &str = "id=\"api-reference\"";
/// Scalar would load its fonts, and send what is tried out through its proxy.
const SETTINGS: &str = r#"id="api-reference" data-configuration='{"withDefaultFonts":false,"hideClientButton":true,"telemetry":false}'"#;

/// The two routes.
///
/// # Errors
/// As [`spec::document`].
pub(super) fn routes<T: OpenApi, W: Webhook>(
    service: &OpenApiService<T, W>,
) -> serde_json::Result<impl IntoEndpoint + use<T, W>> {
    let document = spec::text(service)?;
    // The document stands in a script element, where `</script>` in it would end the element.
    let embedded = document.replace('<', "\\u003c");
    let page = service.scalar_html().replacen(PLACE, SETTINGS, 1);
    let page: Arc<str> = page.replacen(&service.spec(), &embedded, 1).into();
    let document: Arc<str> = document.into();
    Ok(Route::new()
        .at(
            "/openapi.json",
            get(make_sync(move |_| {
                Response::builder().content_type("application/json").body(document.to_string())
            })),
        )
        .at(
            "/docs",
            get(make_sync(move |_| {
                Html(page.to_string()).with_header(CACHE_CONTROL, "max-age=3600")
            })),
        )
        .with(Compression::new()))
}
