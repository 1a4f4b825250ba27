//! A step as it was written, in either form: keyword, flags, arguments, each with its place.
//!
//! What both forms share, before anything is judged.

use crate::{
    flags::{Flag, Known},
    sink::{At, Sink, nearest, shown},
    words::Word,
};

/// The steps of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Run,
    Start,
    Env,
    Workdir,
    User,
    Copy,
}

impl Keyword {
    const ALL: [Self; 6] =
        [Self::Run, Self::Start, Self::Env, Self::Workdir, Self::User, Self::Copy];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Run => "RUN",
            Self::Start => "START",
            Self::Env => "ENV",
            Self::Workdir => "WORKDIR",
            Self::User => "USER",
            Self::Copy => "COPY",
        }
    }

    /// How a step of it is written, for hints.
    pub(crate) fn usage(self) -> &'static str {
        match self {
            Self::Run => "RUN [--timeout=5m] [--retries=2] [--secret=NAME] <sh command>",
            Self::Start => "START <sh command>",
            Self::Env => "ENV KEY=VALUE …",
            Self::Workdir => "WORKDIR <path>",
            Self::User => "USER [--sudo] <name>",
            Self::Copy => "COPY [--chown=user:group] <source> … <destination>",
        }
    }

    pub(crate) fn flags(self) -> &'static [Known] {
        const RUN: &[Known] = &[
            Known::value("timeout", "5m"),
            Known::value("retries", "2"),
            Known::repeated("secret", "NAME"),
        ];
        const USER: &[Known] = &[Known::switch("sudo")];
        const COPY: &[Known] = &[Known::value("chown", "user:group")];
        match self {
            Self::Run => RUN,
            Self::User => USER,
            Self::Copy => COPY,
            Self::Start | Self::Env | Self::Workdir => &[],
        }
    }

    /// Whether its argument is one command for the shell rather than words.
    pub(crate) fn takes_command(self) -> bool {
        matches!(self, Self::Run | Self::Start)
    }

    /// The keyword that `word` is, else reports it.
    pub(crate) fn read(word: &str, at: &At, sink: &mut Sink) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|keyword| keyword.as_str() == word);
        if found.is_none() {
            let message = format!("there is no step {}", shown(word));
            sink.error(crate::Code::UnknownStep, at, message, unknown_hint(word));
        }
        found
    }
}

fn unknown_hint(word: &str) -> String {
    let elsewhere = match word.to_ascii_uppercase().as_str() {
        "FROM" => "the base is the build's `base_template`; remove the line",
        "CMD" | "ENTRYPOINT" => "a process that the template keeps running is written START",
        "HEALTHCHECK" => "the healthcheck is a field of the build, beside the recipe",
        "ADD" => "use COPY, or RUN with curl for a download",
        "ARG" => "use ENV",
        "EXPOSE" => "every port of a sandbox can be reached; remove the line",
        _ => match nearest(word, Keyword::ALL.map(Keyword::as_str)) {
            Some(name) => return format!("did you mean {name}?"),
            None => {
                "steps are RUN, START, ENV, WORKDIR, USER and COPY, in capitals; \
                 a command stands after RUN"
            }
        },
    };
    elsewhere.to_owned()
}

/// A step as it was written.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) keyword: Keyword,
    /// Where it begins.
    pub(crate) at: At,
    /// Where something that is missing would stand.
    pub(crate) end: At,
    pub(crate) flags: Vec<Flag>,
    pub(crate) arguments: Arguments,
}

/// What a step works on.
#[derive(Debug)]
pub(crate) enum Arguments {
    /// Of [`Keyword::takes_command`]; without blanks around it, may be empty.
    Command { text: String, at: At },
    /// Of all others.
    Words(Vec<Word>),
}
