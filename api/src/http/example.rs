//! Examples in the published document: on every parameter, body and answer that has none.
//!
//! What is worth reading as a whole, such as a build, stands in `examples.json` under the name of its schema. Everything
//! else follows from its schema and its name, so that a new operation has its examples without anybody writing them.
//! Whether each one fits its schema is the linter's business (`cargo dev openapi --check`).

use regex::Regex;
use serde_json::{Map, Value, json};

use super::code::Code;

/// Whole values by the names of their schemas.
const WHOLE: &str = include_str!("examples.json");
/// Schemas hold others, but none of ours holds itself this deep.
const DEPTH_MAX: usize = 8;
/// The part of an id after its prefix.
const ID: &str = "01k9w3t8m2e4fbz6h5qn7rxjy1";
const TIME: &str = "2026-03-01T12:00:00.000Z";
const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// Texts by the last word of what they are called.
const TEXTS: &[(&str, &str)] = &[
    ("name", "hello"),
    ("tag", "latest"),
    ("template", "hello:latest"),
    ("type", "RUN"),
    ("cmd", "cat /etc/greeting"),
    ("command", "cat /etc/greeting"),
    ("text", "hello"),
    ("message", "what happened"),
    ("path", "/etc/greeting"),
    ("user", "baker"),
    ("workdir", "/srv"),
    ("cwd", "/srv"),
    ("stdout", "hello\n"),
    ("stderr", ""),
    ("timeout", "5m"),
    ("why", "a newer commit"),
    ("digest", DIGEST),
    ("sha256", DIGEST),
    ("address", "10.0.0.7:7443"),
    ("action", "build_create"),
    ("actor", "key_01k9w3t8m2e4fbz6h5qn7rxjy1"),
    ("Range", "bytes=0-1023"),
    ("Key", "9b2f6a1e-5f1c-4e0b-8f43-2a4a3f0f6c1d"),
];
/// Types of events by the schemas of their data.
const EVENTS: &[(&str, &str)] = &[("ExecEvent", "stdout")];
/// What is left to match a pattern.
const WORDS: &[&str] =
    &["hello", "hello:latest", "latest", "/etc/greeting", "5m", "1", "a", DIGEST];

/// Fills in what is missing.
///
/// # Errors
/// When `examples.json` is no JSON, which the tests rule out.
pub(super) fn add(document: &mut Value) -> serde_json::Result<()> {
    let whole: Map<String, Value> = serde_json::from_str(WHOLE)?;
    let source = Source { schemas: document["components"]["schemas"].clone(), whole };
    for item in members(document.get_mut("paths")) {
        for operation in members(Some(item)) {
            source.operation(operation);
        }
    }
    Ok(())
}

struct Source {
    schemas: Value,
    whole: Map<String, Value>,
}

impl Source {
    fn operation(&self, operation: &mut Value) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            let example = self.value(&name, &parameter["schema"], 0);
            put(parameter, example);
        }
        for (kind, content) in entries(operation.pointer_mut("/requestBody/content")) {
            let example = self.content(kind, &content["schema"]);
            put(content, example);
        }
        for (status, answer) in entries(operation.get_mut("responses")) {
            for (kind, content) in entries(answer.get_mut("content")) {
                let example = failure(status, &content["schema"])
                    .or_else(|| self.content(kind, &content["schema"]));
                put(content, example);
            }
        }
    }

    fn content(&self, kind: &str, schema: &Value) -> Option<Value> {
        match kind {
            "application/json" => self.value("", schema, 0),
            "text/event-stream" => Some(self.event(schema).into()),
            _ => None,
        }
    }

    /// An event of the schema that the description of the stream names.
    fn event(&self, schema: &Value) -> String {
        let words = schema["description"].as_str().unwrap_or_default();
        let mut words = words.split(|c: char| !c.is_ascii_alphanumeric());
        let found = words.find_map(|word| {
            let whole = self.whole.get(word).cloned();
            Some((word, whole.or_else(|| self.value(word, self.schemas.get(word)?, 0))?))
        });
        let (name, data) = found.unwrap_or_else(|| ("", json!({})));
        let id = data.get("seq").map_or_else(String::new, |seq| format!("id: {seq}\n"));
        let kind = EVENTS.iter().find(|(schema, _)| *schema == name);
        let kind = kind.map_or_else(String::new, |(_, kind)| format!("event: {kind}\n"));
        format!("{kind}{id}data: {data}\n\n")
    }

    fn named(&self, name: &str, schema: &Value, depth: usize) -> Option<Value> {
        self.whole.get(name).cloned().or_else(|| self.value(name, schema, depth))
    }

    /// A value for what is called `name`; none where its schema says nothing.
    fn value(&self, name: &str, schema: &Value, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let target = reference.rsplit('/').next().unwrap_or_default();
            return self.named(target, self.schemas.get(target)?, depth + 1);
        }
        if let Some(said) = schema.get("example").or_else(|| schema.get("default")) {
            return Some(said.clone());
        }
        if let Some(first) = schema["enum"].get(0) {
            return Some(first.clone());
        }
        for parts in ["allOf", "anyOf", "oneOf"] {
            if let Some(first) = schema[parts].get(0) {
                return self.value(name, first, depth + 1);
            }
        }
        match schema["type"].as_str()? {
            "boolean" => Some(true.into()),
            "integer" | "number" => Some(number(schema)),
            "string" => Some(text(name, schema)),
            "array" => Some(self.value(name, &schema["items"], depth + 1).into_iter().collect()),
            "object" => Some(self.object(schema, depth)),
            _ => None,
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let properties = schema["properties"].as_object();
        let fields = properties.into_iter().flatten().filter_map(|(name, property)| {
            // The example is of a last page.
            let shown = name != "next_cursor";
            let value = shown.then(|| self.value(name, property, depth + 1)).flatten()?;
            Some((name.clone(), value))
        });
        let mut fields: Map<String, Value> = fields.collect();
        let others = schema.get("additionalProperties").filter(|it| it.is_object());
        if let Some(value) = others.and_then(|others| self.value("", others, depth + 1)) {
            fields.insert("GREETING".into(), value);
        }
        fields.into()
    }
}

/// The first code of a status, as it is answered when nothing more is known.
fn failure(status: &str, schema: &Value) -> Option<Value> {
    let is_error = schema["$ref"].as_str()?.ends_with("/Error");
    let code = Code::ALL.iter().find(|code| is_error && code.status().as_str() == status)?;
    let (code, message) = (code.as_str(), code.meaning());
    Some(json!({ "error": { "code": code, "message": message, "details": [] } }))
}

fn number(schema: &Value) -> Value {
    let at_least = schema["minimum"].as_i64().unwrap_or(0);
    at_least.max(1).min(schema["maximum"].as_i64().unwrap_or(i64::MAX)).into()
}

fn text(name: &str, schema: &Value) -> Value {
    match schema["format"].as_str() {
        Some("date-time") => return TIME.into(),
        Some("uuid") => return "9b2f6a1e-5f1c-4e0b-8f43-2a4a3f0f6c1d".into(),
        _ => {}
    }
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    let matches = Regex::new(pattern).ok();
    let fits = |text: &&str| matches.as_ref().is_none_or(|regex| regex.is_match(text));
    let (called, owned) =
        (name.rsplit(['_', '-', '.']).next().unwrap_or_default(), id(name, pattern));
    let by_name = TEXTS.iter().find(|(word, _)| *word == called).map(|(_, text)| *text);
    let candidates = owned.as_deref().into_iter().chain(by_name).chain(WORDS.iter().copied());
    let found = { candidates }.find(fits);
    found.unwrap_or_default().into()
}

/// An id, from the prefix that its pattern demands or its name tells.
fn id(name: &str, pattern: &str) -> Option<String> {
    let demanded = pattern.trim_start_matches(['^', '(']).split_once('_');
    let prefix = match (demanded, name) {
        (Some((prefix, _)), _) if prefix.len() == 3 => prefix,
        (_, "build_id") => "bld",
        (_, "template_id") => "tpl",
        (_, "sandbox_id") => "sbx",
        (_, "host_id") => "hst",
        (_, "key_id" | "requested_by" | "by") => "key",
        _ => return None,
    };
    Some(format!("{prefix}_{ID}"))
}

/// Keeps what the code says itself.
fn put(place: &mut Value, example: Option<Value>) {
    let is_bare = place.get("example").is_none() && place.get("examples").is_none();
    if let (true, Some(example), Some(fields)) = (is_bare, example, place.as_object_mut()) {
        fields.insert("example".into(), example);
    }
}

fn entries(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flatten()
}

fn members(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    entries(value).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(schema: &Value) -> Value {
        let mut document = json!({
            "components": { "schemas": { "LogRecord": { "type": "object" } } },
            "paths": { "/a": { "get": {
                "parameters": [{ "name": "id", "schema": { "type": "string", "pattern": "^bld_[0-9a-z]{26}$" } }],
                "responses": {
                    "200": { "content": { "application/json": { "schema": schema } } },
                    "404": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } },
                    "206": { "content": { "text/event-stream": { "schema": {
                        "type": "string", "description": "`data` of each is a LogRecord." } } } },
                },
            } } },
        });
        add(&mut document).unwrap();
        document["paths"]["/a"]["get"].take()
    }

    #[test]
    fn example_follows_from_schema_and_name() {
        let operation = examples(&json!({
            "type": "object",
            "properties": {
                "items": { "type": "array", "items": { "type": "object", "properties": {
                    "template_id": { "type": "string" },
                    "name": { "type": "string", "pattern": "^[a-z]+$" },
                    "vcpus": { "type": "integer", "minimum": 2 },
                    "since": { "type": "string", "format": "date-time" },
                    "state": { "type": "string", "enum": ["on", "off"] },
                } } },
                "next_cursor": { "type": "string" },
            },
        }));
        assert_eq!(operation["parameters"][0]["example"], format!("bld_{ID}"));
        let item = json!({
            "template_id": format!("tpl_{ID}"), "name": "hello", "vcpus": 2, "since": TIME, "state": "on",
        });
        let content = &operation["responses"]["200"]["content"]["application/json"];
        assert_eq!(content["example"], json!({ "items": [item] }));
    }

    #[test]
    fn error_has_the_code_of_its_status_and_a_stream_the_record_that_it_names() {
        let operation = examples(&json!({ "type": "string", "example": "said by the code" }));
        let error = &operation["responses"]["404"]["content"]["application/json"]["example"];
        assert_eq!(error["error"]["code"], "not_found");
        let event = &operation["responses"]["206"]["content"]["text/event-stream"]["example"];
        assert!(event.as_str().unwrap().starts_with("id: 17\ndata: {\""), "{event}");
        let said = &operation["responses"]["200"]["content"]["application/json"]["example"];
        assert_eq!(said, "said by the code");
    }

    #[test]
    fn every_whole_example_is_of_a_schema_or_stream_in_the_document() {
        let text = include_str!("../../../openapi/openapi.json");
        let document: Value = serde_json::from_str(text).unwrap();
        let whole: Map<String, Value> = serde_json::from_str(WHOLE).unwrap();
        for name in whole.keys() {
            let of_stream = text.contains(&format!("`data` of each is an {name}."));
            assert!(of_stream || document["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}
