//! Generates the messages and the gRPC clients and servers, without needing protoc on the machine.

use std::error::Error;

const FILES: [&str; 14] = [
    "docker/swarmkit/v1/types.proto",
    "docker/swarmkit/v1/specs.proto",
    "docker/swarmkit/v1/objects.proto",
    "docker/swarmkit/v1/control.proto",
    "docker/swarmkit/v1/dispatcher.proto",
    "docker/swarmkit/v1/ca.proto",
    "docker/swarmkit/v1/raft.proto",
    "docker/swarmkit/v1/logbroker.proto",
    "docker/swarmkit/v1/health.proto",
    "docker/swarmkit/v1/resource.proto",
    "docker/swarmkit/v1/watch.proto",
    "docker/swarmkit/v1/snapshot.proto",
    "raftpb/raft.proto",
    "skep/v1/endpoints.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Encodings of equal messages must be equal: specs are compared and hashed by their bytes.
        .btree_map(".")
        .include_file("all.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
