//! Words of the text form with their quotes taken off, and put on again.
//!
//! A word becomes a template: what the quotes made literal is written as `$$`, every variable as `${NAME}`
//! (so that `$A"b"` does not become the variable `Ab`). Commands are not split: they are the shell's.
//!
//! Outside of quotes and in `"…"` a `\` makes the next `\`, `"` or `$` literal, outside of quotes any
//! character; in `'…'` nothing is special.

use crate::{
    diagnostic::Code,
    expand::{Piece, piece_at, pieces},
    lines::{Line, is_blank},
    sink::{At, Sink},
};

/// An argument of a step.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) template: String,
    pub(crate) at: At,
    /// Written without quotes, so `--…` is a flag. Always so in an object.
    pub(crate) bare: bool,
}

/// The words of `line` from byte `from` on.
pub(crate) fn words(line: &Line, from: usize, sink: &mut Sink) -> Vec<Word> {
    let mut splitter = Splitter { line, byte: from, template: String::new(), sink };
    std::iter::from_fn(|| splitter.word()).collect()
}

/// The template in its one canonical form, from an object's text; reports variables without a name.
pub(crate) fn normal_template(text: &str, at: &At, sink: &mut Sink) -> String {
    let mut template = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Ok(piece) => push_piece(&mut template, piece),
            Err(_) => bad_variable(at, sink),
        }
    }
    template
}

/// The word that reads back as `template`.
pub(crate) fn quoted(template: &str) -> String {
    let plain = !template.is_empty()
        && !template.starts_with("--")
        && !template.contains(|c| is_blank(c) || matches!(c, '"' | '\'' | '\\'));
    if plain {
        return template.to_owned();
    }
    format!("\"{}\"", template.replace('\\', "\\\\").replace('"', "\\\""))
}

struct Splitter<'a> {
    line: &'a Line,
    byte: usize,
    template: String,
    sink: &'a mut Sink,
}

impl Splitter<'_> {
    fn peek(&self) -> Option<char> {
        self.line.text[self.byte..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.byte += c.len_utf8();
        Some(c)
    }

    fn word(&mut self) -> Option<Word> {
        self.byte = self.line.skip_blanks(self.byte);
        let at = self.line.at(self.byte);
        let bare = !matches!(self.peek()?, '"' | '\'' | '\\');
        while let Some(c) = self.peek().filter(|&c| !is_blank(c)) {
            match c {
                '$' => self.variable(),
                '"' => self.double_quoted(),
                '\'' => self.single_quoted(),
                '\\' => {
                    self.next();
                    let c = self.next().unwrap_or('\\');
                    self.literal(c);
                }
                _ => {
                    self.next();
                    self.template.push(c);
                }
            }
        }
        let template = std::mem::take(&mut self.template);
        Some(Word { template, at, bare })
    }

    fn single_quoted(&mut self) {
        let open = self.byte;
        self.next();
        loop {
            match self.next() {
                Some('\'') => return,
                Some(c) => self.literal(c),
                None => return self.unterminated(open, '\''),
            }
        }
    }

    fn double_quoted(&mut self) {
        let open = self.byte;
        self.next();
        loop {
            if self.peek() == Some('$') {
                self.variable();
                continue;
            }
            match self.next() {
                Some('"') => return,
                Some('\\') => match self.peek() {
                    Some(c @ ('"' | '\\' | '$')) => {
                        self.next();
                        self.literal(c);
                    }
                    _ => self.template.push('\\'),
                },
                Some(c) => self.template.push(c),
                None => return self.unterminated(open, '"'),
            }
        }
    }

    fn variable(&mut self) {
        let (piece, len) = piece_at(&self.line.text[self.byte..], self.byte);
        match piece {
            Ok(piece) => push_piece(&mut self.template, piece),
            Err(_) => bad_variable(&self.line.at(self.byte), self.sink),
        }
        self.byte += len;
    }

    fn literal(&mut self, c: char) {
        if c == '$' {
            push_piece(&mut self.template, Piece::Dollar);
        } else {
            self.template.push(c);
        }
    }

    fn unterminated(&mut self, open: usize, quote: char) {
        self.sink.error(
            Code::UnterminatedQuote,
            &self.line.at(open),
            format!("the quote {quote} is not closed"),
            format!("close it with another {quote}, or write \\{quote} for the character itself"),
        );
    }
}

fn push_piece(template: &mut String, piece: Piece<'_>) {
    match piece {
        Piece::Text(text) => template.push_str(text),
        Piece::Dollar => template.push_str("$$"),
        Piece::Variable(name) => {
            template.push_str("${");
            template.push_str(name);
            template.push('}');
        }
    }
}

fn bad_variable(at: &At, sink: &mut Sink) {
    sink.error(
        Code::BadVariable,
        at,
        "no variable name follows the `$`",
        "write `$NAME` or `${NAME}`, without a default; a dollar sign itself is `$$`",
    );
}
