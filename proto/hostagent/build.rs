//! Compiles the .proto file with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "v1/host_agent.proto";
    println!("cargo::rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["v1"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("hostagent.v1.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // Pieces of files are passed on without a copy.
    tonic_prost_build::configure()
        .bytes(".hostagent.v1.WriteFileStreamRequest")
        .bytes(".hostagent.v1.ReadFileStreamResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
