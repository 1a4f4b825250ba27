//! Output as JSON can hold it: text, and the raw bytes where they are no UTF-8.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A piece of output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// What is not UTF-8 is replaced.
    pub text: String,
    /// The raw bytes in base64, where they are not UTF-8.
    pub data: Option<String>,
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { text, data: None },
            Err(error) => {
                let bytes = error.into_bytes();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Self { text, data: Some(STANDARD.encode(bytes)) }
            }
        }
    }
}

/// Pieces of one stream, cut so that no character is.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The beginning of a character, of three bytes at most.
    begun: Vec<u8>,
}

impl Pieces {
    /// The next piece; nothing when all of it waits for more.
    pub(super) fn next(&mut self, bytes: Vec<u8>) -> Option<Text> {
        let mut whole = std::mem::take(&mut self.begun);
        whole.extend(bytes);
        let begun = std::str::from_utf8(&whole)
            .err()
            .filter(|error| error.error_len().is_none())
            .map_or(0, |error| whole.len() - error.valid_up_to());
        self.begun = whole.split_off(whole.len() - begun);
        (!whole.is_empty()).then(|| whole.into())
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> Option<Text> {
        let rest = std::mem::take(&mut self.begun);
        (!rest.is_empty()).then(|| rest.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_whole_however_the_output_is_cut() {
        let text = "a\u{e4}\u{20ac}\u{1f426}z";
        for size in 1..=text.len() {
            let mut pieces = Pieces::default();
            let mut told = String::new();
            for piece in text.as_bytes().chunks(size) {
                if let Some(Text { text, data }) = pieces.next(piece.to_vec()) {
                    assert_eq!(data, None, "cut every {size} bytes");
                    told.push_str(&text);
                }
            }
            assert_eq!((told.as_str(), pieces.rest()), (text, None));
        }
    }

    #[test]
    fn what_is_no_text_comes_raw_besides() {
        let mut pieces = Pieces::default();
        let piece = pieces.next(vec![b'a', 0xff, b'b']).unwrap();
        assert_eq!((piece.text.as_str(), piece.data.as_deref()), ("a\u{fffd}b", Some("Yf9i")));
        assert_eq!(pieces.next(vec![0xe2, 0x82]), None);
        let rest = pieces.rest().unwrap();
        assert_eq!((rest.text.as_str(), rest.data.as_deref()), ("\u{fffd}", Some("4oI=")));
    }
}
