//! What a command has written and nobody has acknowledged yet: a bounded queue of bytes with the
//! offset of its first one.
//!
//! It drops no byte but in [`Output::make_room`]. When it is full, [`Output::room`] is 0, its owner
//! stops reading the pipes, and the command blocks in its next write.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use ovenbird_guest_protocol::EXEC_BUFFER;

use crate::error::Error;

/// Changes from one stream to the other that are kept. A command that alternates with every byte
/// fills this before the bytes.
const RUNS_MAX: usize = 8 * 1024;
/// Longest piece that is handed out at once.
const PIECE_MAX: usize = 32 * 1024;

/// Which pipe bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// Bytes of one source in a row.
#[derive(Debug)]
struct Run {
    source: Source,
    len: usize,
}

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) source: Source,
    pub(crate) data: Bytes,
}

/// The unacknowledged output of one command.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: VecDeque<u8>,
    runs: VecDeque<Run>,
    base: u64,
}

impl Output {
    /// Offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes may be pushed now.
    pub(crate) fn room(&self) -> usize {
        if self.runs.len() < RUNS_MAX { EXEC_BUFFER - self.bytes.len() } else { 0 }
    }

    /// Appends at most [`Output::room`] bytes.
    pub(crate) fn push(&mut self, source: Source, data: &[u8]) {
        assert!(data.len() <= self.room(), "nobody reads more than there is room for");
        if data.is_empty() {
            return;
        }
        self.bytes.extend(data);
        match self.runs.back_mut() {
            Some(run) if run.source == source => run.len += data.len(),
            _ => self.runs.push_back(Run { source, len: data.len() }),
        }
    }

    /// Frees the older half when it is full.
    pub(crate) fn make_room(&mut self) {
        if self.room() == 0 {
            let half = self.base + self.bytes.len().div_ceil(2) as u64;
            // It lies before the end.
            let _ = self.ack(half);
        }
    }

    /// Frees everything before `offset`; whether that was anything.
    pub(crate) fn ack(&mut self, offset: u64) -> Result<bool, Error> {
        if offset > self.end() {
            return Err(Error::Beyond { offset, end: self.end() });
        }
        let mut freed = usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX);
        if freed == 0 {
            return Ok(false);
        }
        self.bytes.drain(..freed);
        self.base = offset;
        while let Some(run) = self.runs.front_mut() {
            if run.len > freed {
                run.len -= freed;
                break;
            }
            freed -= run.len;
            self.runs.pop_front();
        }
        Ok(true)
    }

    /// The piece that begins at `offset`, or none when that is the end so far.
    pub(crate) fn piece(&self, offset: u64) -> Result<Option<Piece>, Error> {
        if offset < self.base {
            return Err(Error::Freed { offset, base: self.base });
        }
        if offset > self.end() {
            return Err(Error::Beyond { offset, end: self.end() });
        }
        let from = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        let mut run_end = 0;
        for run in &self.runs {
            run_end += run.len;
            if from < run_end {
                let to = run_end.min(from + PIECE_MAX);
                let mut data = BytesMut::with_capacity(to - from);
                let (front, back) = self.bytes.as_slices();
                let split = front.len();
                data.extend_from_slice(&front[from.min(split)..to.min(split)]);
                data.extend_from_slice(&back[from.max(split) - split..to.max(split) - split]);
                return Ok(Some(Piece { offset, source: run.source, data: data.freeze() }));
            }
        }
        Ok(None)
    }

    /// Gives back memory that nothing will fill any more.
    pub(crate) fn close(&mut self) {
        self.bytes.shrink_to_fit();
        self.runs.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(bool, usize),
        Ack(usize),
        Read(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<bool>(), 0usize..70_000).prop_map(|(source, len)| Step::Push(source, len)),
            (0usize..300_000).prop_map(Step::Ack),
            (0usize..300_000).prop_map(Step::Read),
        ]
    }

    fn source(stderr: bool) -> Source {
        if stderr { Source::Stderr } else { Source::Stdout }
    }

    proptest! {
        /// Against a plain list of every byte that was ever pushed.
        #[test]
        fn kept_bytes_are_those_between_the_last_ack_and_the_end(
            steps in prop::collection::vec(any_step(), 0..60),
        ) {
            let mut output = Output::default();
            let mut all: Vec<(Source, u8)> = Vec::new();
            let mut acked = 0;
            for step in steps {
                match step {
                    Step::Push(stderr, len) => {
                        let len = len.min(output.room());
                        let data: Vec<u8> = (0..len).map(|i| (all.len() + i) as u8).collect();
                        output.push(source(stderr), &data);
                        all.extend(data.into_iter().map(|byte| (source(stderr), byte)));
                    }
                    Step::Ack(offset) if offset <= all.len() => {
                        prop_assert_eq!(output.ack(offset as u64).unwrap(), offset > acked);
                        acked = acked.max(offset);
                    }
                    Step::Ack(offset) => prop_assert!(output.ack(offset as u64).is_err()),
                    Step::Read(from) => {
                        let piece = output.piece(from as u64);
                        prop_assert_eq!(piece.is_err(), from < acked || from > all.len());
                        let Ok(Some(piece)) = piece else {
                            prop_assert!(from >= all.len() || from < acked);
                            continue;
                        };
                        prop_assert!(!piece.data.is_empty() && piece.data.len() <= PIECE_MAX);
                        let expected: Vec<_> = all[from..from + piece.data.len()].to_vec();
                        let read: Vec<_> = piece.data.iter().map(|b| (piece.source, *b)).collect();
                        prop_assert_eq!(read, expected);
                    }
                }
                prop_assert_eq!(output.base, acked as u64);
                prop_assert_eq!(output.end(), all.len() as u64);
                prop_assert!(output.len() <= EXEC_BUFFER && output.runs.len() <= RUNS_MAX);
            }
        }
    }

    #[test]
    fn streams_that_alternate_are_held_back_too_and_freed_by_an_ack() {
        let mut output = Output::default();
        let mut stderr = false;
        while output.room() > 0 {
            output.push(source(stderr), b"x");
            stderr = !stderr;
        }
        assert_eq!(output.len(), RUNS_MAX);
        assert!(output.ack(1).unwrap());
        assert!(output.room() > 0);
    }
}
