//! One command's output: both streams split into lines, each with the marks from which another runner
//! could go on once the line is in the log. Pure.
//!
//! Offsets count the bytes of both streams together. A stream's mark is the first of its bytes that is not
//! in the log; the smaller mark is what the guest may forget up to, and where an attach begins again.

use ovenbird_agent_client::OutputStream;
use ovenbird_contract::{log::Resume, step::Amount};
use tokio::time::Instant;

use super::split::{Part, Splitter};

/// An unfinished line of one stream goes out when the other has written this much meanwhile: it would hold
/// the guest's buffer, which is not much larger, and so the command.
pub(super) const SPAN_MAX: u64 = 64 * 1024;

/// Where another runner goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Everything of stdout below this offset is in the log, or cut.
    pub stdout: u64,
    /// Everything of stderr below this offset is in the log, or cut.
    pub stderr: u64,
    /// The last line of stdout in the log is only the first part of one.
    pub stdout_open: bool,
    /// The same of stderr.
    pub stderr_open: bool,
    /// How much is in the log.
    pub logged: Amount,
    /// How much is cut.
    pub cut: Amount,
}

impl Marks {
    /// Everything below this offset is in the log, or cut.
    pub fn low(self) -> u64 {
        self.stdout.min(self.stderr)
    }
}

impl From<&Resume> for Marks {
    fn from(resume: &Resume) -> Self {
        Self {
            stdout: resume.stdout,
            stderr: resume.stderr,
            stdout_open: resume.stdout_open,
            stderr_open: resume.stderr_open,
            logged: resume.logged,
            cut: resume.cut,
        }
    }
}

/// A line, or a part of one, of one of the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// Which stream.
    pub stream: OutputStream,
    /// Its bytes, without the newline.
    pub bytes: Vec<u8>,
    /// More of the same line follows.
    pub cont: bool,
    /// The marks once this line is in the log. How much is there, [`Cap`](super::Cap) says.
    pub marks: Marks,
}

/// The state between two pieces of output.
#[derive(Debug, Default)]
pub struct Output {
    stdout: Side,
    stderr: Side,
    /// Everything below this offset was taken.
    seen: u64,
}

#[derive(Debug, Default)]
struct Side {
    splitter: Splitter,
    /// What lies below was logged before this runner began.
    logged: u64,
    /// The last part that went out has more to follow.
    open: bool,
}

impl Side {
    fn mark(&self, seen: u64) -> u64 {
        self.splitter.held_from().unwrap_or(seen).max(self.logged)
    }
}

impl Output {
    /// Goes on from the marks of a runner before; [`Marks::default`] begins.
    pub fn resume(marks: Marks) -> Self {
        let side = |logged, open| Side { splitter: Splitter::resumed(logged, open), logged, open };
        Self {
            stdout: side(marks.stdout, marks.stdout_open),
            stderr: side(marks.stderr, marks.stderr_open),
            seen: marks.low(),
        }
    }

    /// Where to attach: everything below was taken.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes a piece of output. What was taken before is skipped. Answers how many bytes are missing before
    /// the piece; 0 unless the guest lost some.
    pub fn push(
        &mut self,
        offset: u64,
        stream: OutputStream,
        data: &[u8],
        now: Instant,
        lines: &mut Vec<OutputLine>,
    ) -> u64 {
        let end = offset + data.len() as u64;
        let missing = offset.saturating_sub(self.seen);
        let fresh = self.fresh(offset, stream, data);
        let from = end - fresh.len() as u64;
        if !fresh.is_empty() {
            let mut parts = Vec::new();
            self.side(stream).splitter.push(from, fresh, now, &mut parts);
            self.collect(stream, parts, from, lines);
        }
        self.seen = self.seen.max(end);
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let held = self.side(stream).splitter.held_from();
            if held.is_some_and(|held| self.seen - held > SPAN_MAX) {
                let part = self.side(stream).splitter.flush(now);
                self.collect(stream, part, self.seen, lines);
            }
        }
        missing
    }

    /// What of a piece of output was not taken before, by this runner or the one before.
    pub fn fresh<'a>(&self, offset: u64, stream: OutputStream, data: &'a [u8]) -> &'a [u8] {
        let logged = match stream {
            OutputStream::Stdout => self.stdout.logged,
            OutputStream::Stderr => self.stderr.logged,
        };
        let taken = self.seen.max(logged).saturating_sub(offset);
        let taken = usize::try_from(taken).unwrap_or(data.len()).min(data.len());
        &data[taken..]
    }

    /// When to call [`Output::flush`].
    pub fn due(&self) -> Option<Instant> {
        [self.stdout.splitter.due(), self.stderr.splitter.due()].into_iter().flatten().min()
    }

    /// Takes out the unfinished lines that waited long enough.
    pub fn flush(&mut self, now: Instant, lines: &mut Vec<OutputLine>) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let splitter = &mut self.side(stream).splitter;
            if splitter.due().is_some_and(|due| due <= now) {
                let part = splitter.flush(now);
                self.collect(stream, part, self.seen, lines);
            }
        }
    }

    /// The command has ended: takes out what is left.
    pub fn finish(&mut self, lines: &mut Vec<OutputLine>) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let part = self.side(stream).splitter.finish();
            self.collect(stream, part, self.seen, lines);
        }
    }

    fn side(&mut self, stream: OutputStream) -> &mut Side {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// `seen` is up to where the other stream is known; at least to the end of each part, because a piece
    /// of output is of one stream only.
    fn collect(
        &mut self,
        stream: OutputStream,
        parts: impl IntoIterator<Item = Part>,
        seen: u64,
        lines: &mut Vec<OutputLine>,
    ) {
        for part in parts {
            let seen = seen.max(part.next);
            self.side(stream).open = part.cont;
            let (stdout_open, stderr_open) = (self.stdout.open, self.stderr.open);
            let (stdout, stderr) = match stream {
                OutputStream::Stdout => (part.next, self.stderr.mark(seen)),
                OutputStream::Stderr => (self.stdout.mark(seen), part.next),
            };
            let marks = Marks { stdout, stderr, stdout_open, stderr_open, ..Marks::default() };
            lines.push(OutputLine { stream, bytes: part.bytes, cont: part.cont, marks });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Duration;

    use super::*;

    #[derive(Debug, Clone)]
    struct Piece {
        stream: OutputStream,
        data: Vec<u8>,
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let stream = prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)];
        let byte = prop_oneof![6 => b'a'..=b'z', 1 => Just(b'\n')];
        let piece = (stream, proptest::collection::vec(byte, 1..30))
            .prop_map(|(stream, data)| Piece { stream, data });
        proptest::collection::vec(piece, 0..40)
    }

    /// What an agent sends to an attach from `from`.
    fn attach(output: &mut Output, pieces: &[Piece], from: u64, lines: &mut Vec<OutputLine>) {
        attach_slowly(output, pieces, &[false], from, lines);
    }

    /// As `attach`; where a pause is true, unfinished lines wait too long after the piece.
    fn attach_slowly(
        output: &mut Output,
        pieces: &[Piece],
        pauses: &[bool],
        from: u64,
        lines: &mut Vec<OutputLine>,
    ) {
        let mut offset = 0;
        for (piece, pause) in pieces.iter().zip(pauses.iter().cycle()) {
            let end = offset + piece.data.len() as u64;
            if end > from {
                let begin = from.max(offset);
                let data = &piece.data[usize::try_from(begin - offset).unwrap()..];
                assert_eq!(output.push(begin, piece.stream, data, Instant::now(), lines), 0);
                if *pause {
                    output.flush(Instant::now() + Duration::from_secs(60), lines);
                }
            }
            offset = end;
        }
    }

    fn text(lines: &[OutputLine], stream: OutputStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines.iter().filter(|line| line.stream == stream) {
            bytes.extend_from_slice(&line.bytes);
            if !line.cont {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn another_runner_goes_on_after_any_line_and_nothing_is_lost_or_doubled(
            pieces in pieces(),
            pauses in proptest::collection::vec(any::<bool>(), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut whole = Vec::new();
            let mut output = Output::default();
            attach_slowly(&mut output, &pieces, &pauses, 0, &mut whole);
            output.finish(&mut whole);

            let kept = if whole.is_empty() { 0 } else { cut.index(whole.len()) + 1 };
            let mut lines = whole[..kept].to_vec();
            let marks = lines.last().map_or(Marks::default(), |line| line.marks);
            let mut next = Output::resume(marks);
            let from = next.seen();
            attach(&mut next, &pieces, from, &mut lines);
            next.finish(&mut lines);
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                prop_assert_eq!(text(&lines, stream), text(&whole, stream));
            }
        }

        #[test]
        fn attaching_again_at_an_earlier_offset_doubles_nothing(pieces in pieces(), back in 0u64..50) {
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            let mut output = Output::default();
            attach(&mut output, &pieces, 0, &mut once);
            output.finish(&mut once);
            let mut output = Output::default();
            attach(&mut output, &pieces, 0, &mut twice);
            let from = output.seen().saturating_sub(back);
            attach(&mut output, &pieces, from, &mut twice);
            output.finish(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn unfinished_line_does_not_hold_the_buffer_of_a_loud_other_stream() {
        let now = Instant::now();
        let (mut output, mut lines) = (Output::default(), Vec::new());
        output.push(0, OutputStream::Stderr, b"working", now, &mut lines);
        let loud = b"0123456789abcde\n".repeat(4096);
        output.push(7, OutputStream::Stdout, &loud, now, &mut lines);
        let end = 7 + loud.len() as u64;
        assert_eq!(lines.last().map(|line| line.stream), Some(OutputStream::Stderr));
        assert_eq!(lines.last().map(|line| line.marks.low()), Some(7));
        output.push(end, OutputStream::Stdout, b"more\n", now, &mut lines);
        assert_eq!(lines.last().map(|line| line.marks.low()), Some(end + 5));
    }

    #[test]
    fn bytes_that_the_guest_lost_are_counted() {
        let (mut output, mut lines) = (Output::default(), Vec::new());
        assert_eq!(output.push(10, OutputStream::Stdout, b"x\n", Instant::now(), &mut lines), 10);
    }
}
