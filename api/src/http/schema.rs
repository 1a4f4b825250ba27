//! Holds a JSON body against the schema that the specification publishes for it, and lists everything
//! that does not fit. So the specification cannot say one thing and the server do another, and a client
//! hears of all its mistakes at once.
//!
//! Objects are closed: a field that the schema does not know is refused, for a mistyped optional field
//! would otherwise be ignored in silence.

use std::{
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use chrono::DateTime;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use regex::Regex;
use serde_json::Value;

use crate::app::Problem;

/// Problems listed at most: enough to mend everything, and no way to make a huge answer.
pub const PROBLEMS_MAX: usize = 100;

/// What does not fit.
pub fn check(registry: &Registry, schema: &MetaSchemaRef, value: &Value) -> Vec<Problem> {
    let mut checker = Checker { registry, problems: Vec::new() };
    checker.any(schema, value, "");
    checker.problems
}

struct Checker<'a> {
    registry: &'a Registry,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn report(&mut self, path: &str, code: &'static str, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let field = if path.is_empty() { Problem::WHOLE } else { path };
            self.problems.push(Problem::new(field, code, message));
        }
    }

    fn resolve(&self, schema: &'a MetaSchemaRef) -> Option<&'a MetaSchema> {
        match schema {
            MetaSchemaRef::Inline(schema) => Some(schema),
            MetaSchemaRef::Reference(name) => self.registry.schemas.get(name),
        }
    }

    fn any(&mut self, schema: &'a MetaSchemaRef, value: &Value, path: &str) {
        if let Some(schema) = self.resolve(schema) {
            self.one(schema, value, path);
        }
    }

    fn one(&mut self, schema: &'a MetaSchema, value: &Value, path: &str) {
        for part in &schema.all_of {
            self.any(part, value, path);
        }
        let alternatives = schema.any_of.iter().chain(&schema.one_of).collect::<Vec<_>>();
        if !alternatives.is_empty() {
            return self.alternatives(&alternatives, value, path);
        }
        match schema.ty {
            "string" => self.string(schema, value, path),
            "integer" => self.number(schema, value, path, true),
            "number" => self.number(schema, value, path, false),
            "boolean" => self.kind(value.is_boolean(), "true or false", value, path),
            "array" => self.array(schema, value, path),
            "object" => self.object(schema, value, path),
            _ => {}
        }
    }

    /// The alternative of the value's own JSON type decides which problems are told.
    fn alternatives(&mut self, schemas: &[&'a MetaSchemaRef], value: &Value, path: &str) {
        let fitting = schemas
            .iter()
            .find(|schema| self.resolve(schema).is_some_and(|schema| schema.ty == kind_of(value)));
        match fitting {
            Some(schema) => self.any(schema, value, path),
            None => {
                let kinds: Vec<_> = schemas
                    .iter()
                    .filter_map(|schema| self.resolve(schema))
                    .map(|s| s.ty)
                    .collect();
                self.kind(false, &kinds.join(" or "), value, path);
            }
        }
    }

    fn kind(&mut self, fits: bool, expected: &str, value: &Value, path: &str) {
        if !fits {
            let found = kind_of(value);
            self.report(path, "wrong_type", format!("must be {expected}, not {found}"));
        }
    }

    fn string(&mut self, schema: &MetaSchema, value: &Value, path: &str) {
        let Some(text) = value.as_str() else {
            return self.kind(false, "a string", value, path);
        };
        let length = text.chars().count();
        if schema.max_length.is_some_and(|max| length > max)
            || schema.min_length.is_some_and(|min| length < min)
        {
            let (min, max) = (schema.min_length.unwrap_or(0), schema.max_length);
            let bound = max.map_or("no bound".to_owned(), |max| max.to_string());
            let message = format!("has {length} characters; allowed are {min} to {bound}");
            return self.report(path, "wrong_length", message);
        }
        if schema.format == Some("date-time") && DateTime::parse_from_rfc3339(text).is_err() {
            return self.report(path, "wrong_form", "must be a date and time as in RFC 3339");
        }
        if !schema.enum_items.is_empty() && !schema.enum_items.contains(value) {
            let known: Vec<_> = schema.enum_items.iter().filter_map(Value::as_str).collect();
            return self.report(
                path,
                "unknown_value",
                format!("must be one of {}", known.join(", ")),
            );
        }
        let Some(pattern) = &schema.pattern else { return };
        if text.contains('\0') || !regex_matches(pattern, text) {
            self.report(path, "wrong_form", format!("must match {pattern}"));
        }
    }

    fn number(&mut self, schema: &MetaSchema, value: &Value, path: &str, whole: bool) {
        let fits = if whole { value.is_i64() || value.is_u64() } else { value.is_number() };
        let Some(number) = value.as_f64().filter(|_| fits) else {
            let expected = if whole { "a whole number" } else { "a number" };
            return self.kind(false, expected, value, path);
        };
        if schema.minimum.is_some_and(|min| number < min) {
            let min = schema.minimum.unwrap_or_default();
            self.report(path, "out_of_range", format!("must be at least {min}"));
        }
        if schema.maximum.is_some_and(|max| number > max) {
            let max = schema.maximum.unwrap_or_default();
            self.report(path, "out_of_range", format!("must be at most {max}"));
        }
    }

    fn array(&mut self, schema: &'a MetaSchema, value: &Value, path: &str) {
        let Some(items) = value.as_array() else {
            return self.kind(false, "an array", value, path);
        };
        let length = items.len();
        if schema.min_items.is_some_and(|min| length < min) {
            self.report(path, "wrong_length", "must not be empty");
        }
        if let Some(max) = schema.max_items.filter(|max| length > *max) {
            let message = format!("has {length} elements; at most {max} are allowed");
            return self.report(path, "wrong_length", message);
        }
        let Some(item_schema) = &schema.items else { return };
        for (index, item) in items.iter().enumerate() {
            self.any(item_schema, item, &format!("{path}[{index}]"));
        }
    }

    fn object(&mut self, schema: &'a MetaSchema, value: &Value, path: &str) {
        let Some(fields) = value.as_object() else {
            return self.kind(false, "an object", value, path);
        };
        let join = |name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        for name in &schema.required {
            // `null` is what many generators send for "not given".
            if fields.get(*name).is_none_or(Value::is_null) {
                self.report(&join(name), "missing", "is required");
            }
        }
        for (name, field) in fields {
            match schema.properties.iter().find(|(known, _)| known == name) {
                Some(_) if field.is_null() => {}
                Some((_, field_schema)) => self.any(field_schema, field, &join(name)),
                None => match &schema.additional_properties {
                    Some(others) => self.any(others, field, &join(name)),
                    None => self.unknown(schema, &join(name)),
                },
            }
        }
    }

    fn unknown(&mut self, schema: &MetaSchema, path: &str) {
        let known: Vec<_> = schema.properties.iter().map(|(name, _)| *name).collect();
        let shown: String = path.chars().take(100).collect();
        self.report(&shown, "unknown_field", "is not known here");
        if let Some(last) = self.problems.last_mut().filter(|last| last.code == "unknown_field") {
            last.hint = Some(format!("known are {}", known.join(", ")));
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Patterns come from our own schemas, so there are few of them and an invalid one fails the test over all
/// of them; here it refuses. Compiling one takes far longer than matching it.
fn regex_matches(pattern: &str, text: &str) -> bool {
    static COMPILED: LazyLock<RwLock<HashMap<String, Option<Regex>>>> =
        LazyLock::new(RwLock::default);
    let matches = |regex: &Option<Regex>| regex.as_ref().is_some_and(|regex| regex.is_match(text));
    if let Some(regex) = COMPILED.read().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return matches(regex);
    }
    let regex = Regex::new(pattern).ok();
    let matched = matches(&regex);
    let mut compiled = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
    compiled.insert(pattern.to_owned(), regex);
    matched
}

#[cfg(test)]
mod tests {
    use poem_openapi::{Object, types::Type};
    use serde_json::json;

    use super::*;

    #[derive(Debug, Object)]
    #[oai(rename = "SchemaTestBody")]
    struct Body {
        #[oai(validator(pattern = "^[a-z]+$", max_length = 5))]
        name: String,
        #[oai(validator(minimum(value = "1"), maximum(value = "8")))]
        count: Option<u32>,
        flag: Option<bool>,
        #[oai(validator(max_items = 2))]
        list: Option<Vec<String>>,
    }

    fn problems(value: &Value) -> Vec<(String, String)> {
        let mut registry = Registry::new();
        Body::register(&mut registry);
        check(&registry, &Body::schema_ref(), value)
            .into_iter()
            .map(|problem| (problem.field, problem.code.into_owned()))
            .collect()
    }

    #[test]
    fn every_mistake_is_listed_at_once() {
        let found = problems(&json!({
            "name": true, "count": 9, "flag": "yes", "list": ["a", 1], "colour": "red",
        }));
        let expected = [
            ("colour", "unknown_field"),
            ("count", "out_of_range"),
            ("flag", "wrong_type"),
            ("list[1]", "wrong_type"),
            ("name", "wrong_type"),
        ];
        assert_eq!(found, expected.map(|(field, code)| (field.to_owned(), code.to_owned())));
    }

    #[test]
    fn missing_and_null_count_as_not_given() {
        assert_eq!(problems(&json!({})), [("name".to_owned(), "missing".to_owned())]);
        assert_eq!(problems(&json!({"name": null})), [("name".to_owned(), "missing".to_owned())]);
        assert_eq!(problems(&json!({"name": "abc", "count": null})), []);
    }

    #[test]
    fn wrong_form_length_and_whole_body_are_named() {
        assert_eq!(problems(&json!({"name": "A"}))[0].1, "wrong_form");
        assert_eq!(problems(&json!({"name": "abcdef"}))[0].1, "wrong_length");
        assert_eq!(problems(&json!({"name": "a", "count": 1.5}))[0].1, "wrong_type");
        assert_eq!(problems(&json!({"name": "a", "list": ["", "", ""]}))[0].1, "wrong_length");
        assert_eq!(problems(&json!([])), [("body".to_owned(), "wrong_type".to_owned())]);
    }
}
