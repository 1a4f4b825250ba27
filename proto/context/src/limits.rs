//! How large a context may be, besides its archive, whose size the api bounds. Each number has its reason beside it.

/// Entries of an archive, directories included. A large repository with its dependencies has fewer; a million of them
/// would be hours of work for a guest.
pub const ENTRIES_MAX: u64 = 100_000;
/// Bytes of all paths and of all targets of links together, which are held in memory: 160 for each of the most entries.
pub const NAMES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest path, and longest target of a link, in bytes (`PATH_MAX` of Linux, its end included).
pub const PATH_BYTES_MAX: usize = 4095;
/// Longest name between two slashes in bytes (`NAME_MAX` of Linux).
pub const NAME_BYTES_MAX: usize = 255;
/// Most names of a path: each directory on the way to an entry is remembered, too. Trees of sources have up to 30.
pub const PATH_DEPTH_MAX: usize = 256;
/// Bytes of all files together, unpacked.
pub const UNPACKED_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// An archive may become this many times larger. Sources become about 5 times larger, logs 20 times; a bomb of deflate
/// becomes a thousand times larger.
pub const RATIO_MAX: u64 = 100;
/// What an archive may become in any case, in bytes: a few files of zeros are no bomb.
pub const UNPACKED_BYTES_FREE: u64 = 64 * 1024 * 1024;
/// What stands between two contents of a tar archive in bytes: headers with long names and extensions.
pub(crate) const HEADERS_BYTES_MAX: u64 = 1024 * 1024;
/// All of that together: 5 KiB for each of the most entries, where long names and extensions take 2 or 3.
pub(crate) const HEADERS_BYTES_ALL: u64 = 512 * 1024 * 1024;
/// Largest `.ovenbirdignore`, in bytes.
pub const IGNORE_BYTES_MAX: u64 = 256 * 1024;
/// Most patterns of an `.ovenbirdignore`: each path is held against all of them.
pub const IGNORE_LINES_MAX: usize = 1000;
