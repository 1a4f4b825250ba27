//! From a submission to a plan, or to everything that is wrong with it.

use crate::{
    Available, check,
    diagnostic::{Code, Diagnostic, Part},
    health,
    limits::{LINE_BYTES_MAX, STEPS_MAX},
    lines::{self, Item, too_long},
    object,
    plan::{Action, Plan, Step, VERSION},
    print,
    sink::{At, Sink},
    source::Source,
    statement::{Keyword, Statement},
    text,
};

/// Reads a recipe and its healthcheck.
///
/// # Errors
/// Everything that is wrong, in the order of the source: the recipe first, then the healthcheck. Never
/// empty, and at most [`crate::limits::DIAGNOSTICS_MAX`].
pub fn parse(
    source: &Source,
    healthcheck: Option<&str>,
    available: Available,
) -> Result<Plan, Vec<Diagnostic>> {
    let mut sink = Sink::new();
    let steps = steps(source, healthcheck.is_some(), available, &mut sink);
    sink.part = Part::Healthcheck;
    let healthcheck = healthcheck.map(|text| health::read(text, &mut sink));
    let found = sink.finish();
    if found.is_empty() { Ok(Plan { v: VERSION, steps, healthcheck }) } else { Err(found) }
}

fn steps(
    source: &Source,
    has_healthcheck: bool,
    available: Available,
    sink: &mut Sink,
) -> Vec<Step> {
    let items = lines::items(source, sink);
    if items.is_empty() && sink.is_empty() {
        sink.error(
            Code::EmptyRecipe,
            &At::new(1, 1),
            "the recipe has no step",
            "write at least one step, such as `RUN true`",
        );
    }
    let mut steps = Vec::with_capacity(items.len().min(STEPS_MAX));
    for (item, number) in items.iter().zip(1..) {
        if number > STEPS_MAX {
            let message = format!("the recipe has more than {STEPS_MAX} steps");
            let hint =
                "join commands with `&&` in one RUN, or build on a template of the first steps";
            sink.error(Code::TooManySteps, &item.at(), message, hint);
            break;
        }
        let Some(statement) = statement(item, sink) else { continue };
        let at = statement.at.clone();
        if statement.keyword == Keyword::Start && !has_healthcheck {
            start_without_healthcheck(&at, sink);
        }
        let Some(action) = check::action(statement, available, sink) else { continue };
        steps.push(step(u32::try_from(number).unwrap_or(u32::MAX), action, &at, sink));
    }
    steps
}

fn statement(item: &Item<'_>, sink: &mut Sink) -> Option<Statement> {
    match item {
        Item::Line(line) => text::read(line, sink),
        Item::Object(at, object) => object::read(object, at, sink),
        Item::Other(at, value) => {
            object::refuse(value, at, sink);
            None
        }
    }
}

fn step(number: u32, action: Action, at: &At, sink: &mut Sink) -> Step {
    let cmd = print::line(&action);
    if cmd.len() > LINE_BYTES_MAX {
        too_long(at, cmd.len(), sink);
    }
    Step { number, cmd, action }
}

fn start_without_healthcheck(at: &At, sink: &mut Sink) {
    sink.error(
        Code::StartWithoutHealthcheck,
        at,
        "START needs a healthcheck: without one the template is a disk image, \
         in which no process is running",
        "add a healthcheck to the build, such as `curl -fsS http://127.0.0.1:8080/`, \
         or use RUN for a command that ends",
    );
}

impl Plan {
    /// The recipe as canonical lines of the text form, one a step. With the healthcheck's
    /// [`std::fmt::Display`] they read back as the same plan.
    pub fn lines(&self) -> Vec<String> {
        self.steps.iter().map(|step| print::line(&step.action)).collect()
    }
}
