//! What the host agent and the guest agent agree on: the HELLO that opens a connection on the
//! virtio-serial port, the gRPC service that follows it, and the sizes both sides set.
//!
//! No input or output happens here: [`hello`] is a pair of pure codecs, [`v1`] is generated.
//!
//! # Version policy
//!
//! A memory snapshot holds the guest agent of the day it was made, and a host agent that is years
//! younger still has to wake it. So:
//!
//! 1. The service only grows (see `v1/guest.proto`); a missing call answers UNIMPLEMENTED.
//! 2. HELLO and its reply keep their order of fields. New fields go at the end, before the checksum;
//!    both sides take the length from the frame and skip what they do not know.
//! 3. [`PROTOCOL`] is raised when the other side has to know that something new is there. Each side
//!    says its own number in the handshake. The guest serves any host; the host refuses a guest below
//!    [`PROTOCOL_OLDEST`] and uses what a number brought only from that number on.
//! 4. [`PROTOCOL_OLDEST`] may rise only together with a release that says which templates have to
//!    be built again.
//!
//! | number | what came with it |
//! |---|---|
//! | 1 | everything above |

pub mod hello;

pub use hello::{Arrival, Hello, Reply, Search, Token};

/// The number this build speaks.
pub const PROTOCOL: u16 = 1;
/// The oldest guest the host still talks to.
pub const PROTOCOL_OLDEST: u16 = 1;

/// Name of the virtio-serial port (`virtserialport,name=`), as the guest finds it in sysfs.
pub const PORT_NAME: &str = "agent.0";

/// HTTP/2 window of one stream, in bytes, on both sides.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams at once on a connection.
pub const STREAMS_MAX: u32 = 63;
/// HTTP/2 window of a connection: room for every stream's window and one more. With less, one upload
/// that nobody reads would block every other call, pings included.
pub const CONNECTION_WINDOW: u32 = (STREAMS_MAX + 1) * STREAM_WINDOW;
/// Largest gRPC message, in bytes: a chunk of 1 MiB and its envelope.
pub const MESSAGE_MAX: usize = 1024 * 1024 + 64 * 1024;
/// Largest chunk a caller puts into one `WriteFileRequest`, in bytes.
pub const WRITE_CHUNK_MAX: usize = 1024 * 1024;
/// Output the guest keeps per command until it is acknowledged, in bytes.
pub const EXEC_BUFFER: usize = 256 * 1024;

/// Messages, client and server of package `ovenbird.guest.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, clippy::large_futures)]
pub mod v1 {
    tonic::include_proto!("ovenbird.guest.v1");
}
