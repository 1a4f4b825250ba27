//! The head and the tail of an output, in bounded memory: what a build's row keeps of a step. Pure.

use std::collections::VecDeque;

use ovenbird_contract::{limits::STEP_OUTPUT_KEPT, step::Amount};

/// The last bytes of an output.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    dropped: Amount,
}

impl Tail {
    /// Takes more output; the oldest bytes give way.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(STEP_OUTPUT_KEPT);
        for byte in self.bytes.drain(..surplus) {
            self.dropped.bytes += 1;
            self.dropped.lines += u64::from(byte == b'\n');
        }
    }

    /// The text, invalid UTF-8 replaced; begins at a line's beginning where a line was cut.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let cut = self.dropped.bytes > 0;
        let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let begin = if cut && begin < bytes.len() { begin } else { 0 };
        String::from_utf8_lossy(&bytes[begin..]).trim_end().to_owned()
    }
}

/// The first and the last bytes of an output.
#[derive(Debug, Default)]
pub struct Excerpt {
    head: Vec<u8>,
    tail: Tail,
}

impl Excerpt {
    /// Takes more output.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = STEP_OUTPUT_KEPT.saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        self.tail.push(rest);
    }

    /// What the text leaves out.
    pub fn truncated(&self) -> Amount {
        self.tail.dropped
    }

    /// Head and tail; a line between them says how much is missing there.
    pub fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.tail.dropped.bytes > 0 {
            let dropped = self.tail.dropped;
            let note = format!("\n[… {} bytes, {} lines …]\n", dropped.bytes, dropped.lines);
            bytes.extend_from_slice(note.as_bytes());
        }
        bytes.extend(self.tail.bytes.iter());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_output_is_kept_whole() {
        let mut excerpt = Excerpt::default();
        excerpt.push(b"one\n");
        excerpt.push(b"two\n");
        assert_eq!(excerpt.text(), "one\ntwo\n");
        assert_eq!(excerpt.truncated(), Amount::default());
    }

    #[test]
    fn long_output_keeps_head_and_tail_and_says_what_is_missing() {
        let mut excerpt = Excerpt::default();
        for n in 0..10_000 {
            excerpt.push(format!("{n}\n").as_bytes());
        }
        let text = excerpt.text();
        assert!(text.starts_with("0\n1\n") && text.ends_with("9998\n9999\n"));
        assert!(text.len() < 2 * STEP_OUTPUT_KEPT + 100);
        let truncated = excerpt.truncated();
        assert_eq!(truncated.bytes, 48_890 - 2 * STEP_OUTPUT_KEPT as u64);
        assert!(
            text.contains(&format!("[… {} bytes, {} lines …]", truncated.bytes, truncated.lines))
        );
    }

    #[test]
    fn tail_begins_with_a_whole_line() {
        let mut tail = Tail::default();
        for n in 0..2_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        assert!(tail.text().starts_with("line "));
        assert!(tail.text().ends_with("line 1999"));
    }
}
