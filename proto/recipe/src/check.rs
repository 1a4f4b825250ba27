//! From a statement to an action: what flags and arguments mean, and what is wrong with them.

use crate::{
    Available,
    diagnostic::Code,
    flags::{self, Flags},
    limits,
    names::{self, user_name_is_valid},
    object::misplaced,
    plan::{Action, Owner, Variable},
    sink::{At, Sink, shown},
    statement::{Arguments, Keyword, Statement},
    words::Word,
};

/// The action of a statement. Where something was reported the action is not to be used.
pub(crate) fn action(
    statement: Statement,
    available: Available,
    sink: &mut Sink,
) -> Option<Action> {
    let Statement { keyword, at, end, flags, arguments } = statement;
    let mut flags = flags::check(flags, keyword.flags(), keyword.as_str(), sink);
    match (keyword, arguments) {
        (Keyword::Run, Arguments::Command { text, at }) => {
            require_command(keyword, &text, &at, sink);
            Some(run(text, &mut flags, available, sink))
        }
        (Keyword::Start, Arguments::Command { text, at }) => {
            require_command(keyword, &text, &at, sink);
            Some(Action::Start { command: text })
        }
        (Keyword::Env, Arguments::Words(words)) => env(words, &end, sink),
        (Keyword::Workdir, Arguments::Words(words)) => {
            let word = only(keyword, words, &end, sink)?;
            path(&word, sink);
            Some(Action::Workdir { path: word.template })
        }
        (Keyword::User, Arguments::Words(words)) => {
            let word = only(keyword, words, &end, sink)?;
            user(&word, sink);
            Some(Action::User { name: word.template, sudo: flags.take("sudo").is_some() })
        }
        (Keyword::Copy, Arguments::Words(words)) => {
            if !available.copy {
                let message = "COPY is not available: this installation takes no build contexts";
                let hint = "fetch the files in a RUN step, for instance with curl";
                sink.error(Code::CopyNotAvailable, &at, message, hint);
            }
            copy(words, &mut flags, &end, sink)
        }
        (_, Arguments::Command { .. } | Arguments::Words(_)) => {
            unreachable!("both forms ask Keyword::takes_command which arguments to make")
        }
    }
}

fn require_command(keyword: Keyword, text: &str, at: &At, sink: &mut Sink) {
    if text.is_empty() {
        missing(keyword, at, sink);
    }
}

fn missing(keyword: Keyword, at: &At, sink: &mut Sink) {
    let message = format!("{} lacks what it works on", keyword.as_str());
    sink.error(Code::MissingArgument, at, message, format!("write `{}`", keyword.usage()));
}

fn run(command: String, flags: &mut Flags, available: Available, sink: &mut Sink) -> Action {
    let bounds = (1, limits::RUN_TIMEOUT_DEFAULT_MS, limits::RUN_TIMEOUT_MAX_MS);
    let timeout_ms = flags.duration_ms("timeout", bounds, sink);
    let retries = flags.number("retries", (0, 0, limits::RUN_RETRIES_MAX), sink);
    let mut secrets: Vec<String> = Vec::new();
    while let Some(flag) = flags.take("secret") {
        let name = flag.value.unwrap_or_default();
        if !available.secrets {
            let message = "build secrets are not available in this installation";
            let hint = "remove the flag; never put a secret into the recipe itself";
            sink.error(Code::SecretNotAvailable, &flag.at, message, hint);
        }
        if !names::secret_is_valid(&name) {
            let message = format!("{} is no name of a secret", shown(&name));
            let hint = format!(
                "use letters, digits and `_`, no digit first, at most {}",
                limits::SECRET_NAME_MAX
            );
            sink.error(Code::BadSecretName, &flag.at, message, hint);
        } else if secrets.contains(&name) {
            let message = format!("the secret `{name}` is given twice");
            sink.error(Code::DuplicateFlag, &flag.at, message, "keep one of them");
        } else if secrets.len() == limits::RUN_SECRETS_MAX {
            let message = format!("a step has at most {} secrets", limits::RUN_SECRETS_MAX);
            sink.error(Code::TooManySecrets, &flag.at, message, "split the step");
            break;
        } else {
            secrets.push(name);
        }
    }
    Action::Run { command, timeout_ms, retries, secrets }
}

fn env(words: Vec<Word>, end: &At, sink: &mut Sink) -> Option<Action> {
    if words.is_empty() {
        missing(Keyword::Env, end, sink);
    }
    let mut variables = Vec::with_capacity(words.len());
    for Word { template, at, .. } in words {
        let (key, value) = match template.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (template.as_str(), None),
        };
        if !names::variable_is_valid(key) {
            let message = format!("{} is no name of a variable", shown(key));
            let hint = "write KEY=VALUE: letters, digits and `_` before the `=`, no digit first; \
                        quote a value with blanks: KEY=\"a b\"";
            sink.error(Code::BadEnvKey, &at, message, hint);
        } else if let Some(value) = value {
            variables.push(Variable { key: key.to_owned(), value: value.to_owned() });
        } else {
            let message = format!("the variable {} has no value", shown(key));
            let hint = format!(
                "write {key}=VALUE without blanks around the `=`, or {key}= for an empty one"
            );
            sink.error(Code::MissingEnvValue, &at, message, hint);
        }
    }
    (!variables.is_empty()).then_some(Action::Env { variables })
}

/// The only word; reports flags among the words, and that there are none or too many.
fn only(keyword: Keyword, words: Vec<Word>, end: &At, sink: &mut Sink) -> Option<Word> {
    let words = without_flags(words, sink);
    if let Some(extra) = words.get(1) {
        let message = format!("{} takes one argument, this is another one", keyword.as_str());
        let hint = format!("write `{}`; quote what holds blanks", keyword.usage());
        sink.error(Code::TooManyArguments, &extra.at, message, hint);
    }
    let first = words.into_iter().next();
    if first.is_none() {
        missing(keyword, end, sink);
    }
    first
}

fn without_flags(words: Vec<Word>, sink: &mut Sink) -> Vec<Word> {
    let (flags, words): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| word.bare && word.template.starts_with("--"));
    for flag in flags {
        misplaced(&flag.template, &flag.at, sink);
    }
    words
}

fn path(word: &Word, sink: &mut Sink) {
    if !names::path_is_valid(&word.template) {
        let message =
            if word.template.is_empty() { "the path is empty" } else { "the path is too long" };
        let hint = format!("use a path of 1 to {} bytes", limits::PATH_BYTES_MAX);
        sink.error(Code::BadPath, &word.at, message, hint);
    }
}

fn user(word: &Word, sink: &mut Sink) {
    let name = &word.template;
    if name.contains('$') && name.replace("$$", "").contains('$') || user_name_is_valid(name) {
        return;
    }
    let hint = match name.split_once(':') {
        Some((user, _)) if user_name_is_valid(user) => {
            "a user runs with its own groups; leave out the group".to_owned()
        }
        _ => format!(
            "use small letters, digits, `_` and `-`, a letter or `_` first, at most {}",
            limits::USER_NAME_MAX
        ),
    };
    sink.error(Code::BadUserName, &word.at, format!("{} is no user name", shown(name)), hint);
}

fn copy(words: Vec<Word>, flags: &mut Flags, end: &At, sink: &mut Sink) -> Option<Action> {
    let owner = flags.take("chown").and_then(|flag| owner(&flag, sink));
    let mut words = without_flags(words, sink);
    if words.len() < 2 {
        missing(Keyword::Copy, end, sink);
    }
    let destination = words.pop()?;
    path(&destination, sink);
    for source in &words {
        path(source, sink);
        if !source.template.is_empty()
            && source.template.len() <= limits::PATH_BYTES_MAX
            && !names::context_path_is_valid(&source.template)
        {
            let message = format!("{} is outside of the context", shown(&source.template));
            let hint = "sources are relative to the context's root and stay below it";
            sink.error(Code::BadPath, &source.at, message, hint);
        }
    }
    let sources = words.into_iter().map(|word| word.template).collect();
    Some(Action::Copy { sources, destination: destination.template, owner })
}

fn owner(flag: &flags::Flag, sink: &mut Sink) -> Option<Owner> {
    let text = flag.value.as_deref().unwrap_or_default();
    let owner = names::owner(text);
    if owner.is_none() {
        let message = format!("{} is no owner", shown(text));
        let hint = "use user or user:group, each a name or a number, such as app:app or 1000:1000";
        sink.error(Code::BadChown, &flag.at, message, hint);
    }
    owner
}
