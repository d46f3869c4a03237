//! `./bench NAME`: measures on a platform of its own, prints a table, writes JSON under `target/bench/`.

use std::process::ExitCode;

use slipway_tests::bench;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let outcome = match name.as_str() {
        "api" => bench::api::run(),
        "push" => bench::push::run(),
        "footprint" => bench::footprint::run(),
        "router" => bench::router::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        _ => {
            eprintln!("usage: ./bench api | push | footprint | router [NAME=PROGRAM ...]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
