//! Templates: what there is, where their tags point and pointed, and what is deleted.

use ovenbird_contract::id::TemplateId;
use ovenbird_db::{
    entity::template_tag,
    store::{
        build_admin::After,
        template::DEFAULT_TAG,
        template_admin::{TemplateDetail, TemplateRow},
        template_delete::{Doomed, Refused, User},
        template_name::Taken,
        template_tag::TagFilter,
    },
};

use super::{
    App, Error, Problem,
    error::Resource,
    keys::{Caller, Scope},
    page::{self, Page},
};

/// How people name a template: by its id, or by its name and perhaps a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `tpl_…`: this very template.
    Id(TemplateId),
    /// `name` or `name:tag`.
    Named {
        /// The name.
        name: String,
        /// The tag, where one is named.
        tag: Option<String>,
    },
}

impl Reference {
    /// Reads a text whose form was checked already. No template has a name of the form of an id.
    pub fn read(text: &str) -> Self {
        if let Ok(id) = text.parse() {
            return Self::Id(id);
        }
        match text.split_once(':') {
            Some((name, tag)) => Self::Named { name: name.into(), tag: Some(tag.into()) },
            None => Self::Named { name: text.into(), tag: None },
        }
    }
}

impl App {
    /// A page of the catalogue, newest first.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn template_list(
        &self,
        name: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<TemplateRow>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let rows = self.store.template_list(name, after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |row| After {
            created_at: row.template.created_at,
            id: row.template.id,
        }))
    }

    /// The template that `reference` means now; a name alone means its tag `latest`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn template_get(&self, reference: &Reference) -> Result<TemplateDetail, Error> {
        let id = match reference {
            Reference::Id(id) => *id,
            Reference::Named { name, tag } => {
                self.template_tagged(name, tag.as_deref().unwrap_or(DEFAULT_TAG)).await?
            }
        };
        let found = self.store.template_get(id).await?;
        found.ok_or_else(|| Error::NotFound(format!("template {id}")))
    }

    /// Deletes the template that an id or `name:tag` means, or all of a name, and the tags that point there.
    /// Hosts that are away lose them when they are back.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InUse`] while builds or sandboxes need one of them;
    /// [`Error::TemplateOfHost`].
    pub async fn template_delete(
        &self,
        caller: &Caller,
        reference: &Reference,
    ) -> Result<(), Error> {
        let (doomed, what) = match reference {
            Reference::Id(id) => (Doomed::One(*id), format!("template {id}")),
            Reference::Named { name, tag: None } => {
                (Doomed::Name(name.clone()), format!("template {name}"))
            }
            Reference::Named { name, tag: Some(tag) } => {
                let id = self.template_tagged(name, tag).await?;
                (Doomed::One(id), format!("template {name}:{tag}"))
            }
        };
        match self.store.template_delete(&doomed, &caller.name()).await? {
            Ok(deleted) => {
                for id in deleted {
                    tracing::info!(template.id = %id, "template deleted");
                }
                Ok(())
            }
            Err(Refused::NotFound) => Err(Error::NotFound(what)),
            Err(Refused::OfHost { host_name }) => Err(Error::TemplateOfHost(host_name)),
            Err(Refused::InUse(users)) => {
                let by = users.into_iter().map(user).collect();
                Err(Error::InUse { what: Resource::Template, by })
            }
        }
    }

    /// Why `caller` may not make a template of this name, if so.
    ///
    /// # Errors
    /// Postgres.
    pub(super) async fn template_name_problem(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<Option<Problem>, Error> {
        if name.parse::<TemplateId>().is_ok() {
            let message = "has the form of a template's id, and would be taken for one";
            return Ok(Some(Problem::new("name", "wrong_form", message)));
        }
        // Who reads makes nothing, and may check what others wish to make.
        if caller.scope != Scope::Build {
            return Ok(None);
        }
        let message = match self.store.template_name_taken(name, caller.key).await? {
            None => return Ok(None),
            Some(Taken::ByHost) => "is the name of a template that came with a host",
            Some(Taken::ByOthers) => "is the name of templates that another key asked for",
        };
        let hint = "choose another name, or use a key of scope admin";
        Ok(Some(Problem::new("name", "name_taken", message).hint(hint)))
    }

    /// A page of where the tags of `name` point and pointed, the latest move first.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that no template ever had; a cursor that is none.
    pub async fn template_tag_list(
        &self,
        name: &str,
        filter: &TagFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<template_tag::Model>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let rows = self.store.template_tag_list(name, filter, after, u64::from(limit) + 1).await?;
        if rows.is_empty() && !self.store.template_name_known(name).await? {
            return Err(Error::NotFound(format!("template {name}")));
        }
        Ok(Page::of(rows, limit, |row| After { created_at: row.set_at, id: row.id }))
    }

    /// Points `name:tag` to `template`; repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that no template ever had; [`Error::Invalid`] with `problems`, or when
    /// `template` is not one of this name.
    pub async fn template_tag_set(
        &self,
        caller: &Caller,
        name: &str,
        tag: &str,
        template: Option<&str>,
        mut problems: Vec<Problem>,
    ) -> Result<template_tag::Model, Error> {
        if !self.store.template_name_known(name).await? {
            return Err(Error::NotFound(format!("template {name}")));
        }
        if let Some(id) = template.filter(|_| problems.is_empty()) {
            let id = id.parse::<TemplateId>();
            let entry = match id {
                Ok(id) => self.store.template_tag_set(name, tag, id, &caller.name()).await?,
                Err(_) => None,
            };
            if let Some(entry) = entry {
                tracing::info!(template.name = name, tag, "tag is set");
                return Ok(entry);
            }
            let message = format!("is no template of the name {name}");
            problems.push(Problem::new("template_id", "unknown_template", message));
        }
        Err(Error::Invalid(problems))
    }

    /// Takes `name:tag` away. The template stays.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn template_tag_remove(
        &self,
        caller: &Caller,
        name: &str,
        tag: &str,
    ) -> Result<(), Error> {
        if !self.store.template_tag_remove(name, tag, &caller.name()).await? {
            return Err(Error::NotFound(format!("tag {name}:{tag}")));
        }
        tracing::info!(template.name = name, tag, "tag is taken away");
        Ok(())
    }

    async fn template_tagged(&self, name: &str, tag: &str) -> Result<TemplateId, Error> {
        let found = self.store.template_resolve(name, tag).await?;
        let found = found.ok_or_else(|| Error::NotFound(format!("template {name}:{tag}")))?;
        Ok(TemplateId::from_uuid(found.id))
    }
}

fn user(user: User) -> Problem {
    match user {
        User::Build(id) => {
            Problem::new("template", "build_needs_it", format!("build {id} starts from it"))
                .hint("wait until it has ended, or cancel it")
        }
        User::Sandbox(id) => Problem::new(
            "template",
            "sandbox_needs_it",
            format!("sandbox {id} was started from it"),
        )
        .hint("delete it first"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_is_an_id_or_a_name_with_or_without_tag() {
        let id = TemplateId::new();
        assert_eq!(Reference::read(&id.to_string()), Reference::Id(id));
        let named = |name: &str, tag: Option<&str>| Reference::Named {
            name: name.into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(Reference::read("web"), named("web", None));
        assert_eq!(Reference::read("web:v1.0"), named("web", Some("v1.0")));
        assert_eq!(Reference::read("tpl_short"), named("tpl_short", None));
    }
}
