//! Compiles `proto/cairn/v1/*.proto` without protoc and keeps the descriptors for reflection.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

const FILES: [&str; 7] = [
    "cairn/v1/common.proto",
    "cairn/v1/collections.proto",
    "cairn/v1/points.proto",
    "cairn/v1/query.proto",
    "cairn/v1/documents.proto",
    "cairn/v1/operations.proto",
    "cairn/v1/snapshots.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("cairn.v1.fds"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps with an order: equal messages encode to equal bytes, which golden tests and caches rely on.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
