//! A sandbox is asked for: checked, placed, written, made.

use std::num::NonZeroU32;

use ovenbird_agent_client::NewSandbox;
use ovenbird_contract::{
    id::{SandboxId, TemplateId},
    sandbox::{Reason, ReasonCode},
};
use ovenbird_db::{
    entity::{sandbox::Model as Row, template},
    store::{
        self,
        sandbox::{Refused, SandboxDetail},
        template::reference_split,
    },
};

use super::{
    agent_of,
    work::{BUSY_CREATE, Work},
};
use crate::app::{App, Error, Problem, keys::Caller};

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// `name`, `name:tag`, or a template's id.
    pub template: String,
    /// Virtual CPUs; the template's when absent.
    pub vcpus: Option<u32>,
    /// Memory, in MiB; the template's when absent.
    pub memory_mb: Option<u32>,
    /// Root disk, in MiB; the template's when absent.
    pub disk_mb: Option<u32>,
    /// Idle seconds until it is paused; 0 means never.
    pub timeout_sec: u32,
}

/// What comes with a wish.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Who asks.
    pub caller: Caller,
    /// The id of the sandbox to be.
    pub id: SandboxId,
    /// The same request may have made it before.
    pub again: bool,
}

impl App {
    /// Makes a sandbox, on a host that holds its template and has room. One that is made already is answered as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoCapacity`]: nothing is stored then. [`Error::HostUnavailable`]: nothing is left
    /// on the host, or the sweep removes it; the row says why, and no sandbox of this id will ever run.
    pub async fn sandbox_create(
        &self,
        draft: Draft,
        origin: Origin,
    ) -> Result<(Row, template::Model), Error> {
        if origin.again
            && let Some(SandboxDetail { sandbox, template, .. }) =
                self.store.sandbox_get(origin.id).await?
        {
            return if is_not_made(&sandbox) {
                Err(Error::HostUnavailable { source: "it was tried before, and failed".into() })
            } else {
                Ok((sandbox, template))
            };
        }
        let template = self.template_of(&draft.template).await?;
        let problems = self.unfit(&draft, &template);
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let new = store::sandbox::NewSandbox {
            id: origin.id,
            template: TemplateId::from_uuid(template.id),
            vcpus: draft.vcpus.unwrap_or(template.vcpus.unsigned_abs()),
            memory_mb: draft.memory_mb.unwrap_or(template.memory_mb.unsigned_abs()),
            disk_mb: draft.disk_mb,
            timeout_sec: draft.timeout_sec,
            requested_by: origin.caller.name(),
            busy: BUSY_CREATE,
        };
        let agents = self.sandboxes.agents()?.clone();
        let wish = NewSandbox {
            sandbox_id: new.id.to_string(),
            template: template.host_name.clone(),
            vcpus: new.vcpus,
            memory_mb: new.memory_mb,
            disk_mb: new.disk_mb,
            idle_timeout_sec: NonZeroU32::new(new.timeout_sec).map(NonZeroU32::get),
        };
        let (id, store) = (new.id, self.store.clone());
        let work = async move {
            let (row, host) = store.sandbox_create(&new).await?.map_err(not_placed)?;
            let work = Work { agent: agent_of(&agents, &host)?, store, id };
            work.create(row, wish).await
        };
        let row = self.sandbox_work(id, work).await?;
        Ok((row, template))
    }

    async fn template_of(&self, reference: &str) -> Result<template::Model, Error> {
        let found = match reference.parse::<TemplateId>() {
            Ok(id) => self.store.template_find(id).await?,
            Err(_) => {
                let (name, tag) = reference_split(reference);
                self.store.template_resolve(name, tag).await?
            }
        };
        found.ok_or_else(|| {
            let message = format!("there is no template {reference}");
            Error::Invalid(vec![Problem::new("template", "unknown_template", message)])
        })
    }

    /// What the template, or any host, does not allow. A snapshot's memory and disk are what they are.
    fn unfit(&self, draft: &Draft, template: &template::Model) -> Vec<Problem> {
        let mut problems = Vec::new();
        let bounds = self.bounds;
        if template.kind == "snapshot" {
            let fixed = [
                ("vcpus", draft.vcpus, template.vcpus.unsigned_abs()),
                ("memory_mb", draft.memory_mb, template.memory_mb.unsigned_abs()),
            ];
            for (field, asked, is) in fixed {
                if asked.is_some_and(|asked| asked != is) {
                    let message = format!("is {is} in this snapshot and cannot be changed");
                    problems.push(Problem::new(field, "fixed", message).hint("leave it out"));
                }
            }
            if draft.disk_mb.is_some() {
                let message = "the disk of a snapshot cannot be changed";
                problems.push(Problem::new("disk_mb", "fixed", message).hint("leave it out"));
            }
            return problems;
        }
        let within = [
            ("memory_mb", draft.memory_mb, bounds.memory_mb_min, u32::MAX),
            ("disk_mb", draft.disk_mb, bounds.disk_mb_min, bounds.disk_mb_max),
        ];
        for (field, asked, min, max) in within {
            if let Some(asked) = asked.filter(|asked| !(min..=max).contains(asked)) {
                let message = match max {
                    u32::MAX => format!("must be at least {min}; {asked} is not"),
                    max => format!("must be from {min} to {max}; {asked} is not"),
                };
                problems.push(Problem::new(field, "out_of_range", message));
            }
        }
        problems
    }
}

/// Whether a row is of a sandbox that could not be made.
fn is_not_made(row: &Row) -> bool {
    let reason = row.reason.clone().and_then(|it| serde_json::from_value::<Reason>(it).ok());
    reason.is_some_and(|reason| reason.code == ReasonCode::CreateFailed)
}

fn not_placed(refused: Refused) -> Error {
    let message = match refused {
        Refused::NoHost => "no host that answers holds the template",
        Refused::NoRoom => "the hosts that hold the template have no room for the sandbox",
    };
    Error::NoCapacity(message.to_owned())
}
