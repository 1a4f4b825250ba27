//! Everything that is checked before a build is stored, so that a build which is stored can run. All
//! findings are collected; nothing stops at the first one.

use ovenbird_contract::nats::LANES;
use ovenbird_db::{entity::template, store::host::Capacity};
use ovenbird_recipe::{Action, Available, Diagnostic, Part, Plan, Source};

use super::Draft;
use crate::app::{App, Error, Problem, keys::Caller, registration::label_problems};

/// What this version can do.
const AVAILABLE: Available = Available { copy: true, secrets: false };
/// Names that a hint lists.
const HINT_NAMES: u64 = 8;

/// What a sandbox may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Largest {
    vcpus: u32,
    memory_mb: u32,
}

/// A draft that is in order.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) tag: String,
    pub(super) lane: String,
    pub(super) base_template: String,
    pub(super) base: template::Model,
    pub(super) recipe: Source,
    pub(super) plan: Plan,
    pub(super) vcpus: u32,
    pub(super) memory_mb: u32,
}

impl App {
    /// A draft of `caller` that is in order, or everything that is wrong with it: `problems` first, then what is
    /// found here.
    pub(super) async fn build_check(
        &self,
        caller: &Caller,
        draft: &Draft,
        mut problems: Vec<Problem>,
    ) -> Result<Result<Checked, Vec<Problem>>, Error> {
        let plan = plan(draft, &mut problems);
        let name = async {
            match &draft.name {
                Some(name) => self.template_name_problem(caller, name).await,
                None => Ok(None),
            }
        };
        // Each waits for Postgres, and none for the others.
        let base = self.base(&draft.base_template);
        let (base, hosts, name) = tokio::try_join!(base, self.hosts(), name)?;
        let base = base.map_err(|problem| problems.push(problem)).ok().flatten();
        self.size(draft, &hosts, &mut problems);
        problems.extend(name);
        problems.extend(label_problems(&draft.labels));
        self.context(draft, plan.as_ref(), &mut problems).await?;
        if draft.lane.as_deref().is_some_and(|lane| !LANES.contains(&lane)) {
            let message = format!("must be one of {}", LANES.join(", "));
            problems.push(Problem::new("lane", "unknown_lane", message).hint("leave it out"));
        }
        Ok(assemble(draft, plan, base, problems))
    }

    async fn base(
        &self,
        reference: &Option<String>,
    ) -> Result<Result<Option<template::Model>, Problem>, Error> {
        let Some(reference) = reference else { return Ok(Ok(None)) };
        let (name, tag) = reference.split_once(':').unwrap_or((reference, super::TAG_DEFAULT));
        if let Some(template) = self.store.template_resolve(name, tag).await? {
            return Ok(Ok(Some(template)));
        }
        let names = self.store.template_names(HINT_NAMES).await?;
        let hint = if names.is_empty() {
            "no host has offered a template yet: is an agent running?".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        let message = format!("there is no template {name}:{tag}");
        Ok(Err(Problem::new("base_template", "unknown_template", message).hint(hint)))
    }

    async fn context(
        &self,
        draft: &Draft,
        plan: Option<&Plan>,
        problems: &mut Vec<Problem>,
    ) -> Result<(), Error> {
        match &draft.context {
            Some(digest) if !self.context_is_there(digest).await? => {
                problems.push(Problem::context_not_found());
            }
            Some(_) => {}
            // Told already, when its form is wrong.
            None if problems.iter().any(|problem| problem.field == "context") => {}
            None => {
                let mut steps = plan.into_iter().flat_map(|plan| &plan.steps);
                if let Some(step) = steps.find(|step| matches!(step.action, Action::Copy { .. })) {
                    let message = format!("is missing: step {} copies from it", step.number);
                    let hint = "upload an archive with PUT /v1/admin/contexts/{sha256}, and name its sha256";
                    problems.push(Problem::new("context", "missing_context", message).hint(hint));
                }
            }
        }
        Ok(())
    }

    fn size(&self, draft: &Draft, hosts: &[Largest], problems: &mut Vec<Problem>) {
        let bounds = &self.bounds;
        let largest =
            |of: fn(&Largest) -> u32, otherwise| hosts.iter().map(of).max().unwrap_or(otherwise);
        let vcpus_max = largest(|host| host.vcpus, bounds.vcpus_max);
        let memory_max = largest(|host| host.memory_mb, bounds.memory_mb_max);
        let before = problems.len();
        if let Some(vcpus) = draft.vcpus {
            within("vcpus", vcpus, 1, vcpus_max, problems);
        }
        if let Some(memory) = draft.memory_mb {
            within("memory_mb", memory, bounds.memory_mb_min, memory_max, problems);
        }
        if let Some(disk) = draft.disk_mb {
            within("disk_mb", disk, bounds.disk_mb_min, bounds.disk_mb_max, problems);
        }
        let (Some(vcpus), Some(memory_mb)) = (draft.vcpus, draft.memory_mb) else { return };
        let fits = |host: &Largest| host.vcpus >= vcpus && host.memory_mb >= memory_mb;
        if problems.len() == before && !hosts.is_empty() && !hosts.iter().any(fits) {
            let message = format!("no host has {vcpus} vcpus and {memory_mb} MiB for one sandbox");
            problems.push(Problem::new("memory_mb", "out_of_range", message));
        }
    }

    /// The largest sandbox of each known host. A host that is away now counts: the build waits for it.
    async fn hosts(&self) -> Result<Vec<Largest>, Error> {
        let known = |capacity: &Capacity| {
            capacity.max_sandbox_vcpus > 0 && capacity.max_sandbox_memory_mb > 0
        };
        let hosts = self.store.host_list().await?;
        Ok(hosts
            .into_iter()
            .filter_map(|host| serde_json::from_value::<Capacity>(host.capacity).ok())
            .filter(known)
            .map(|capacity| Largest {
                vcpus: capacity.max_sandbox_vcpus,
                memory_mb: capacity.max_sandbox_memory_mb,
            })
            .collect())
    }
}

fn assemble(
    draft: &Draft,
    plan: Option<Plan>,
    base: Option<template::Model>,
    mut problems: Vec<Problem>,
) -> Result<Checked, Vec<Problem>> {
    let missing = [
        ("name", draft.name.is_none()),
        ("tag", draft.tag.is_none()),
        ("lane", draft.lane.is_none()),
        ("base_template", draft.base_template.is_none()),
        ("recipe", draft.recipe.is_none()),
        ("vcpus", draft.vcpus.is_none()),
        ("memory_mb", draft.memory_mb.is_none()),
    ];
    for (field, _) in missing.into_iter().filter(|(_, missing)| *missing) {
        // Told already, of the field or of the whole body.
        let is_told =
            |problem: &Problem| problem.field.starts_with(field) || problem.field == Problem::WHOLE;
        if !problems.iter().any(is_told) {
            problems.push(Problem::new(field, "missing", "is required"));
        }
    }
    let draft = draft.clone();
    match (draft.name, draft.tag, draft.lane, draft.base_template, draft.recipe) {
        (Some(name), Some(tag), Some(lane), Some(base_template), Some(recipe))
            if problems.is_empty() =>
        {
            match (base, plan, draft.vcpus, draft.memory_mb) {
                (Some(base), Some(plan), Some(vcpus), Some(memory_mb)) => Ok(Checked {
                    name,
                    tag,
                    lane,
                    base_template,
                    base,
                    recipe,
                    plan,
                    vcpus,
                    memory_mb,
                }),
                _ => Err(problems),
            }
        }
        _ => Err(problems),
    }
}

fn within(field: &str, value: u32, min: u32, max: u32, problems: &mut Vec<Problem>) {
    if (min..=max).contains(&value) {
        return;
    }
    let message = format!("must be from {min} to {max}, as the hosts allow; {value} is not");
    problems.push(Problem::new(field, "out_of_range", message));
}

/// The plan, or what is wrong with recipe and healthcheck. Without a readable recipe the healthcheck is
/// still looked at.
fn plan(draft: &Draft, problems: &mut Vec<Problem>) -> Option<Plan> {
    let healthcheck = draft.healthcheck.as_deref();
    match &draft.recipe {
        Some(source) => match ovenbird_recipe::parse(source, healthcheck, AVAILABLE) {
            Ok(plan) => return Some(plan),
            Err(diagnostics) => problems.extend(diagnostics.into_iter().map(problem)),
        },
        None => {
            let any = Source::from("RUN true");
            if let Err(diagnostics) = ovenbird_recipe::parse(&any, healthcheck, AVAILABLE) {
                let its_own = diagnostics.into_iter().filter(|it| it.part == Part::Healthcheck);
                problems.extend(its_own.map(problem));
            }
        }
    }
    None
}

fn problem(diagnostic: Diagnostic) -> Problem {
    let field = match &diagnostic.field {
        Some(inner) => format!("{}.{inner}", diagnostic.part),
        None => diagnostic.part.to_string(),
    };
    Problem {
        line: Some(diagnostic.line),
        column: Some(diagnostic.column),
        hint: Some(diagnostic.hint).filter(|hint| !hint.is_empty()),
        ..Problem::new(field, diagnostic.code.as_str(), diagnostic.message)
    }
}
