//! The object form: `{"type":"RUN","args":["make"],"timeout":"5m"}`.
//!
//! Flags are fields of their own. The `args` of `RUN` and `START` are joined by one blank into a command
//! for the shell; those of the others are words that need no quotes. A field that is null is absent.

use serde_json::{Map, Value};

use crate::{
    diagnostic::Code,
    flags::{Flag, Known},
    lines::{dangling, ends_in_backslash, is_blank, nul},
    sink::{At, Sink, shown},
    statement::{Arguments, Keyword, Statement},
    words::{Word, normal_template},
};

pub(crate) const USAGE: &str =
    r#"an object is written like {"type":"RUN","args":["make"],"timeout":"5m"}"#;

/// Reads an object that stands at `at`.
pub(crate) fn read(object: &Map<String, Value>, at: &At, sink: &mut Sink) -> Option<Statement> {
    let keyword = match object.get("type") {
        Some(Value::String(word)) => Keyword::read(word, &at.field("type"), sink),
        Some(_) => bad(&at.field("type"), "`type` is not a string", sink),
        None => bad(at, "the object has no `type`", sink),
    };
    let args = args(object, at, sink);
    let keyword = keyword?;
    let mut flags = Vec::new();
    for (name, value) in object {
        if !matches!(name.as_str(), "type" | "args") {
            field(keyword.flags(), name, value, at, &mut flags, sink);
        }
    }
    let arguments = if keyword.takes_command() {
        command(args, at, sink)
    } else {
        let words = args.into_iter().map(|(text, at)| Word {
            template: normal_template(text, &at, sink),
            at,
            bare: true,
        });
        Arguments::Words(words.collect())
    };
    Some(Statement { keyword, at: at.clone(), end: at.field("args"), flags, arguments })
}

/// Reports what is no step at all.
pub(crate) fn refuse(value: &Value, at: &At, sink: &mut Sink) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        _ => "a list",
    };
    bad(at, &format!("an entry is a string or an object, not {kind}"), sink)
}

/// Reports a wrong shape; answers nothing, in whatever type that is needed.
fn bad<T: Default>(at: &At, message: &str, sink: &mut Sink) -> T {
    sink.error(Code::BadObject, at, message, USAGE);
    T::default()
}

fn args<'a>(object: &'a Map<String, Value>, at: &At, sink: &mut Sink) -> Vec<(&'a str, At)> {
    let values = match object.get("args") {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(values)) => values,
        Some(_) => return bad(&at.field("args"), "`args` is not a list of strings", sink),
    };
    let mut args = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = at.field(format!("args[{index}]"));
        match value {
            Value::String(text) => {
                no_nul(text, &at, sink);
                args.push((text.as_str(), at));
            }
            _ => bad(&at, "an argument is not a string", sink),
        }
    }
    args
}

fn command(args: Vec<(&str, At)>, at: &At, sink: &mut Sink) -> Arguments {
    let at = args.first().map_or_else(|| at.field("args"), |(_, at)| at.clone());
    let words: Vec<&str> = args.into_iter().map(|(text, _)| text).collect();
    let text = words.join(" ").trim_matches(is_blank).to_owned();
    if ends_in_backslash(&text) {
        dangling(&at, sink);
    }
    if text.starts_with("--") {
        misplaced(&text, &at, sink);
    }
    Arguments::Command { text, at }
}

/// Reports a flag among the arguments.
pub(crate) fn misplaced(word: &str, at: &At, sink: &mut Sink) {
    let word = word.split(is_blank).next().unwrap_or_default();
    let message = format!("the flag {} stands among the arguments", shown(word));
    let hint = if at.field.is_some() {
        "make it a field of the object, such as \"timeout\":\"5m\"; a file of this name is `./--…`"
    } else {
        "flags stand directly after the step's name; quote the word if it is a file's name"
    };
    sink.error(Code::MisplacedFlag, at, message, hint);
}

fn field(
    known: &[Known],
    name: &str,
    value: &Value,
    at: &At,
    flags: &mut Vec<Flag>,
    sink: &mut Sink,
) {
    let at = at.field(shown(name).trim_matches('`'));
    let spec = known.iter().find(|spec| spec.name == name);
    let mut push = |value| flags.push(Flag { name: name.to_owned(), value, at: at.clone() });
    match (spec, value) {
        (_, Value::Null) => {}
        // Whatever its value, `flags::check` reports the name.
        (None, _) => push(None),
        (Some(Known { example: None, .. }), Value::Bool(on)) => {
            if *on {
                push(None);
            }
        }
        (Some(Known { example: None, .. }), _) => bad(&at, "the field is not true or false", sink),
        (Some(_), Value::String(text)) => {
            no_nul(text, &at, sink);
            push(Some(text.clone()));
        }
        (Some(_), Value::Number(number)) => push(Some(number.to_string())),
        (Some(Known { repeats: true, .. }), Value::Array(values)) => {
            for value in values {
                match value {
                    Value::String(text) => push(Some(text.clone())),
                    _ => bad(&at, "the field is not a list of strings", sink),
                }
            }
        }
        (Some(_), _) => bad(&at, "the field is not a string", sink),
    }
}

fn no_nul(text: &str, at: &At, sink: &mut Sink) {
    if text.contains('\0') {
        nul(at, sink);
    }
}
