//! An action as one line of the text form, the same one for every way of writing it.
//!
//! An action with a line end inside (only an object can hold one) prints as an object in one line.

use serde_json::{Map, Value, json};

use crate::{duration, limits::RUN_TIMEOUT_DEFAULT_MS, plan::Action, words::quoted};

/// The line that reads back as `action`.
pub(crate) fn line(action: &Action) -> String {
    let arguments = arguments(action);
    let flags = flags(action);
    if arguments.iter().any(|argument| argument.contains('\n')) {
        return object(action.keyword(), &arguments, flags);
    }
    let mut line = action.keyword().to_owned();
    for (name, value) in flags {
        match value {
            Value::Array(values) => {
                for value in values.iter().filter_map(Value::as_str) {
                    line.push_str(&format!(" --{name}={value}"));
                }
            }
            Value::String(value) => line.push_str(&format!(" --{name}={value}")),
            Value::Number(value) => line.push_str(&format!(" --{name}={value}")),
            _ => line.push_str(&format!(" --{name}")),
        }
    }
    for argument in arguments {
        line.push(' ');
        match action {
            Action::Run { .. } | Action::Start { .. } => line.push_str(&argument),
            Action::Env { .. } => line.push_str(&assignment(&argument)),
            _ => line.push_str(&quoted(&argument)),
        }
    }
    line
}

/// `KEY=VALUE` with quotes around the value alone, where it needs them.
fn assignment(argument: &str) -> String {
    match argument.split_once('=') {
        Some((key, value)) if !value.is_empty() => format!("{key}={}", quoted(value)),
        _ => argument.to_owned(),
    }
}

fn arguments(action: &Action) -> Vec<String> {
    match action {
        Action::Run { command, .. } | Action::Start { command } => vec![command.clone()],
        Action::Env { variables } => variables
            .iter()
            .map(|variable| format!("{}={}", variable.key, variable.value))
            .collect(),
        Action::Workdir { path } => vec![path.clone()],
        Action::User { name, .. } => vec![name.clone()],
        Action::Copy { sources, destination, .. } => {
            sources.iter().chain([destination]).cloned().collect()
        }
    }
}

/// The flags that differ from their defaults, as the values of an object's fields.
fn flags(action: &Action) -> Vec<(&'static str, Value)> {
    let mut flags = Vec::new();
    match action {
        Action::Run { timeout_ms, retries, secrets, .. } => {
            if *timeout_ms != RUN_TIMEOUT_DEFAULT_MS {
                flags.push(("timeout", json!(duration::print(*timeout_ms))));
            }
            if *retries != 0 {
                flags.push(("retries", json!(retries)));
            }
            if !secrets.is_empty() {
                flags.push(("secret", json!(secrets)));
            }
        }
        Action::User { sudo: true, .. } => flags.push(("sudo", json!(true))),
        Action::Copy { owner: Some(owner), .. } => {
            let group = owner.group.as_ref().map(|group| format!(":{group}"));
            let owner = format!("{}{}", owner.user, group.unwrap_or_default());
            flags.push(("chown", json!(owner)));
        }
        _ => {}
    }
    flags
}

fn object(keyword: &str, arguments: &[String], flags: Vec<(&'static str, Value)>) -> String {
    // Field by field, so that the order is the documented one whatever `serde_json` is built with.
    let mut line = format!("{{\"type\":{},\"args\":{}", json!(keyword), json!(arguments));
    for (name, value) in flags {
        let field = Map::from_iter([(name.to_owned(), value)]);
        let field = Value::Object(field).to_string();
        line.push(',');
        line.push_str(&field[1..field.len() - 1]);
    }
    line.push('}');
    line
}
