//! HELLO and its reply: the handshake that finds the start of a session in a byte stream that may
//! have been cut anywhere.
//!
//! The port has no connections of its own. A snapshot, a restore or a killed host process can leave
//! half a frame of an old session in it, so the guest throws bytes away until it has seen a whole
//! HELLO (which begins with the token only the two sides know), and the host until it has seen the
//! reply to its own nonce:
//!
//! ```text
//!  HELLO  token 16 | protocol 2 | length 2 | arrival 1 | 0 1 | nonce 16 | unix ns 8 | entropy 32 | crc 4
//!  reply  magic  8 | protocol 2 | length 2 | nonce  16 | boot id 16                              | crc 4
//! ```
//!
//! Numbers are little-endian, `length` is that of the whole frame, the checksum (CRC-32) covers all
//! before it. These are pure functions; who reads and writes is decided elsewhere.

use std::fmt;

/// Length of a [`Token`] and of a nonce, in bytes.
pub const TOKEN_LEN: usize = 16;
/// Longest frame that is believed. A longer one is taken for noise.
pub const FRAME_MAX: usize = 256;

const MAGIC: [u8; 8] = *b"OVNBIRD\x01";
const HELLO_LEN: usize = TOKEN_LEN + 2 + 2 + 2 + 16 + 8 + 32 + 4;
const REPLY_LEN: usize = 8 + 2 + 2 + 16 + 16 + 4;

/// The secret of one microVM, drawn by the host and given on the kernel command line
/// (`ovenbird.token=`). Forks share that of the VM their snapshot was made from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; TOKEN_LEN]);

impl Token {
    /// A token of these bytes, which must be random.
    pub const fn new(bytes: [u8; TOKEN_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads the 32 hexadecimal digits of [`Token::to_hex`].
    ///
    /// # Errors
    /// When `text` is anything else.
    pub fn from_hex(text: &str) -> Result<Self, BadToken> {
        let digits = text.as_bytes();
        if digits.len() != 2 * TOKEN_LEN {
            return Err(BadToken);
        }
        let mut bytes = [0; TOKEN_LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(BadToken);
            *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).map_err(|_| BadToken)?;
        }
        Ok(Self(bytes))
    }

    /// As it stands on the kernel command line and in a snapshot's manifest.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a read begins a new session: the guest's reset rule. On an immediate reconnect the
    /// guest often sees no hang-up at all, so nothing else tells it at once.
    pub fn starts(&self, read: &[u8]) -> bool {
        read.starts_with(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([secret])")
    }
}

/// A text is not a token: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is 32 hexadecimal digits")]
pub struct BadToken;

/// How the guest came to the moment of this HELLO. It always sets its clock and reseeds; the rest is
/// for its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It booted, or the host only lost the connection.
    Running,
    /// It was stopped for a while and continued.
    Resumed,
    /// It was restored from a snapshot, perhaps as one of several forks.
    Restored,
}

/// What the host says first.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The host's [`crate::PROTOCOL`].
    pub protocol: u16,
    /// How the guest came to be here.
    pub arrival: Arrival,
    /// Comes back in the [`Reply`]: tells it from one that answered an older session.
    pub nonce: [u8; 16],
    /// The host's wall clock, in nanoseconds since 1970.
    pub unix_nanos: u64,
    /// Random bytes for the guest's generator: two forks would otherwise draw the same ones.
    pub entropy: [u8; 32],
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("protocol", &self.protocol)
            .field("arrival", &self.arrival)
            .field("unix_nanos", &self.unix_nanos)
            .finish_non_exhaustive()
    }
}

/// What the guest answers before it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The guest's [`crate::PROTOCOL`].
    pub protocol: u16,
    /// The nonce of the [`Hello`] it answers.
    pub nonce: [u8; 16],
    /// Drawn by the guest at boot; all forks of one snapshot have the same.
    pub boot_id: [u8; 16],
}

/// What a search through received bytes found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search<T> {
    /// A whole frame. Bytes from `end` on belong to the session that it opens.
    Found {
        /// The frame.
        frame: T,
        /// Where it ended in the bytes.
        end: usize,
    },
    /// None yet. The first `discard` bytes can belong to no frame and may be thrown away.
    More {
        /// How many.
        discard: usize,
    },
}

impl Hello {
    /// The frame as it is written, in one piece.
    pub fn encode(&self, token: &Token) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HELLO_LEN);
        frame.extend(token.0);
        frame.extend(self.protocol.to_le_bytes());
        frame.extend(length(HELLO_LEN));
        frame.push(match self.arrival {
            Arrival::Running => 0,
            Arrival::Resumed => 1,
            Arrival::Restored => 2,
        });
        frame.push(0);
        frame.extend(self.nonce);
        frame.extend(self.unix_nanos.to_le_bytes());
        frame.extend(self.entropy);
        frame.extend(crc32(&frame).to_le_bytes());
        frame
    }

    /// Looks for the first whole HELLO with this token.
    pub fn search(token: &Token, bytes: &[u8]) -> Search<Self> {
        search(&token.0, HELLO_LEN, bytes, |protocol, body| {
            let mut body = Body(body);
            Self {
                protocol,
                arrival: match body.take::<2>()[0] {
                    1 => Arrival::Resumed,
                    2 => Arrival::Restored,
                    _ => Arrival::Running,
                },
                nonce: body.take(),
                unix_nanos: u64::from_le_bytes(body.take()),
                entropy: body.take(),
            }
        })
    }
}

impl Reply {
    /// The frame as it is written, in one piece.
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(REPLY_LEN);
        frame.extend(MAGIC);
        frame.extend(self.protocol.to_le_bytes());
        frame.extend(length(REPLY_LEN));
        frame.extend(self.nonce);
        frame.extend(self.boot_id);
        frame.extend(crc32(&frame).to_le_bytes());
        frame
    }

    /// Looks for the first whole reply to this nonce. Replies to other nonces are noise.
    pub fn search(nonce: &[u8; 16], bytes: &[u8]) -> Search<Self> {
        let mut from = 0;
        loop {
            let found = search(&MAGIC, REPLY_LEN, &bytes[from..], |protocol, body| {
                let mut body = Body(body);
                Self { protocol, nonce: body.take(), boot_id: body.take() }
            });
            match found {
                Search::Found { frame, end } if frame.nonce == *nonce => {
                    return Search::Found { frame, end: from + end };
                }
                Search::Found { end, .. } => from += end,
                Search::More { discard } => return Search::More { discard: from + discard },
            }
        }
    }
}

/// The fields between a frame's length and its checksum, taken one after the other. The search made
/// sure that they are there.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("a frame has its least length");
        self.0 = rest;
        *field
    }
}

/// Finds the first frame that begins with `start`, is at least `least` long and has a right checksum.
fn search<T>(
    start: &[u8],
    least: usize,
    bytes: &[u8],
    read: impl Fn(u16, &[u8]) -> T,
) -> Search<T> {
    let mut at = 0;
    loop {
        let candidate = &bytes[at..];
        let header = start.len();
        if candidate.len() < header + 4 {
            // Too short to tell. Only what begins like a frame is worth keeping.
            let known = candidate.len().min(header);
            if candidate[..known] == start[..known] {
                return Search::More { discard: at };
            }
        } else if candidate.starts_with(start) {
            let number = |i: usize| u16::from_le_bytes([candidate[i], candidate[i + 1]]);
            let (protocol, length) = (number(header), usize::from(number(header + 2)));
            if (least..=FRAME_MAX).contains(&length) {
                if candidate.len() < length {
                    return Search::More { discard: at };
                }
                let (checked, sum) = candidate[..length].split_at(length - 4);
                if crc32(checked).to_le_bytes() == sum {
                    let frame = read(protocol, &checked[header + 4..]);
                    return Search::Found { frame, end: at + length };
                }
            }
        }
        if candidate.is_empty() {
            return Search::More { discard: at };
        }
        at += 1;
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a frame is shorter than FRAME_MAX").to_le_bytes()
}

/// CRC-32 as in zlib, bit by bit: it runs over eighty bytes once per connection.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_token() -> impl Strategy<Value = Token> {
        // All-equal tokens are the worst case for a search: every offset looks like a start.
        prop_oneof![any::<[u8; 16]>(), Just([0; 16]), Just([7; 16])].prop_map(Token::new)
    }

    prop_compose! {
        fn any_hello()(
            protocol in any::<u16>(),
            arrival in prop_oneof![Just(Arrival::Running), Just(Arrival::Resumed), Just(Arrival::Restored)],
            nonce in any::<[u8; 16]>(),
            unix_nanos in any::<u64>(),
            entropy in any::<[u8; 32]>(),
        ) -> Hello {
            Hello { protocol, arrival, nonce, unix_nanos, entropy }
        }
    }

    /// Feeds `bytes` in pieces as a reader would, throwing away what the search says.
    fn feed<T>(
        bytes: &[u8],
        piece: usize,
        mut look: impl FnMut(&[u8]) -> Search<T>,
    ) -> Option<(T, Vec<u8>)> {
        let mut kept = Vec::new();
        let mut pieces = bytes.chunks(piece);
        loop {
            match look(&kept) {
                Search::Found { frame, end } => {
                    let mut rest = kept.split_off(end);
                    pieces.for_each(|piece| rest.extend(piece));
                    return Some((frame, rest));
                }
                Search::More { discard } => {
                    kept.drain(..discard);
                    assert!(kept.len() < FRAME_MAX, "what is kept is bounded");
                }
            }
            kept.extend(pieces.next()?);
        }
    }

    proptest! {
        #[test]
        fn hello_is_found_after_noise_in_any_pieces(
            token in any_token(), hello in any_hello(), piece in 1usize..200,
            noise in prop::collection::vec(any::<u8>(), 0..300),
            after in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let bytes = [noise, hello.encode(&token), after.clone()].concat();
            let (found, rest) = feed(&bytes, piece, |kept| Hello::search(&token, kept)).unwrap();
            prop_assert_eq!(found, hello);
            prop_assert_eq!(rest, after);
        }

        #[test]
        fn hello_that_was_cut_does_not_hide_the_next(
            token in any::<[u8; 16]>().prop_map(Token::new), first in any_hello(), second in any_hello(),
            cut in 20usize..HELLO_LEN, piece in 1usize..200,
        ) {
            let bytes = [&first.encode(&token)[..cut], &second.encode(&token)].concat();
            let (found, rest) = feed(&bytes, piece, |kept| Hello::search(&token, kept)).unwrap();
            prop_assert_eq!(found, second);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn reply_to_an_older_nonce_is_passed_over(
            nonce in any::<[u8; 16]>(), older in any::<[u8; 16]>(), boot_id in any::<[u8; 16]>(),
            noise in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..200,
        ) {
            prop_assume!(nonce != older);
            let reply = Reply { protocol: 1, nonce, boot_id };
            let stale = Reply { nonce: older, ..reply.clone() }.encode();
            let bytes = [noise, stale, reply.encode()].concat();
            let (found, _) = feed(&bytes, piece, |kept| Reply::search(&nonce, kept)).unwrap();
            prop_assert_eq!(found, reply);
        }

        #[test]
        fn noise_is_no_frame_and_never_panics(
            token in any_token(), bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let hello = Hello::search(&token, &bytes);
            let within = matches!(hello, Search::More { discard } if discard <= bytes.len());
            prop_assert!(within);
            let none = matches!(Reply::search(&[0; 16], &bytes), Search::More { .. });
            prop_assert!(none);
        }

        #[test]
        fn fields_that_a_newer_host_adds_are_skipped(
            token in any_token(), hello in any_hello(), added in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut frame = hello.encode(&token);
            frame.truncate(HELLO_LEN - 4);
            frame.extend(&added);
            let longer = length(frame.len() + 4);
            frame[TOKEN_LEN + 2..TOKEN_LEN + 4].copy_from_slice(&longer);
            frame.extend(crc32(&frame).to_le_bytes());
            let end = frame.len();
            prop_assert_eq!(Hello::search(&token, &frame), Search::Found { frame: hello, end });
        }

        #[test]
        fn token_reads_back_from_its_digits(token in any_token()) {
            prop_assert_eq!(Token::from_hex(&token.to_hex()), Ok(token));
            prop_assert_eq!(Token::from_hex(&token.to_hex().to_uppercase()), Ok(token));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "12", &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
            assert_eq!(Token::from_hex(text), Err(BadToken), "{text:?}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        assert_eq!(format!("{:?}", Token::new([1; 16])), "Token([secret])");
    }

    #[test]
    fn checksum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
