//! `./bench NAME`: measures on a platform of its own, prints a table, writes JSON under `target/bench/`.

use std::process::ExitCode;

use slipway_tests::bench;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let further: Vec<String> = std::env::args().skip(2).collect();
    let outcome = match name.as_str() {
        "api" => bench::api::run(),
        "push" => bench::push::run(),
        "footprint" => bench::footprint::run(),
        "router" => bench::router::run(&further),
        "neighbours" => bench::neighbours::run(&further),
        _ => {
            eprintln!("usage: ./bench api | push | footprint | neighbours [FLOOD ...] | router [NAME=PROGRAM ...]");
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
