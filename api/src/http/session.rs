//! `/v1/session`: signing in with a key, and out. A browser cannot keep a key where no script reads it; it can keep a
//! cookie.
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`. Since a strict cookie still comes with requests of other sites on
//! the same host name, a change also needs the session's token in a header, which no other site can read or send.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_kit::Secret;
use poem::{Request, http::header::COOKIE as COOKIE_HEADER};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, payload::Json};

use super::{
    Tag,
    auth::{self, Allowed, Known, Reads},
    code::Code,
    error::Failure,
};
use crate::{
    app::{self, App, keys::Scope, sessions},
    config,
};

/// The cookie's name.
pub(super) const COOKIE: &str = "ovenbird_session";
const TOKEN: &str = "x-csrf-token";

/// The resource.
#[derive(Debug, Clone)]
pub struct SessionRoutes {
    app: Arc<App>,
    config: config::Session,
}

impl SessionRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>, config: config::Session) -> Self {
        Self { app, config }
    }

    /// The cookie, or with an empty text its removal.
    fn cookie(&self, text: &str) -> String {
        let seconds = if text.is_empty() { 0 } else { self.config.lifetime.as_secs() };
        let secure = if self.config.secure { "; Secure" } else { "" };
        format!("{COOKIE}={text}; Path=/v1; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum SessionScope {
    /// Everything.
    Admin,
    /// Create builds, and read its own.
    Build,
    /// Read everything.
    Read,
}

impl From<Scope> for SessionScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Admin => Self::Admin,
            Scope::Build => Self::Build,
            Scope::Read => Self::Read,
        }
    }
}

/// A browser that is signed in.
#[derive(Debug, Object)]
pub struct Session {
    /// The key that it signed in with.
    pub key_id: String,
    /// What people call that key.
    pub key_name: String,
    /// What it may do.
    pub scope: SessionScope,
    /// Whatever changes something must carry it as `X-CSRF-Token`.
    pub csrf_token: String,
    /// When the session ends by itself.
    pub expires_at: DateTime<Utc>,
}

impl From<sessions::Session> for Session {
    fn from(session: sessions::Session) -> Self {
        Self {
            key_id: session.caller.key.to_string(),
            key_name: session.key_name,
            scope: session.caller.scope.into(),
            csrf_token: session.token.expose().clone(),
            expires_at: session.expires_at,
        }
    }
}

/// The answer to who signs in.
#[derive(Debug, ApiResponse)]
pub enum SignedIn {
    /// The browser is signed in.
    #[oai(status = 201)]
    Session(
        Json<Session>,
        /// The session's cookie.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

/// The answer to who signs out.
#[derive(Debug, ApiResponse)]
pub enum SignedOut {
    /// The session is over.
    #[oai(status = 204)]
    Done(
        /// Takes the cookie away.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

#[OpenApi(prefix_path = "/v1/session", tag = "Tag::Session")]
impl SessionRoutes {
    /// Sign a browser in
    ///
    /// Takes the key in a header, like every operation, and answers with a cookie that stands for it. The session ends
    /// with the key, by itself after some hours, or when it is deleted.
    #[oai(path = "/", method = "post", operation_id = "session_open")]
    async fn open(&self, request: &Request, _caller: Allowed<Reads>) -> Result<SignedIn, Failure> {
        // A session does not prolong itself: the key must be there.
        let text = auth::key_text(request).ok_or_else(|| Failure::new(Code::Unauthorized))?;
        let opened = self.app.session_open(text, self.config.lifetime).await?;
        let opened = opened.ok_or_else(|| Failure::new(Code::Unauthorized))?;
        let cookie = self.cookie(opened.text.expose());
        Ok(SignedIn::Session(Json(opened.session.into()), cookie))
    }

    /// Get the session
    ///
    /// Whose session the cookie stands for, and the token that changes must carry. A request with a key has none and is
    /// refused.
    #[oai(path = "/", method = "get", operation_id = "session_get")]
    async fn get(
        &self,
        request: &Request,
        _caller: Allowed<Reads>,
    ) -> Result<Json<Session>, Failure> {
        let session = match cookie_text(request) {
            Some(text) => self.app.session_authenticate(text).await?,
            None => None,
        };
        let none = || {
            let message = "this tells of a browser's session; the request came with a key";
            Failure::with_message(Code::Forbidden, message)
        };
        Ok(Json(session.ok_or_else(none)?.into()))
    }

    /// Sign a browser out
    ///
    /// Ends the session that the cookie stands for. Repeating it is fine.
    #[oai(path = "/", method = "delete", operation_id = "session_close")]
    async fn close(
        &self,
        request: &Request,
        _caller: Allowed<Reads>,
    ) -> Result<SignedOut, Failure> {
        if let Some(text) = cookie_text(request) {
            self.app.session_close(text).await?;
        }
        Ok(SignedOut::Done(self.cookie("")))
    }
}

/// The session that a request came with.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// Its text.
    pub(super) text: Secret<String>,
    /// Whether its token came, too.
    pub(super) with_token: bool,
}

/// Who holds the session of a request's cookie.
pub(super) async fn known(app: &App, request: &Request) -> Result<Option<Known>, app::Error> {
    let Some(text) = cookie_text(request) else { return Ok(None) };
    let Some(session) = app.session_authenticate(text).await? else { return Ok(None) };
    let token = request.headers().get(TOKEN).and_then(|value| value.to_str().ok());
    let with_token = token.is_some_and(|token| session.accepts(token));
    let shown = Shown { text: Secret::new(text.to_owned()), with_token };
    Ok(Some(Known { caller: session.caller, session: Some(shown) }))
}

/// The refusal of a change that came with a cookie alone: another site may have made the browser send it.
pub(super) fn token_is_missing() -> Failure {
    let message = "with a session's cookie this needs the session's csrf_token as X-CSRF-Token";
    Failure::with_message(Code::Forbidden, message)
}

/// The text of the session's cookie. Two of them are none: guessing would hide that somebody planted one.
pub(super) fn cookie_text(request: &Request) -> Option<&str> {
    let headers = request.headers().get_all(COOKIE_HEADER).iter();
    let mut found = headers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, text)| text);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_two_of_them_are_none() {
        let request = |cookie: &str| Request::builder().header(COOKIE_HEADER, cookie).finish();
        for (header, found) in [
            ("ovenbird_session=abc", Some("abc")),
            ("a=b; ovenbird_session=abc; c=d", Some("abc")),
            ("ovenbird_session=", Some("")),
            ("not_ovenbird_session=abc", None),
            ("ovenbird_session=abc; ovenbird_session=def", None),
            ("", None),
        ] {
            assert_eq!(cookie_text(&request(header)), found, "{header}");
        }
    }
}
