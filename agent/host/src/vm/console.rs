//! What a guest wrote to its console, made fit for a message.
//!
//! The console is a ring of fixed size inside QEMU: a guest that writes without end fills nothing.

/// The ring's size in bytes, a power of two.
pub(super) const RING_BYTES: usize = 64 * 1024;

/// The last `max` bytes of `raw` as printable text, cut at a line where possible.
pub(super) fn tail(raw: &[u8], max: usize) -> String {
    let start = raw.len().saturating_sub(max);
    let kept = &raw[start..];
    let whole_lines = match kept.iter().position(|byte| *byte == b'\n') {
        Some(end) if start > 0 => &kept[end + 1..],
        _ => kept,
    };
    let text = String::from_utf8_lossy(whole_lines);
    let printable = |c: &char| *c == '\n' || *c == '\t' || !c.is_control();
    text.chars().filter(printable).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn short_console_is_kept_whole_without_control_characters() {
        assert_eq!(tail(b"a\x1b[0m\r\nb\x00\n", 100), "a[0m\nb");
    }

    #[test]
    fn long_console_keeps_its_last_whole_lines() {
        assert_eq!(tail(b"first\nsecond\nthird\n", 12), "third");
        assert_eq!(tail(b"nolineatall", 4), "tall");
        assert_eq!(tail(b"", 4), "");
    }
}
