//! Reading an OpenAPI document: references, and schemas in the form in which they are compared.

use serde_json::{Map, Value};

/// Deeper nesting of `allOf` and references is a mistake of the document.
const DEPTH_MAX: usize = 32;

#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    root: &'a Value,
}

impl<'a> Document<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root }
    }

    /// Every path with what stands at it.
    pub(super) fn paths(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        entries(self.root.get("paths"))
    }

    /// The operation of a method at a path.
    pub(super) fn operation(self, path: &str, method: &str) -> Option<&'a Value> {
        self.root.get("paths")?.get(path)?.get(method)
    }

    /// What a value refers to, or itself.
    pub(super) fn resolve<'v>(self, value: &'v Value) -> &'v Value
    where
        'a: 'v,
    {
        let mut value = value;
        for _ in 0..DEPTH_MAX {
            let Some(reference) = reference(value) else { break };
            let Some(found) = reference.strip_prefix('#').and_then(|at| self.root.pointer(at))
            else {
                break;
            };
            value = found;
        }
        value
    }

    /// A schema without reference, with what its `allOf` says in one object.
    pub(super) fn schema(self, schema: &Value) -> Map<String, Value> {
        let mut flat = Map::new();
        self.merge(&mut flat, schema, 0);
        flat
    }

    fn merge(self, flat: &mut Map<String, Value>, schema: &Value, depth: usize) {
        let Some(fields) = self.resolve(schema).as_object().filter(|_| depth < DEPTH_MAX) else {
            return;
        };
        for (key, value) in fields {
            match (key.as_str(), flat.get_mut(key)) {
                ("allOf", _) => {
                    for part in value.as_array().into_iter().flatten() {
                        self.merge(flat, part, depth + 1);
                    }
                }
                ("properties", Some(Value::Object(known))) => {
                    known.extend(
                        entries(Some(value)).map(|(name, it)| (name.to_owned(), it.clone())),
                    );
                }
                ("required", Some(Value::Array(known))) => {
                    known.extend(value.as_array().into_iter().flatten().cloned());
                }
                (_, None) => _ = flat.insert(key.clone(), value.clone()),
                // The first one said wins; ours say each thing once.
                _ => {}
            }
        }
    }
}

pub(super) fn reference(value: &Value) -> Option<&str> {
    value.get("$ref").and_then(Value::as_str)
}

/// The entries of an object; none of anything else.
pub(super) fn entries(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The texts of a list.
pub(super) fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
