//! The published OpenAPI document: what poem-openapi derives from the code, corrected where it says
//! less or other than what is answered.

use poem_openapi::{OpenApi, OpenApiService, Webhook};
use serde_json::{Map, Value, json};

use super::{answers, example};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The document.
///
/// # Errors
/// When the derived document is no JSON, which the tests rule out.
pub fn document<T: OpenApi, W: Webhook>(
    service: &OpenApiService<T, W>,
) -> serde_json::Result<Value> {
    let mut document: Value = serde_json::from_str(&service.spec())?;
    plain_content_types(&mut document);
    whole_numbers(&mut document);
    plain_references(&mut document);
    let mut bodies = Vec::new();
    for (method, path, operation) in operations(&mut document) {
        answers::describe(&method, &path, operation);
        if operation.get("security").is_none() {
            operation.insert("security".into(), json!([]));
        }
        if let Some(reference) = operation
            .get("requestBody")
            .and_then(|body| body.pointer("/content/application~1json/schema/$ref"))
            .and_then(Value::as_str)
        {
            bodies.push(reference.to_owned());
        }
    }
    for body in bodies {
        close(&mut document, &body);
    }
    described_answers(&mut document);
    example::add(&mut document)?;
    Ok(document)
}

/// The document as it is checked in and served.
///
/// # Errors
/// As [`document`].
pub fn text<T: OpenApi, W: Webhook>(service: &OpenApiService<T, W>) -> serde_json::Result<String> {
    let mut document = document(service)?;
    // In one order, whichever features of serde_json other crates of the same build have turned on.
    document.sort_all_objects();
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// Every operation with its method and path.
fn operations(
    document: &mut Value,
) -> impl Iterator<Item = (String, String, &mut Map<String, Value>)> {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    paths.into_iter().flatten().flat_map(|(path, item)| {
        let methods = item.as_object_mut().into_iter().flatten();
        methods.filter_map(|(method, operation)| {
            let known = METHODS.contains(&method.as_str());
            let operation = operation.as_object_mut().filter(|_| known)?;
            Some((method.clone(), path.clone(), operation))
        })
    })
}

/// `application/json; charset=utf-8` is no key that generators look for.
fn plain_content_types(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(content) = fields.remove("application/json; charset=utf-8") {
                fields.insert("application/json".into(), content);
            }
            fields.values_mut().for_each(plain_content_types);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_content_types),
        _ => {}
    }
}

/// Bounds are floats there, which is odd for whole numbers and too much for some generators.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|it| number.is_f64() && it.fract() == 0.0) {
                // Far below where the conversion would lose anything.
                *value = json!(whole as i64);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// A successful answer without words of its own says what its content is.
fn described_answers(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    for (_, _, operation) in operations(document) {
        let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
        for (_, answer) in answers.into_iter().flatten() {
            if answer["description"].as_str().is_some_and(|said| !said.trim().is_empty()) {
                continue;
            }
            let reference = answer.pointer("/content/application~1json/schema/$ref");
            let name = reference.and_then(Value::as_str).and_then(|it| it.rsplit('/').next());
            let said = name.and_then(|name| schemas[name]["description"].as_str());
            answer["description"] = said.unwrap_or("Done.").into();
        }
    }
}

/// A described reference stands there as `allOf` of the reference and of its description, which generators take for a
/// type of its own. The description beside `allOf` is enough.
fn plain_references(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let parts = fields.get_mut("allOf").and_then(Value::as_array_mut);
            if let Some([reference, other]) = parts.map(Vec::as_mut_slice)
                && reference.get("$ref").is_some()
                && let Value::Object(said) = other.take()
            {
                let reference = reference.take();
                fields.insert("allOf".into(), json!([reference]));
                for (name, value) in said {
                    fields.entry(name).or_insert(value);
                }
            }
            fields.values_mut().for_each(plain_references);
        }
        Value::Array(items) => items.iter_mut().for_each(plain_references),
        _ => {}
    }
}

/// Marks an object, and the objects in it, as ones that refuse unknown fields. The server does so for
/// every body.
fn close(document: &mut Value, reference: &str) {
    let Some(pointer) = reference.strip_prefix('#') else { return };
    let Some(schema) = document.pointer_mut(pointer).and_then(Value::as_object_mut) else { return };
    if schema.get("type") == Some(&json!("object")) {
        if schema.contains_key("additionalProperties") {
            return;
        }
        schema.insert("additionalProperties".into(), json!(false));
    }
    let inner: Vec<String> = references(&Value::Object(schema.clone()));
    for reference in inner {
        close(document, &reference);
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value.as_str()) {
                ("$ref", Some(reference)) => vec![reference.to_owned()],
                _ => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
