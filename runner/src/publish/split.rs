//! Splits one output stream into lines, and long or unfinished lines into parts.
//!
//! Pure: time is given. A part never ends inside of a UTF-8 character unless the line holds nothing else.
//! Offsets are the caller's own; they may have gaps where another stream's bytes lie.

use std::collections::VecDeque;

use ovenbird_contract::limits::{LOG_PARTIAL_LINE_MS, LOG_RECORD_TEXT_MAX};
use tokio::time::{Duration, Instant};

const PARTIAL_LINE: Duration = Duration::from_millis(LOG_PARTIAL_LINE_MS);

/// A line without its newline, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// More of the same line follows.
    pub cont: bool,
    /// Offset behind the part's last byte, its newline included.
    pub next: u64,
}

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub struct Splitter {
    held: Vec<u8>,
    /// Where the held bytes came from: length and first offset.
    origins: VecDeque<(usize, u64)>,
    held_since: Option<Instant>,
    /// A part with `cont` went out, so the line needs an end even when no byte is left.
    open: bool,
    next: u64,
}

impl Splitter {
    /// Goes on from `next`; `open` when a part went out before whose line has not ended.
    pub fn resumed(next: u64, open: bool) -> Self {
        Self { open, next, ..Self::default() }
    }

    /// Takes `data`, whose first byte is at `offset`, and appends the parts that are complete to `parts`.
    pub fn push(&mut self, offset: u64, data: &[u8], now: Instant, parts: &mut Vec<Part>) {
        let mut rest = data;
        let mut at = offset;
        while let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(length);
            if self.held.is_empty() && length <= LOG_RECORD_TEXT_MAX {
                parts.push(Part {
                    bytes: line.to_vec(),
                    cont: false,
                    next: at + length as u64 + 1,
                });
            } else {
                self.hold(at, line, now);
                self.cut_long(parts);
                let bytes = std::mem::take(&mut self.held);
                parts.push(Part { bytes, cont: false, next: at + length as u64 + 1 });
            }
            self.origins.clear();
            self.held_since = None;
            self.open = false;
            at += length as u64 + 1;
            rest = &after[1..];
        }
        if !rest.is_empty() {
            self.hold(at, rest, now);
            self.cut_long(parts);
        }
        self.next = offset + data.len() as u64;
    }

    /// When the unfinished line has waited long enough.
    pub fn due(&self) -> Option<Instant> {
        self.held_since.map(|since| since + PARTIAL_LINE)
    }

    /// Offset of the first byte that is in no part yet.
    pub fn held_from(&self) -> Option<u64> {
        self.origins.front().map(|(_, offset)| *offset)
    }

    /// What is there of the unfinished line, as a part that more follows.
    pub fn flush(&mut self, now: Instant) -> Option<Part> {
        if self.held.is_empty() {
            return None;
        }
        let part = self.take(whole_characters(&self.held, self.held.len()));
        // What stays is the beginning of a character; it gets its own second.
        self.held_since = (!self.held.is_empty()).then_some(now);
        Some(part)
    }

    /// The stream has ended: what is left of it.
    pub fn finish(&mut self) -> Option<Part> {
        if self.held.is_empty() && !self.open {
            return None;
        }
        let next =
            self.origins.back().map_or(self.next, |(length, offset)| offset + *length as u64);
        self.origins.clear();
        self.held_since = None;
        self.open = false;
        Some(Part { bytes: std::mem::take(&mut self.held), cont: false, next })
    }

    fn hold(&mut self, offset: u64, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.held_since.get_or_insert(now);
        self.held.extend_from_slice(bytes);
        self.origins.push_back((bytes.len(), offset));
    }

    fn cut_long(&mut self, parts: &mut Vec<Part>) {
        while self.held.len() > LOG_RECORD_TEXT_MAX {
            let length = whole_characters(&self.held, LOG_RECORD_TEXT_MAX);
            parts.push(self.take(length));
        }
    }

    fn take(&mut self, length: usize) -> Part {
        let rest = self.held.split_off(length);
        let bytes = std::mem::replace(&mut self.held, rest);
        let mut left = length;
        let mut next = self.next;
        while let Some((held, offset)) = self.origins.pop_front() {
            let taken = held.min(left);
            next = offset + taken as u64;
            left -= taken;
            if taken < held {
                self.origins.push_front((held - taken, next));
            }
            if left == 0 {
                break;
            }
        }
        self.open = true;
        Part { bytes, cont: true, next }
    }
}

/// The most of `bytes[..limit]` that ends with a whole character; all of it when there is none.
fn whole_characters(bytes: &[u8], limit: usize) -> usize {
    for back in 1..=3.min(limit) {
        let byte = bytes[limit - back];
        let width = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => break,
        };
        if width > back && limit > back {
            return limit - back;
        }
        break;
    }
    limit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[Vec<u8>], flush_every: usize) -> Vec<Part> {
        let now = Instant::now();
        let mut splitter = Splitter::default();
        let mut parts = Vec::new();
        let mut offset = 0;
        for (n, chunk) in chunks.iter().enumerate() {
            splitter.push(offset, chunk, now, &mut parts);
            offset += chunk.len() as u64;
            if flush_every > 0 && n % flush_every == 0 {
                parts.extend(splitter.flush(now));
            }
        }
        parts.extend(splitter.finish());
        assert_eq!(splitter.held_from(), None);
        assert_eq!(splitter.due(), None);
        parts
    }

    fn joined(parts: &[Part]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&part.bytes);
            if !part.cont {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte =
            prop_oneof![4 => any::<u8>(), 1 => Just(b'\n'), 2 => Just(0xe2u8), 2 => Just(0x82)];
        let small = proptest::collection::vec(byte, 0..40);
        let large = (0usize..40_000).prop_map(|length| vec![b'x'; length]);
        proptest::collection::vec(prop_oneof![8 => small, 1 => large], 0..30)
    }

    proptest! {
        #[test]
        fn parts_joined_are_the_output(chunks in chunks(), flush_every in 0usize..4) {
            let whole: Vec<u8> = chunks.concat();
            let parts = all(&chunks, flush_every);
            let mut expected = whole.clone();
            if !expected.is_empty() && !expected.ends_with(b"\n") {
                expected.push(b'\n');
            }
            prop_assert_eq!(joined(&parts), expected);
            prop_assert!(parts.iter().all(|part| part.bytes.len() <= LOG_RECORD_TEXT_MAX));
            prop_assert!(parts.iter().all(|part| !part.bytes.contains(&b'\n')));
            prop_assert!(parts.is_sorted_by_key(|part| part.next));
            prop_assert_eq!(parts.last().map_or(0, |part| part.next), whole.len() as u64);
        }

        #[test]
        fn text_stays_text_in_its_parts(text in "[a-zß€😀\n]{0,200}", size in 1usize..7) {
            let chunks: Vec<Vec<u8>> = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            // The first byte of a character may have to go alone only when the line holds nothing else.
            for part in all(&chunks, 0) {
                prop_assert!(std::str::from_utf8(&part.bytes).is_ok());
            }
        }
    }

    #[test]
    fn long_line_goes_out_in_parts_between_characters() {
        let line = "€".repeat(LOG_RECORD_TEXT_MAX);
        let parts = all(&[format!("{line}\n").into_bytes()], 0);
        assert_eq!(parts.len(), 4);
        assert!(parts.iter().all(|part| std::str::from_utf8(&part.bytes).is_ok()));
        assert_eq!(parts.iter().filter(|part| !part.cont).count(), 1);
    }

    #[test]
    fn unfinished_line_is_due_after_its_second_and_ends_later() {
        let now = Instant::now();
        let mut splitter = Splitter::default();
        let mut parts = Vec::new();
        splitter.push(0, b"50 %", now, &mut parts);
        assert_eq!(splitter.due(), Some(now + PARTIAL_LINE));
        let part = splitter.flush(now + PARTIAL_LINE).unwrap();
        assert_eq!((part.bytes.as_slice(), part.cont, part.next), (b"50 %".as_slice(), true, 4));
        splitter.push(9, b"\n", now, &mut parts);
        assert_eq!(parts, [Part { bytes: Vec::new(), cont: false, next: 10 }]);
        assert_eq!(splitter.finish(), None);
    }
}
