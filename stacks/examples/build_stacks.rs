//! Makes all layers into a directory: `cargo run -p slipway-stacks --example build_stacks -- [DIRECTORY] [LINE]...`

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(slipway_stacks::directory, PathBuf::from);
    let progress = |line: &str| println!("{line}");
    let mut options = slipway_stacks::BuildOptions::new(&directory, &progress);
    options.only = arguments.collect();
    let summary = slipway_stacks::build(&options)?;
    println!("{} made, {} there already", summary.made.len(), summary.present.len());
    Ok(())
}
