//! Schemas: whether one takes every value that another one allows.

use serde_json::{Map, Value};

use super::{
    Break, Comparison, Direction,
    document::{entries, reference, texts},
};

/// Bounds from below, and from above.
const FLOORS: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
const CEILINGS: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// Formats in which the first's values are the second's, too.
const WIDER: [(&str, &str); 4] =
    [("int32", "int64"), ("uint32", "uint64"), ("uint32", "int64"), ("float", "double")];

/// A schema in one object.
type Flat = Map<String, Value>;

impl Comparison<'_> {
    pub(super) fn schema(
        &mut self,
        place: &str,
        direction: Direction,
        released: &Value,
        now: &Value,
    ) {
        if let (Some(before), Some(after)) = (reference(released), reference(now)) {
            // Places in a named schema are told once, at the first place where it is used.
            if !self.seen.insert((direction, before.to_owned(), after.to_owned())) {
                return;
            }
        }
        let before = self.released.schema(released);
        let after = self.now.schema(now);
        if !self.alternatives(place, direction, &before, &after) {
            self.kinds(place, direction, &before, &after);
            self.values(place, direction, &before, &after);
        }
        self.properties(place, direction, &before, &after);
        if let (Some(before), Some(after)) = (before.get("items"), after.get("items")) {
            self.schema(&format!("{place}[]"), direction, before, after);
        }
        if let (Some(before), Some(after)) =
            (others(&before).and_then(as_schema), others(&after).and_then(as_schema))
        {
            self.schema(&format!("{place}.*"), direction, before, after);
        }
    }

    /// `type`, `format`, `nullable`.
    fn kinds(&mut self, place: &str, direction: Direction, released: &Flat, now: &Flat) {
        let (narrow, wide) = direction.order(released, now);
        let kind = |schema: &Flat| schema.get("type").and_then(Value::as_str).map(str::to_owned);
        let (from, to) = (kind(narrow), kind(wide));
        let kind_fits = to.is_none()
            || from == to
            || (from.as_deref(), to.as_deref()) == (Some("integer"), Some("number"));
        if !kind_fits {
            let name = |kind: Option<String>| kind.unwrap_or_else(|| "anything".to_owned());
            let (before, after) = (kind(released), kind(now));
            return self.report(place, format!("was {}, is {}", name(before), name(after)));
        }
        let format = |schema: &Flat| {
            schema.get("format").and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let (from, to) = (format(narrow), format(wide));
        let format_fits =
            to.is_empty() || from == to || WIDER.contains(&(from.as_str(), to.as_str()));
        if !format_fits {
            let name = |schema: &Flat| match format(schema) {
                format if format.is_empty() => "none".to_owned(),
                format => format,
            };
            self.report(place, format!("format was {}, is {}", name(released), name(now)));
        }
        let nullable = |schema: &Flat| schema.get("nullable") == Some(&Value::Bool(true));
        if nullable(narrow) && !nullable(wide) {
            let what = match direction {
                Direction::Input => "may not be null any more",
                Direction::Output => "may be null now",
            };
            self.report(place, what);
        }
    }

    /// `enum`, bounds, `pattern`, `uniqueItems`.
    fn values(&mut self, place: &str, direction: Direction, released: &Flat, now: &Flat) {
        let (narrow, wide) = direction.order(released, now);
        if let Some(allowed) = wide.get("enum").and_then(Value::as_array) {
            match narrow.get("enum").and_then(Value::as_array) {
                None => self.report(place, direction.say("any value", "only listed values")),
                Some(values) => {
                    for value in values.iter().filter(|value| !allowed.contains(value)) {
                        let what = match direction {
                            Direction::Input => format!("{value} is not allowed any more"),
                            Direction::Output => format!("{value} is new among the listed values"),
                        };
                        self.report(place, what);
                    }
                }
            }
        }
        let number = |schema: &Flat, name: &str| schema.get(name).and_then(Value::as_f64);
        for (names, floor) in [(FLOORS, true), (CEILINGS, false)] {
            for name in names {
                let Some(to) = number(wide, name) else { continue };
                let from = number(narrow, name);
                let fits = from.is_some_and(|from| if floor { from >= to } else { from <= to });
                if !fits {
                    let word = |schema: &Flat| {
                        number(schema, name).map_or("none".to_owned(), |bound| bound.to_string())
                    };
                    let (before, after) = (word(released), word(now));
                    self.report(place, format!("{name} was {before}, is {after}"));
                }
            }
        }
        // Whether one pattern takes what another one does cannot be told.
        let pattern = |schema: &Flat| schema.get("pattern").cloned();
        if pattern(wide).is_some() && pattern(wide) != pattern(narrow) {
            let word =
                |schema: &Flat| pattern(schema).map_or("none".to_owned(), |it| it.to_string());
            let (before, after) = (word(released), word(now));
            self.report(place, format!("pattern was {before}, is {after}"));
        }
        let unique = |schema: &Flat| schema.get("uniqueItems") == Some(&Value::Bool(true));
        if unique(wide) && !unique(narrow) {
            self.report(place, direction.say("repeated elements", "different elements"));
        }
    }

    /// `properties`, `required`, `additionalProperties`.
    fn properties(&mut self, place: &str, direction: Direction, released: &Flat, now: &Flat) {
        let property = |schema: &Flat, name: &str| {
            schema.get("properties").and_then(|properties| properties.get(name)).cloned()
        };
        let at = |name: &str| format!("{place}.{name}");
        for (name, before) in entries(released.get("properties")) {
            match property(now, name) {
                Some(after) => self.schema(&at(name), direction, before, &after),
                None => self.report(&at(name), "is gone"),
            }
        }
        let requires = |schema: &Flat, name: &str| {
            texts(schema.get("required")).any(|required| required == name)
        };
        let (narrow, wide) = direction.order(released, now);
        for name in texts(wide.get("required")).filter(|name| !requires(narrow, name)) {
            let is_new = property(released, name).is_none();
            match direction {
                Direction::Input if is_new => self.report(&at(name), "is new and required"),
                Direction::Input => self.report(&at(name), "is required now"),
                // That it is gone was told.
                Direction::Output if property(now, name).is_none() => {}
                Direction::Output => self.report(&at(name), "may be absent now"),
            }
        }
        let is_closed = |schema: &Flat| others(schema) == Some(&Value::Bool(false));
        if direction == Direction::Input && is_closed(now) && !is_closed(released) {
            self.report(place, "refuses unknown fields now");
        }
    }

    /// `anyOf`, `oneOf`: each alternative of the narrower one must be one of the wider, too. Says whether there are any.
    fn alternatives(
        &mut self,
        place: &str,
        direction: Direction,
        released: &Flat,
        now: &Flat,
    ) -> bool {
        let list = |schema: &Flat| -> Option<Vec<Value>> {
            let found = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
            found.as_array().cloned()
        };
        let (before, after) = (list(released), list(now));
        if before.is_none() && after.is_none() {
            return false;
        }
        let whole = |schema: &Flat| vec![Value::Object(schema.clone())];
        let before = before.unwrap_or_else(|| whole(released));
        let after = after.unwrap_or_else(|| whole(now));
        let (narrow, wide) = match direction {
            Direction::Input => (&before, &after),
            Direction::Output => (&after, &before),
        };
        for (at, one) in narrow.iter().enumerate() {
            let fits = wide.iter().any(|other| match direction {
                Direction::Input => self.differences(direction, one, other).is_empty(),
                Direction::Output => self.differences(direction, other, one).is_empty(),
            });
            if !fits {
                let title = reference(one).map_or_else(
                    || one.get("type").map_or_else(|| format!("{}", at + 1), Value::to_string),
                    |it| it.rsplit('/').next().unwrap_or(it).to_owned(),
                );
                let what = match direction {
                    Direction::Input => format!("alternative {title} is not taken any more"),
                    Direction::Output => format!("alternative {title} is new"),
                };
                self.report(place, what);
            }
        }
        true
    }

    /// What differs between two alternatives, without telling it.
    fn differences(&self, direction: Direction, released: &Value, now: &Value) -> Vec<Break> {
        let mut aside = Comparison {
            released: self.released,
            now: self.now,
            // One that is being compared further out counts as equal here; out there its differences are told.
            seen: self.seen.clone(),
            found: std::collections::BTreeSet::new(),
        };
        aside.schema("", direction, released, now);
        aside.found.into_iter().collect()
    }
}

impl Direction {
    /// The schema that must allow no more than the other, and the other.
    fn order<'s>(self, released: &'s Flat, now: &'s Flat) -> (&'s Flat, &'s Flat) {
        match self {
            Self::Input => (released, now),
            Self::Output => (now, released),
        }
    }

    fn say(self, much: &str, little: &str) -> String {
        let (before, after) = match self {
            Self::Input => (much, little),
            Self::Output => (little, much),
        };
        format!("was {before}, is {after}")
    }
}

/// What stands for the properties that have no name.
fn others(schema: &Flat) -> Option<&Value> {
    schema.get("additionalProperties")
}

fn as_schema(value: &Value) -> Option<&Value> {
    Some(value).filter(|value| value.is_object())
}
