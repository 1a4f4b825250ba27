//! A source as logical lines and objects: comments and blank lines left out, continuations joined, every
//! byte's position kept.
//!
//! Does not look into a line: that is `text`'s and `object`'s work.

use std::cell::Cell;

use serde_json::{Map, Value};

use crate::{
    diagnostic::Code,
    limits::{LINE_BYTES_MAX, STEPS_MAX},
    sink::{At, Sink},
    source::{Entry, Source},
};

/// What separates words. Wider than ASCII: a no-break space or byte order mark pasted from a document
/// cannot be seen, and must not become part of a word.
pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

/// Whether the text ends in a backslash that no other backslash escapes.
pub(crate) fn ends_in_backslash(text: &str) -> bool {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// A line after its continuations are joined.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// Where the pieces of `text` come from; never empty, the first at byte 0.
    pieces: Vec<Piece>,
    /// The last position asked for, as byte, its piece's first byte and column: counting goes on from
    /// there, else the positions of a line of n words would cost n² steps.
    last: Cell<(usize, usize, usize)>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    byte: usize,
    line: u32,
}

impl Line {
    fn new(line: u32, text: &str) -> Self {
        let pieces = vec![Piece { byte: 0, line }];
        Self { text: text.to_owned(), pieces, last: Cell::new((0, 0, 1)) }
    }

    /// A text whose line ends are kept.
    pub(crate) fn with_line_ends(text: &str) -> Self {
        let starts = text.match_indices('\n').map(|(byte, _)| byte + 1);
        let pieces = std::iter::once(0)
            .chain(starts)
            .zip(1..)
            .map(|(byte, line)| Piece { byte, line })
            .collect();
        Self { text: text.to_owned(), pieces, last: Cell::new((0, 0, 1)) }
    }

    fn join(&mut self, line: u32, text: &str) {
        self.pieces.push(Piece { byte: self.text.len(), line });
        self.text.push_str(text);
    }

    /// The position of a byte; the text's length is one past its end.
    pub(crate) fn at(&self, byte: usize) -> At {
        let after = self.pieces.partition_point(|piece| piece.byte <= byte);
        let piece = self.pieces[after.saturating_sub(1)];
        let (from, column) = match self.last.get() {
            (last, start, column) if start == piece.byte && last <= byte => (last, column),
            _ => (piece.byte, 1),
        };
        let column = column + self.text[from..byte].chars().count();
        self.last.set((byte, piece.byte, column));
        At::new(piece.line, u32::try_from(column).unwrap_or(u32::MAX))
    }

    /// The first byte from `from` on that is not blank, or the text's length.
    pub(crate) fn skip_blanks(&self, from: usize) -> usize {
        self.text.len() - self.text[from..].trim_start_matches(is_blank).len()
    }

    /// One past the last byte that is not blank.
    pub(crate) fn end(&self) -> usize {
        self.text.trim_end_matches(is_blank).len()
    }
}

/// A part of a source that is meant as a step.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Line(Line),
    Object(At, &'a Map<String, Value>),
    Other(At, &'a Value),
}

impl Item<'_> {
    pub(crate) fn at(&self) -> At {
        match self {
            Self::Line(line) => line.at(line.skip_blanks(0)),
            Self::Object(at, _) | Self::Other(at, _) => at.clone(),
        }
    }
}

/// The items of a source; reports lines that are too long or hold a NUL, and continuations of nothing.
pub(crate) fn items<'a>(source: &'a Source, sink: &mut Sink) -> Vec<Item<'a>> {
    let mut reader = Reader { items: Vec::new(), open: None, number: 0, sink };
    match source {
        Source::Text(text) => reader.text(text),
        Source::List(entries) => {
            for entry in entries {
                reader.entry(entry);
            }
        }
    }
    reader.close_dangling();
    reader.items
}

/// A line that goes on in the next one.
struct Open {
    line: Line,
    /// The backslash that says so.
    at: At,
}

struct Reader<'a, 's> {
    items: Vec<Item<'a>>,
    open: Option<Open>,
    number: u32,
    sink: &'s mut Sink,
}

impl<'a> Reader<'a, '_> {
    fn entry(&mut self, entry: &'a Entry) {
        match entry {
            Entry::Line(text) => self.text(text),
            Entry::Object(object) => {
                self.close_dangling();
                self.number += 1;
                self.keep(Item::Object(At::new(self.number, 1), object));
            }
            Entry::Other(value) => {
                self.close_dangling();
                self.number += 1;
                self.keep(Item::Other(At::new(self.number, 1), value));
            }
        }
    }

    fn text(&mut self, text: &str) {
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.number += 1;
            self.line(line.strip_suffix('\r').unwrap_or(line));
        }
    }

    fn line(&mut self, raw: &str) {
        // In a comment too: Postgres cannot keep such a text.
        if let Some(byte) = raw.find('\0') {
            let at = Line::new(self.number, raw).at(byte);
            nul(&at, self.sink);
        }
        let trimmed = raw.trim_start_matches(is_blank);
        if trimmed.starts_with('#') {
            return;
        }
        if trimmed.is_empty() {
            self.close_dangling();
            return;
        }
        let text = raw.trim_end_matches(is_blank);
        let (text, goes_on) = match text.strip_suffix('\\') {
            Some(before) if ends_in_backslash(text) => (before, true),
            _ => (raw, false),
        };
        let backslash = goes_on.then(|| Line::new(self.number, raw).at(text.len()));
        let line = match self.open.take() {
            Some(Open { mut line, .. }) => {
                line.join(self.number, text);
                line
            }
            None => Line::new(self.number, text),
        };
        match backslash {
            Some(at) => self.open = Some(Open { line, at }),
            None => self.push(line),
        }
    }

    fn push(&mut self, line: Line) {
        if line.text.len() > LINE_BYTES_MAX {
            too_long(&line.at(0), line.text.len(), self.sink);
        } else {
            self.keep(Item::Line(line));
        }
    }

    /// One item over the bound is kept, so that it can be reported.
    fn keep(&mut self, item: Item<'a>) {
        if self.items.len() <= STEPS_MAX {
            self.items.push(item);
        }
    }

    /// Ends an open line that nothing continues.
    fn close_dangling(&mut self) {
        if let Some(Open { line, at }) = self.open.take() {
            dangling(&at, self.sink);
            if !line.text.trim_matches(is_blank).is_empty() {
                self.push(line);
            }
        }
    }
}

pub(crate) fn nul(at: &At, sink: &mut Sink) {
    sink.error(
        Code::NulCharacter,
        at,
        "a character of code 0 cannot be part of a command, a variable or a path",
        "remove it",
    );
}

pub(crate) fn dangling(at: &At, sink: &mut Sink) {
    sink.error(
        Code::DanglingContinuation,
        at,
        "a `\\` at the end of a line joins it with the next one, and nothing follows",
        "remove the `\\`, or the blank line after it",
    );
}

pub(crate) fn too_long(at: &At, bytes: usize, sink: &mut Sink) {
    sink.error(
        Code::LineTooLong,
        at,
        format!("the step has {bytes} bytes; one step has at most {LINE_BYTES_MAX}"),
        "split it into several steps, or download its data in the step",
    );
}
