//! The text form: `KEYWORD --flag=value arguments`, or an object in one line.

use serde_json::Value;

use crate::{
    diagnostic::Code,
    flags,
    lines::{Line, is_blank},
    object,
    sink::Sink,
    statement::{Arguments, Keyword, Statement},
    words,
};

/// Reads a line that is not blank.
pub(crate) fn read(line: &Line, sink: &mut Sink) -> Option<Statement> {
    let start = line.skip_blanks(0);
    let at = line.at(start);
    let rest = &line.text[start..];
    if rest.starts_with('{') {
        return match serde_json::from_str(rest) {
            Ok(Value::Object(object)) => object::read(&object, &at, sink),
            _ => {
                let message = "a line that begins with `{` must be a whole JSON object";
                sink.error(Code::BadObject, &at, message, object::USAGE);
                None
            }
        };
    }
    let word = &rest[..rest.find(is_blank).unwrap_or(rest.len())];
    let keyword = Keyword::read(word, &at, sink)?;
    let (flags, byte) = flags::read(line, start + word.len());
    let arguments = if keyword.takes_command() {
        let text = line.text[byte..].trim_end_matches(is_blank).to_owned();
        Arguments::Command { text, at: line.at(byte) }
    } else {
        Arguments::Words(words::words(line, byte, sink))
    };
    Some(Statement { keyword, at, end: line.at(line.end()), flags, arguments })
}
