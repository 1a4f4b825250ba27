//! The host agent's gRPC service, `hostagent.v1`, as tonic and prost generate it.
//!
//! Nothing is written by hand here: shapes and their meaning stand in `v1/host_agent.proto`. Callers
//! go through `ovenbird-agent-client`, never through the generated client itself.

/// Messages, client and server of package `hostagent.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, clippy::large_futures)]
pub mod v1 {
    tonic::include_proto!("hostagent.v1");
}

/// The compiled descriptor set, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/hostagent.v1.bin"));
