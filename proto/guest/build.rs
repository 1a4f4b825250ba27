//! Compiles the .proto file with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "v1/guest.proto";
    println!("cargo::rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["v1"])?;
    // Without transport: the guest serves on hyper alone, which keeps a second of tonic's layers out
    // of a program that is part of every boot.
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".ovenbird.guest.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
