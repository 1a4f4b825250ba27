//! Paths, methods, parameters, bodies and answers.

use serde_json::Value;

use super::{
    Comparison, Direction,
    document::{Document, entries},
};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

impl Comparison<'_> {
    pub(super) fn paths(&mut self) {
        for (path, item) in self.released.paths() {
            for (method, released) in entries(Some(item)).filter(|it| METHODS.contains(&it.0)) {
                let place = format!("{} {path}", method.to_uppercase());
                match self.now.operation(path, method) {
                    Some(now) => self.operation(&place, released, now),
                    None => self.report(&place, "is gone"),
                }
            }
        }
    }

    fn operation(&mut self, place: &str, released: &Value, now: &Value) {
        if is_public(released) && !is_public(now) {
            self.report(place, "needs a key now");
        }
        self.parameters(place, released, now);
        self.request(&format!("{place}, request"), released, now);
        self.responses(place, released, now);
    }

    fn parameters(&mut self, place: &str, released: &Value, now: &Value) {
        let before = parameters(self.released, released);
        let after = parameters(self.now, now);
        for old in &before {
            let place = format!("{place}, {}", old.title());
            let Some(new) = after.iter().find(|new| new.is(old)) else {
                self.report(&place, "is gone");
                continue;
            };
            if new.required && !old.required {
                self.report(&place, "is required now");
            }
            self.schemas(&place, Direction::Input, old.schema, new.schema);
        }
        for new in after.iter().filter(|new| new.required) {
            if !before.iter().any(|old| new.is(old)) {
                self.report(&format!("{place}, {}", new.title()), "is new and required");
            }
        }
    }

    fn request(&mut self, place: &str, released: &Value, now: &Value) {
        let before = released.get("requestBody").map(|body| self.released.resolve(body));
        let after = now.get("requestBody").map(|body| self.now.resolve(body));
        let is_required = |body: Option<&Value>| body.is_some_and(|it| it["required"] == true);
        if is_required(after) && !is_required(before) {
            self.report(place, "is required now");
        }
        let Some(before) = before else { return };
        let Some(after) = after else { return self.report(place, "is gone") };
        self.contents(place, Direction::Input, before, after);
    }

    fn responses(&mut self, place: &str, released: &Value, now: &Value) {
        for (status, before) in entries(released.get("responses")) {
            let place = format!("{place}, answer {status}");
            let Some(after) = now.get("responses").and_then(|answers| answers.get(status)) else {
                self.report(&place, "is gone");
                continue;
            };
            let (before, after) = (self.released.resolve(before), self.now.resolve(after));
            self.contents(&place, Direction::Output, before, after);
            for (name, _) in entries(before.get("headers")) {
                let mut present = entries(after.get("headers"));
                if !present.any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                    self.report(&format!("{place}, header {name}"), "is gone");
                }
            }
        }
    }

    /// Each kind of content in its own schema.
    fn contents(&mut self, place: &str, direction: Direction, released: &Value, now: &Value) {
        for (kind, before) in entries(released.get("content")) {
            match now.get("content").and_then(|content| content.get(kind)) {
                Some(after) => {
                    let (before, after) = (before.get("schema"), after.get("schema"));
                    self.schemas(place, direction, before, after);
                }
                None => self.report(place, format!("is no {kind} any more")),
            }
        }
        // A client that got one kind of answer is not made for another.
        let had_content = entries(released.get("content")).next().is_some();
        if direction == Direction::Output && !had_content && now.get("content").is_some() {
            self.report(place, "has a content now");
        }
    }

    fn schemas(
        &mut self,
        place: &str,
        direction: Direction,
        released: Option<&Value>,
        now: Option<&Value>,
    ) {
        match (released, now) {
            (Some(released), Some(now)) => self.schema(place, direction, released, now),
            (None, Some(_)) if direction == Direction::Input => {
                self.report(place, "has a schema now");
            }
            (Some(_), None) if direction == Direction::Output => {
                self.report(place, "has no schema any more");
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Parameter<'a> {
    name: &'a str,
    place: &'a str,
    required: bool,
    schema: Option<&'a Value>,
}

impl Parameter<'_> {
    fn is(&self, other: &Self) -> bool {
        let same = if self.place == "header" {
            self.name.eq_ignore_ascii_case(other.name)
        } else {
            self.name == other.name
        };
        same && self.place == other.place
    }

    fn title(&self) -> String {
        format!("{} parameter {}", self.place, self.name)
    }
}

fn parameters<'a>(document: Document<'a>, operation: &'a Value) -> Vec<Parameter<'a>> {
    let list = operation.get("parameters").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|parameter| {
            let parameter = document.resolve(parameter);
            Parameter {
                name: parameter["name"].as_str().unwrap_or_default(),
                place: parameter["in"].as_str().unwrap_or_default(),
                required: parameter["required"] == true,
                schema: parameter.get("schema"),
            }
        })
        .collect()
}

/// Ours name the security of each operation; an empty list needs none.
fn is_public(operation: &Value) -> bool {
    operation.get("security").and_then(Value::as_array).is_none_or(Vec::is_empty)
}
