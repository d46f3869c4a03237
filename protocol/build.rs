//! Compiles the `.proto` without a system compiler (protox), so that a machine needs nothing but Rust.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile([Path::new("proto/cluster.proto")], [Path::new("proto")])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
