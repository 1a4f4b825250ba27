//! `$VAR`, `${VAR}` and `$$` in the templates of a plan, and where a path leads.
//!
//! Not for `RUN`, `START` and healthchecks: the shell in the guest expands those, with the same
//! environment set.

use std::collections::BTreeMap;

use crate::{
    limits::{ENVIRONMENT_BYTES_MAX, EXPANDED_BYTES_MAX},
    plan::Variable,
};

/// Why a template has no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A `$` without a name after it.
    #[error("no variable name follows the `$` at byte {at}; a dollar sign itself is written `$$`")]
    BadVariable {
        /// Byte offset of the `$`.
        at: usize,
    },
    /// The text grew over its bound.
    #[error("the text is longer than {EXPANDED_BYTES_MAX} bytes after its variables are expanded")]
    TooLong,
    /// The environment grew over its bound.
    #[error("the environment is larger than {ENVIRONMENT_BYTES_MAX} bytes")]
    EnvironmentTooLarge,
}

/// Replaces `$VAR` and `${VAR}` by their values and `$$` by a dollar sign.
///
/// A variable that is not in `env` expands to nothing, as in `sh`. Values are not expanded again.
///
/// # Errors
/// [`ExpandError::TooLong`] over [`EXPANDED_BYTES_MAX`]; [`ExpandError::BadVariable`] on text that does not
/// come from a plan ([`crate::parse`] refuses it).
pub fn expand(template: &str, env: &BTreeMap<String, String>) -> Result<String, ExpandError> {
    let mut text = String::with_capacity(template.len());
    for piece in pieces(template) {
        match piece.map_err(|BadVariable { at, .. }| ExpandError::BadVariable { at })? {
            Piece::Text(literal) => text.push_str(literal),
            Piece::Dollar => text.push('$'),
            Piece::Variable(name) => {
                text.push_str(env.get(name).map_or("", String::as_str));
            }
        }
        if text.len() > EXPANDED_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
    }
    Ok(text)
}

/// Does an `ENV` step: each variable is expanded against `env`, earlier ones of the same step included, and
/// put into it.
///
/// # Errors
/// Those of [`expand`], and [`ExpandError::EnvironmentTooLarge`]; `env` then holds what came before.
pub fn env_apply(
    variables: &[Variable],
    env: &mut BTreeMap<String, String>,
) -> Result<(), ExpandError> {
    let size = |key: &str, value: &str| key.len() + value.len() + 2;
    let mut bytes: usize = env.iter().map(|(key, value)| size(key, value)).sum();
    for variable in variables {
        let value = expand(&variable.value, env)?;
        bytes += size(&variable.key, &value);
        if let Some(before) = env.insert(variable.key.clone(), value) {
            bytes -= size(&variable.key, &before);
        }
        if bytes > ENVIRONMENT_BYTES_MAX {
            return Err(ExpandError::EnvironmentTooLarge);
        }
    }
    Ok(())
}

/// The absolute path that `path` means in the directory `current`, without `.`, `..` and double slashes.
///
/// Works on the text only: a `..` after a symbolic link leads to where the text says.
pub fn path_join(current: &str, path: &str) -> String {
    let start = if path.starts_with('/') { "" } else { current };
    let mut parts = Vec::new();
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    Dollar,
    Variable(&'a str),
}

/// A `$` at byte `at` that begins nothing; `len` bytes are passed over with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadVariable {
    pub(crate) at: usize,
    pub(crate) len: usize,
}

/// The parts of `template`, in order; goes on after a bad one.
pub(crate) fn pieces(template: &str) -> impl Iterator<Item = Result<Piece<'_>, BadVariable>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = template.get(at..).filter(|rest| !rest.is_empty())?;
        let (piece, len) = piece_at(rest, at);
        at += len;
        Some(piece)
    })
}

pub(crate) fn piece_at(rest: &str, at: usize) -> (Result<Piece<'_>, BadVariable>, usize) {
    let Some(after) = rest.strip_prefix('$') else {
        let len = rest.find('$').unwrap_or(rest.len());
        return (Ok(Piece::Text(&rest[..len])), len);
    };
    if after.starts_with('$') {
        return (Ok(Piece::Dollar), 2);
    }
    if let Some(braced) = after.strip_prefix('{') {
        let name = name_at(braced);
        if !name.is_empty() && braced[name.len()..].starts_with('}') {
            return (Ok(Piece::Variable(name)), name.len() + 3);
        }
        return (Err(BadVariable { at, len: 2 }), 2);
    }
    match name_at(after) {
        "" => (Err(BadVariable { at, len: 1 }), 1),
        name => (Ok(Piece::Variable(name)), name.len() + 1),
    }
}

/// The variable's name that `text` begins with; may be empty.
fn name_at(text: &str) -> &str {
    let end = text
        .char_indices()
        .find(|&(index, c)| {
            !(c == '_' || c.is_ascii_alphabetic() || index > 0 && c.is_ascii_digit())
        })
        .map_or(text.len(), |(index, _)| index);
    &text[..end]
}
