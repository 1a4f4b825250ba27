//! Flags of a step or healthcheck: `--name=value` in text, a field in an object.
//!
//! Checks that they are known, given once and have a value where they take one; what the value means is
//! `check`'s work.

use crate::{
    diagnostic::Code,
    duration,
    lines::{Line, is_blank},
    sink::{At, Sink, nearest, shown},
};

/// A flag that something takes.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// An example of its value; a switch has none.
    pub(crate) example: Option<&'static str>,
    pub(crate) repeats: bool,
}

impl Known {
    pub(crate) const fn value(name: &'static str, example: &'static str) -> Self {
        Self { name, example: Some(example), repeats: false }
    }

    pub(crate) const fn switch(name: &'static str) -> Self {
        Self { name, example: None, repeats: false }
    }

    pub(crate) const fn repeated(name: &'static str, example: &'static str) -> Self {
        Self { name, example: Some(example), repeats: true }
    }

    fn usage(&self) -> String {
        match self.example {
            Some(example) => format!("--{}={example}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// A flag as it stands in the source.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) at: At,
}

/// Reads the flags of `line` from byte `from` on; answers them and where they end.
pub(crate) fn read(line: &Line, from: usize) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut byte = skip(line, from);
    while let Some(rest) = line.text[byte..].strip_prefix("--") {
        let word = &rest[..rest.find(is_blank).unwrap_or(rest.len())];
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        flags.push(Flag { name: name.to_owned(), value, at: line.at(byte) });
        byte = skip(line, byte + 2 + word.len());
    }
    (flags, byte)
}

/// Passes over blanks, and over `\` with a line end after it, which is blank to the shell too (only a
/// healthcheck still holds line ends).
fn skip(line: &Line, from: usize) -> usize {
    let mut byte = line.skip_blanks(from);
    while line.text[byte..].starts_with("\\\n") || line.text[byte..].starts_with("\\\r\n") {
        byte = line.skip_blanks(byte + 1);
    }
    byte
}

/// The flags that are known and well-formed; reports the others. `owner` is what they belong to, for
/// messages.
pub(crate) fn check(flags: Vec<Flag>, known: &[Known], owner: &str, sink: &mut Sink) -> Flags {
    let mut good: Vec<Flag> = Vec::new();
    for flag in flags {
        let Some(spec) = known.iter().find(|spec| spec.name == flag.name) else {
            unknown(&flag, known, owner, sink);
            continue;
        };
        if !spec.repeats && good.iter().any(|before| before.name == flag.name) {
            let message = format!("`--{}` is given twice", flag.name);
            sink.error(Code::DuplicateFlag, &flag.at, message, "keep one of them");
            continue;
        }
        match (spec.example, &flag.value) {
            (Some(_), None) => {
                let message = format!("`--{}` has no value", flag.name);
                let hint = format!("write `{}`, with `=` and without blanks", spec.usage());
                sink.error(Code::BadFlag, &flag.at, message, hint);
            }
            (None, Some(_)) => {
                let message = format!("`--{}` takes no value", flag.name);
                sink.error(Code::BadFlag, &flag.at, message, format!("write `{}`", spec.usage()));
            }
            _ => good.push(flag),
        }
    }
    Flags(good)
}

fn unknown(flag: &Flag, known: &[Known], owner: &str, sink: &mut Sink) {
    let names = || known.iter().map(|spec| spec.name);
    let in_object = flag.at.field.is_some();
    let (code, what, prefix) = if in_object {
        (Code::UnknownField, "field", "")
    } else {
        (Code::UnknownFlag, "flag", "--")
    };
    let message = format!("{owner} has no {what} {}", shown(&format!("{prefix}{}", flag.name)));
    let hint = match nearest(&flag.name, names()) {
        Some(name) => format!("did you mean `{prefix}{name}`?"),
        None if known.is_empty() => format!("{owner} has no {what}s of its own; remove it"),
        None => {
            let all: Vec<_> = names().map(|name| format!("`{prefix}{name}`")).collect();
            format!("{owner} knows {}", all.join(", "))
        }
    };
    sink.error(code, &flag.at, message, hint);
}

/// Checked flags, to be taken by name.
#[derive(Debug)]
pub(crate) struct Flags(Vec<Flag>);

impl Flags {
    pub(crate) fn take(&mut self, name: &str) -> Option<Flag> {
        let index = self.0.iter().position(|flag| flag.name == name)?;
        Some(self.0.remove(index))
    }

    /// A duration within `min..=max` milliseconds, or `default` when it is absent or was reported.
    pub(crate) fn duration_ms(
        &mut self,
        name: &str,
        (min, default, max): (u64, u64, u64),
        sink: &mut Sink,
    ) -> u64 {
        let Some(Flag { value: Some(value), at, .. }) = self.take(name) else { return default };
        let Some(ms) = duration::parse(&value) else {
            let message = format!("{} is not a duration", shown(&value));
            let hint = "write whole numbers with the units h, m, s and ms, such as 90s or 1h30m";
            sink.error(Code::BadDuration, &at, message, hint);
            return default;
        };
        if (min..=max).contains(&ms) {
            return ms;
        }
        let too = if ms < min { "short" } else { "long" };
        let message = format!("{} is too {too} for `{name}`", shown(&value));
        let hint = format!("use {} to {}", duration::print(min), duration::print(max));
        sink.error(Code::DurationOutOfBounds, &at, message, hint);
        default
    }

    /// A number within `min..=max`, or `default` when it is absent or was reported.
    pub(crate) fn number(
        &mut self,
        name: &str,
        (min, default, max): (u32, u32, u32),
        sink: &mut Sink,
    ) -> u32 {
        let Some(Flag { value: Some(value), at, .. }) = self.take(name) else { return default };
        let hint = format!("use a whole number from {min} to {max}");
        if value.is_empty() || value.contains(|c: char| !c.is_ascii_digit()) {
            let message = format!("{} is not a whole number", shown(&value));
            sink.error(Code::BadNumber, &at, message, hint);
            return default;
        }
        match value.parse().ok().filter(|number| (min..=max).contains(number)) {
            Some(number) => number,
            None => {
                let message = format!("{} is out of bounds for `{name}`", shown(&value));
                sink.error(Code::NumberOutOfBounds, &at, message, hint);
                default
            }
        }
    }
}
