//! Generates skep's own services; the messages of others come from `skep-proto`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/proto/raftpb");
    let descriptors = protox::compile(["skep/v1/raft.proto"], ["proto", "../proto/proto"])?;
    tonic_prost_build::configure()
        .extern_path(".raftpb", "::skep_proto::raftpb")
        .include_file("skep.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
