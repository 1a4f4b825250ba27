//! Who calls: an API key as `Authorization: Bearer …` or `X-API-Key: …`, or the cookie of a browser that signed in
//! with one; and the scope that an operation needs, as a type that stands in its signature. An operation without one
//! of these types is public.

use std::{marker::PhantomData, net::IpAddr, ops::Deref};

use ovenbird_contract::id::KeyId;
use poem::{
    Request, RequestBody,
    http::header::{AUTHORIZATION, HeaderName},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};

use super::{code::Code, error::Failure, session};
use crate::app::{
    self, App,
    keys::{Caller, Scope},
    seal::Roots,
    strangers::TooMany,
};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const BEARER_SCHEME: &str = "bearer";
const API_KEY_SCHEME: &str = "api_key";
const SESSION_SCHEME: &str = "session";

/// What an operation needs.
pub trait Needs: Send + Sync + 'static {
    /// The scopes that may call it.
    const SCOPES: &'static [Scope];
}

/// Reads what the key may see.
#[derive(Debug)]
pub struct Reads;

impl Needs for Reads {
    const SCOPES: &'static [Scope] = &[Scope::Admin, Scope::Build, Scope::Read];
}

/// Runs Ovenbird: keys, hosts, what everybody uses.
#[derive(Debug)]
pub struct Administers;

impl Needs for Administers {
    const SCOPES: &'static [Scope] = &[Scope::Admin];
}

/// Submits builds.
#[derive(Debug)]
pub struct Builds;

impl Needs for Builds {
    const SCOPES: &'static [Scope] = &[Scope::Admin, Scope::Build];
}

/// A caller whose key has one of the scopes of `N`.
#[derive(Debug)]
pub struct Allowed<N> {
    caller: Caller,
    needs: PhantomData<fn() -> N>,
}

impl<N> Deref for Allowed<N> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl<N> Allowed<N> {
    /// The caller.
    pub fn into_caller(self) -> Caller {
        self.caller
    }
}

impl<'a, N: Needs> ApiExtractor<'a> for Allowed<N> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = |ty, description| MetaSecurityScheme {
            ty,
            description: Some(description),
            name: None,
            key_in: None,
            scheme: None,
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(
            BEARER_SCHEME,
            MetaSecurityScheme {
                scheme: Some("bearer"),
                ..scheme("http", "An API key, `ovb_…`, as bearer token.")
            },
        );
        registry.create_security_scheme(
            API_KEY_SCHEME,
            MetaSecurityScheme {
                name: Some("X-API-Key"),
                key_in: Some("header"),
                ..scheme("apiKey", "An API key, `ovb_…`, in a header of its own.")
            },
        );
        registry.create_security_scheme(
            SESSION_SCHEME,
            MetaSecurityScheme {
                name: Some(session::COOKIE),
                key_in: Some("cookie"),
                ..scheme(
                    "apiKey",
                    "The cookie of a browser that signed in. Whatever changes something also needs the session's \
                     `csrf_token` as `X-CSRF-Token`.",
                )
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![BEARER_SCHEME, API_KEY_SCHEME, SESSION_SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        // Without the guard before it nobody is let in.
        let caller =
            request.data::<Caller>().cloned().ok_or_else(|| Failure::new(Code::Unauthorized))?;
        if !N::SCOPES.contains(&caller.scope) {
            let needed: Vec<_> = N::SCOPES.iter().map(|scope| scope.as_str()).collect();
            let message = format!(
                "the key's scope is {}; this needs {}",
                caller.scope.as_str(),
                needed.join(" or ")
            );
            return Err(Failure::with_message(Code::Forbidden, message).into());
        }
        Ok(Self { caller, needs: PhantomData })
    }
}

/// Who calls.
#[derive(Debug)]
pub(super) struct Known {
    /// Who it is.
    pub(super) caller: Caller,
    /// The session that stood for the key.
    pub(super) session: Option<session::Shown>,
}

/// Who holds the key of a request, or the session of its cookie; nobody without one, or with one that is over. It is
/// not looked up while there are too many strangers at its address.
pub(super) async fn known(
    app: &App,
    request: &Request,
    address: Option<IpAddr>,
) -> Result<Result<Option<Known>, TooMany>, app::Error> {
    let Some(text) = text(request) else { return Ok(Ok(None)) };
    let _permit = match app.strangers().look_up(address, text) {
        Ok(permit) => permit,
        Err(TooMany) => return Ok(Err(TooMany)),
    };
    let known = look_up(app, request).await?;
    if let Some(Known { caller, .. }) = &known {
        app.strangers().was_valid(text, caller.key);
    }
    Ok(Ok(known))
}

/// Whose key, or session, the text of a request was lately. It proves nothing: only [`known`] says who calls.
pub(super) fn lately(app: &App, request: &Request) -> Option<KeyId> {
    app.strangers().valid_lately(text(request)?)
}

/// What says who calls: a key, or without one a session.
fn text(request: &Request) -> Option<&str> {
    match key_text(request) {
        Some(text) => Some(text),
        None if has_key(request) => None,
        None => session::cookie_text(request),
    }
}

async fn look_up(app: &App, request: &Request) -> Result<Option<Known>, app::Error> {
    let known = match key_text(request) {
        Some(text) => {
            let caller = app.key_authenticate(text).await?;
            caller.map(|caller| Known { caller, session: None })
        }
        // A key that was sent and is none is refused, whatever the cookie says.
        None if has_key(request) => None,
        None => session::known(app, request).await?,
    };
    if let Some(Known { caller, .. }) = &known {
        tracing::Span::current().record("key.id", tracing::field::display(&caller.key));
    }
    Ok(known)
}

/// What follows from the text of the caller's key, also where a session stands for it.
pub(super) async fn roots(app: &App, request: &Request) -> Result<Option<Roots>, app::Error> {
    if has_key(request) {
        return key_text(request).map(app::keys::roots).transpose();
    }
    match session::cookie_text(request) {
        Some(text) => app.session_roots(text).await,
        None => Ok(None),
    }
}

fn has_key(request: &Request) -> bool {
    request.headers().contains_key(AUTHORIZATION) || request.headers().contains_key(API_KEY)
}

/// The key of a request. Two headers that disagree are no key: guessing would hide a mistake.
pub(super) fn key_text(request: &Request) -> Option<&str> {
    let bearer = request.headers().get(AUTHORIZATION).map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let api_key = request.headers().get(API_KEY).map(|value| value.to_str().ok());
    match (bearer, api_key) {
        (Some(one), Some(other)) => one.filter(|one| Some(*one) == other),
        (one, other) => one.or(other).flatten(),
    }
}
