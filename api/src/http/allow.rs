//! The `Allow` header of an answer to a wrong method: the methods that the specification has for the path.

use std::sync::Arc;

use poem::{
    Endpoint, IntoResponse as _, Middleware, Request, Response,
    error::MethodNotAllowedError,
    http::{HeaderValue, header},
};
use serde_json::Value;

use super::{code::Code, error::Failure};

/// The methods of one path.
#[derive(Debug)]
struct Path {
    segments: Vec<String>,
    methods: HeaderValue,
}

impl Path {
    fn matches(&self, path: &str) -> bool {
        let mut given = path.trim_matches('/').split('/');
        let all = self.segments.iter().all(|segment| {
            given.next().is_some_and(|given| segment.starts_with('{') || segment == given)
        });
        all && given.next().is_none()
    }
}

/// The layer around the routes.
#[derive(Debug, Clone)]
pub(super) struct Allow {
    paths: Arc<[Path]>,
}

impl Allow {
    /// For the paths of `document`; others are read only.
    pub(super) fn of(document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let paths = paths.filter_map(|(path, item)| {
            let mut methods: Vec<_> =
                item.as_object()?.keys().map(|it| it.to_uppercase()).collect();
            methods.sort();
            let segments = path.trim_matches('/').split('/').map(str::to_owned).collect();
            Some(Path { segments, methods: HeaderValue::from_str(&methods.join(", ")).ok()? })
        });
        Self { paths: paths.collect() }
    }

    fn methods(&self, path: &str) -> HeaderValue {
        // As the routes do, a fixed word goes before a parameter.
        let parameters = |known: &&Path| {
            known.segments.iter().filter(|segment| segment.starts_with('{')).count()
        };
        let found = self.paths.iter().filter(|known| known.matches(path)).min_by_key(parameters);
        found.map_or(HeaderValue::from_static("GET"), |found| found.methods.clone())
    }
}

impl<E: Endpoint> Middleware<E> for Allow {
    type Output = Allowing<E>;

    fn transform(&self, inner: E) -> Allowing<E> {
        Allowing { inner, allow: self.clone() }
    }
}

/// Routes whose refusals of a method say which ones there are.
#[derive(Debug)]
pub(super) struct Allowing<E> {
    inner: E,
    allow: Allow,
}

impl<E: Endpoint> Endpoint for Allowing<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let path = request.uri().path().to_owned();
        match self.inner.call(request).await {
            Ok(response) => Ok(response.into_response()),
            Err(error) if error.is::<MethodNotAllowedError>() => {
                let refusal = Failure::new(Code::MethodNotAllowed);
                Ok(refusal.with_header(header::ALLOW, self.allow.methods(&path)).into_response())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn methods_are_those_of_the_path_whatever_stands_in_its_parameters() {
        let document = json!({"paths": {
            "/v1/things": {"get": {}, "post": {}}, "/v1/things/{id}": {"delete": {}},
            "/v1/things/check": {"post": {}},
        }});
        let allow = Allow::of(&document);
        for (path, methods) in [
            ("/v1/things", "GET, POST"),
            ("/v1/things/", "GET, POST"),
            ("/v1/things/a%20b", "DELETE"),
            ("/v1/things/check", "POST"),
            ("/openapi.json", "GET"),
        ] {
            assert_eq!(allow.methods(path), methods, "{path}");
        }
    }
}
