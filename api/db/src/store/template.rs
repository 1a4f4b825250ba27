//! The catalogue of templates, as far as builds need it.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, EntityTrait};

use super::{Error, corrupt, from_json, sql};
use crate::entity::template;

/// The tag of a reference that names none.
pub const DEFAULT_TAG: &str = "latest";

/// Name and tag of `name` or `name:tag`.
pub fn reference_split(reference: &str) -> (&str, &str) {
    reference.split_once(':').unwrap_or((reference, DEFAULT_TAG))
}

/// The default environment in a row.
///
/// # Errors
/// [`Error::Corrupt`] when it is no object of texts.
pub fn default_env(row: &template::Model) -> Result<BTreeMap<String, String>, Error> {
    from_json(row.default_env.clone(), "templates", "default_env")
}

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A build made it.
    Build,
    /// It is a sandbox, saved.
    Sandbox,
    /// It came with a host, which offers it again whatever the catalogue says.
    Host,
}

/// The origin in a row's provenance.
///
/// # Errors
/// [`Error::Corrupt`] when it names none.
pub fn origin(row: &template::Model) -> Result<Origin, Error> {
    match row.provenance.get("origin").and_then(serde_json::Value::as_str) {
        Some("build") => Ok(Origin::Build),
        Some("sandbox") => Ok(Origin::Sandbox),
        Some("host") => Ok(Origin::Host),
        _ => Err(corrupt("templates", "provenance")("no known origin")),
    }
}

/// The template that `name` or `name:tag` points to now.
pub(super) async fn resolve(
    db: &impl ConnectionTrait,
    reference: &str,
) -> Result<Option<template::Model>, Error> {
    let (name, tag) = reference_split(reference);
    tagged(db, name, tag).await
}

/// The template that `tag` of `name` points to now.
pub(super) async fn tagged(
    db: &impl ConnectionTrait,
    name: &str,
    tag: &str,
) -> Result<Option<template::Model>, Error> {
    Ok(template::Entity::find()
        .from_raw_sql(sql(
            "SELECT t.* FROM template_tags g JOIN templates t ON t.id = g.template_id
             WHERE g.name = $1 AND g.tag = $2 AND g.superseded_at IS NULL AND t.deleted_at IS NULL",
            [name.into(), tag.into()],
        ))
        .one(db)
        .await?)
}
