//! Configuration: the documented defaults, then a TOML file, then environment variables.
//!
//! A variable is named `<PREFIX>__<KEY>`, with `__` between levels: `OVENBIRD_RUNNER__SLOTS=4`. Every
//! key stands, with its comment, in the process's `default.toml`; keys that the process does not know are
//! refused by its own `deny_unknown_fields`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::{
    Deserialize as _, Deserializer,
    de::{self, DeserializeOwned},
};

/// The configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named on the command line does not exist.
    #[error("configuration file {} does not exist", .0.display())]
    NoFile(PathBuf),
    /// A key is missing, unknown or of the wrong type. The text names key and source, never a value.
    #[error("configuration: {0}")]
    Invalid(String),
}

/// Reads `T` from `defaults` (TOML text), `file`, and variables that start with `<env_prefix>__`.
///
/// # Errors
/// [`Error`] names the key and where it came from.
pub fn load<T: DeserializeOwned>(
    defaults: &str,
    file: Option<&Path>,
    env_prefix: &str,
) -> Result<T, Error> {
    let mut figment = Figment::from(Toml::string(defaults));
    if let Some(path) = file {
        if !path.is_file() {
            return Err(Error::NoFile(path.to_owned()));
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    figment
        .merge(Env::prefixed(&format!("{env_prefix}__")).split("__"))
        .extract()
        .map_err(|errors| Error::Invalid(describe(errors)))
}

/// For `deserialize_with`: where something listens, or an empty text for nowhere.
///
/// # Errors
/// When it is neither.
pub fn address_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(de::Error::custom),
    }
}

/// The members of a list with commas, such as the servers of a cluster.
pub fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect()
}

/// One clause per error. figment's own text of a wrong type repeats the value, which may be a secret.
fn describe(errors: figment::Error) -> String {
    use figment::error::Kind;
    let clause = |error: figment::Error| {
        let key = error.path.join(".");
        let from = error.metadata.as_ref().map_or("the defaults".into(), |data| data.name.clone());
        match error.kind {
            Kind::MissingField(name) => format!("key `{name}` is missing"),
            Kind::UnknownField(name, known) => {
                format!("key `{name}` is unknown in {from}; known are {}", known.join(", "))
            }
            Kind::InvalidType(_, expected) => format!("key `{key}` in {from} must be {expected}"),
            Kind::InvalidValue(_, expected) => format!("key `{key}` in {from} must be {expected}"),
            _ => format!("key `{key}` in {from} is not valid"),
        }
    };
    errors.into_iter().map(clause).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        slots: u32,
        url: crate::Secret<String>,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn file_wins_over_defaults() {
        let file = file("url = 'nats://u:p@h'");
        let config: Config = load("slots = 2", Some(file.path()), "KIT_TEST_A").unwrap();
        assert_eq!((config.slots, config.url.expose().as_str()), (2, "nats://u:p@h"));
    }

    #[test]
    fn unknown_and_missing_keys_are_named() {
        let unknown = file("url = 'x'\nslotz = 3");
        let error = load::<Config>("slots = 2", Some(unknown.path()), "KIT_TEST_B").unwrap_err();
        assert!(error.to_string().contains("slotz"), "{error}");
        let error = load::<Config>("slots = 2", None, "KIT_TEST_B").unwrap_err();
        assert!(error.to_string().contains("`url` is missing"), "{error}");
    }

    #[test]
    fn wrong_type_does_not_show_the_value() {
        let wrong = file("url = 'x'\nslots = 'hunter2'");
        let error = load::<Config>("", Some(wrong.path()), "KIT_TEST_C").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("slots"), "{error}");
    }

    #[test]
    fn list_is_what_stands_between_the_commas() {
        assert_eq!(list("nats://a:4222, nats://b:4222,"), ["nats://a:4222", "nats://b:4222"]);
    }

    #[test]
    fn missing_file_is_named() {
        let error = load::<Config>("", Some(Path::new("/no/such.toml")), "KIT_TEST_D").unwrap_err();
        assert!(matches!(error, Error::NoFile(_)));
    }
}
