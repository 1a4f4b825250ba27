//! How runs of log records stand in `build_log_chunks.records`: zstd over a JSON array.

use std::io;

use ovenbird_contract::log::Record;

/// Fast, and most of what zstd gains on text.
const LEVEL: i32 = 3;

/// A chunk cannot be read: somebody else wrote it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not zstd.
    #[error("a log chunk does not decompress")]
    Compression(#[source] io::Error),
    /// Not records.
    #[error("a log chunk holds no log records")]
    Json(#[source] serde_json::Error),
}

/// Compresses `records`.
///
/// # Errors
/// Only when zstd or the allocator fails.
pub fn encode(records: &[Record]) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(records).map_err(Error::Json)?;
    zstd::encode_all(json.as_slice(), LEVEL).map_err(Error::Compression)
}

/// The records of a chunk, in order.
///
/// # Errors
/// [`Error`] when `bytes` are no chunk.
pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    let json = zstd::decode_all(bytes).map_err(Error::Compression)?;
    serde_json::from_slice(&json).map_err(Error::Json)
}

#[cfg(test)]
mod tests {
    use ovenbird_contract::build::Status;

    use super::*;

    #[test]
    fn chunk_reads_back() {
        let records = vec![Record::end(1, Status::Failed)];
        assert_eq!(decode(&encode(&records).unwrap()).unwrap(), records);
        assert!(matches!(decode(b"{}"), Err(Error::Compression(_))));
    }
}
