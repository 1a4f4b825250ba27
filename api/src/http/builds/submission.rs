//! The bodies of a new build and of a cancel. Of the first: its published schema, and how a checked value becomes a draft.
//!
//! The value is read field by field and not by the derived parser, which stops at the first mistake.

use std::collections::BTreeMap;

use poem_openapi::{
    Object,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde_json::Value;

use crate::{
    app::{self, builds},
    http::body::Submitted,
};

/// A build to be: a recipe and what it becomes. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct BuildCreate {
    /// Name of the template to be.
    #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
    pub name: String,
    /// Tag of the template to be; once the build succeeds, `name:tag` points to its template.
    #[oai(validator(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"), default = "default_tag")]
    pub tag: String,
    /// The template to start from, as `name` or `name:tag`.
    #[oai(
        validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"),
        default = "default_base"
    )]
    pub base_template: String,
    /// The steps, in order: lines such as `RUN apt-get install -y nginx`, or objects. At most 200 steps.
    #[oai(validator(min_items = 1))]
    pub recipe: Vec<RecipeEntry>,
    /// When the template is ready: `[--interval=3s] [--timeout=10s] [--start-period=0s] [--retries=20] <sh
    /// command>`. With it the template is a memory snapshot of the running sandbox, without it an image.
    pub healthcheck: Option<String>,
    /// Virtual CPUs of the sandbox. The largest host decides how many there may be.
    #[oai(validator(minimum(value = "1"), maximum(value = "1024")), default = "default_vcpus")]
    pub vcpus: u32,
    /// Memory of the sandbox, in MiB. The largest host decides how much there may be.
    #[oai(
        validator(minimum(value = "1"), maximum(value = "16777216")),
        default = "default_memory_mb"
    )]
    pub memory_mb: u32,
    /// Size of the root disk, in MiB; as large as the base template's when absent.
    #[oai(validator(minimum(value = "1"), maximum(value = "16777216")))]
    pub disk_mb: Option<u32>,
    /// sha256, in hex, of an uploaded build context, which `COPY` takes from.
    #[oai(validator(pattern = "^[0-9a-f]{64}$"))]
    pub context: Option<String>,
    /// The lane whose runners may take the build.
    #[oai(validator(pattern = "^[A-Za-z0-9_-]{1,64}$"), default = "default_lane")]
    pub lane: String,
    /// Leave out the hooks that the base template runs before and after the steps.
    #[oai(default)]
    pub skip_hooks: bool,
    /// Labels that the host must have, all of them; any host will do when absent.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Why a build is cancelled.
#[derive(Debug, Object)]
pub struct BuildCancel {
    /// One line for people, in the build and in its log.
    #[oai(validator(max_length = 500, pattern = "^[^\\x00-\\x1f\\x7f]*$"))]
    pub why: Option<String>,
}

/// What a cancel says, and what is wrong with it. An empty text says nothing.
pub(super) fn why(body: Submitted<BuildCancel>) -> (Option<String>, Vec<app::Problem>) {
    let why = body.value.get("why").and_then(Value::as_str).map(str::trim);
    (why.filter(|why| !why.is_empty()).map(str::to_owned), body.problems)
}

fn default_tag() -> String {
    builds::TAG_DEFAULT.to_owned()
}
fn default_base() -> String {
    "minimal".to_owned()
}
fn default_vcpus() -> u32 {
    1
}
fn default_memory_mb() -> u32 {
    512
}
fn default_lane() -> String {
    ovenbird_contract::nats::DEFAULT_LANE.to_owned()
}

/// Reads what can be read of a submission. `bad` names the fields whose form is wrong; they stay `None`.
pub(super) fn draft(value: &Value, bad: &[app::Problem]) -> builds::Draft {
    let is_bad = |name: &str| bad.iter().any(|problem| problem.field == name);
    let good = |name: &str| value.get(name).filter(|found| !found.is_null() && !is_bad(name));
    let text = |name: &str| good(name).and_then(Value::as_str).map(str::to_owned);
    let or_default = |name: &str, default: fn() -> String| {
        text(name).or_else(|| Some(default()).filter(|_| !is_bad(name)))
    };
    let number = |name: &str| {
        good(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
    };
    let number_or = |name: &str, default: fn() -> u32| {
        number(name).or_else(|| Some(default()).filter(|_| !is_bad(name)))
    };
    builds::Draft {
        name: text("name"),
        tag: or_default("tag", default_tag),
        base_template: or_default("base_template", default_base),
        recipe: good("recipe").and_then(Value::as_array).map(|list| list.clone().into()),
        healthcheck: text("healthcheck"),
        vcpus: number_or("vcpus", default_vcpus),
        memory_mb: number_or("memory_mb", default_memory_mb),
        disk_mb: number("disk_mb"),
        context: text("context"),
        lane: or_default("lane", default_lane),
        skip_hooks: good("skip_hooks").and_then(Value::as_bool).unwrap_or(false),
        labels: good("labels").and_then(labels).unwrap_or_default(),
    }
}

/// Those that are no texts are told of by the schema.
fn labels(value: &Value) -> Option<BTreeMap<String, String>> {
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    Some(value.as_object()?.iter().filter_map(text).collect())
}

/// One step of a recipe: a line of text, or an object.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipeEntry(pub Value);

/// A step as an object. Which fields a step takes depends on its type.
#[derive(Debug, Object)]
pub struct RecipeStep {
    /// `RUN`, `START`, `ENV`, `WORKDIR`, `USER` or `COPY`.
    pub r#type: String,
    /// What it works on. Those of `RUN` and `START` are joined by a blank.
    pub args: Option<Vec<String>>,
    /// `RUN`: the time of one try, such as `5m`.
    pub timeout: Option<String>,
    /// `RUN`: tries after the first one failed.
    #[oai(validator(minimum(value = "0")))]
    pub retries: Option<u32>,
    /// `RUN`: the names of secrets. Not available yet.
    pub secret: Option<Vec<String>>,
    /// `USER`: may become root without a password.
    pub sudo: Option<bool>,
    /// `COPY`: `user:group` of what is copied, names or numbers; root's when absent.
    pub chown: Option<String>,
}

impl Type for RecipeEntry {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        "RecipeEntry".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Reference(Self::name().into_owned())
    }

    fn register(registry: &mut Registry) {
        RecipeStep::register(registry);
        registry.create_schema::<Self, _>(Self::name().into_owned(), |_| MetaSchema {
            description: Some("One step of a recipe: a line of text, or an object."),
            any_of: vec![String::schema_ref(), RecipeStep::schema_ref()],
            ..MetaSchema::ANY
        });
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for RecipeEntry {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Ok(Self(value.unwrap_or_default()))
    }
}

impl ToJSON for RecipeEntry {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_fields_have_their_defaults_and_bad_ones_are_left_out() {
        let value = json!({"name": "a", "recipe": ["RUN true"], "vcpus": "two", "tag": null});
        let bad = [app::Problem::new("vcpus", "wrong_type", "")];
        let draft = draft(&value, &bad);
        assert_eq!(draft.name.as_deref(), Some("a"));
        assert_eq!(draft.tag.as_deref(), Some("latest"));
        assert_eq!(draft.base_template.as_deref(), Some("minimal"));
        assert_eq!((draft.vcpus, draft.memory_mb, draft.disk_mb), (None, Some(512), None));
        assert!(draft.recipe.is_some());
    }
}
