//! The small static program that lives inside a sandbox. It goes by the name under which it was called, or by its first
//! argument: `init` contains and watches one program, `launcher` starts an app as Cloud Foundry does, `builder` stages.

mod builder;
mod init;
mod launcher;
#[cfg(debug_assertions)]
mod probe;

use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()?.to_str()).unwrap_or_default();
    // Called by a link of the part's name, or with the part as the first argument.
    let (part, rest) = match (name, arguments.get(1)) {
        ("builder" | "init" | "launcher" | "probe", _) => (name, &arguments[1..]),
        (_, Some(part)) => (part.as_str(), &arguments[2..]),
        (_, None) => ("", &[][..]),
    };
    let status = match part {
        "builder" => builder::main(rest),
        "init" => init::main(),
        "launcher" => launcher::main(rest),
        // For tests, and in their builds only.
        #[cfg(debug_assertions)]
        "probe" => probe::main(rest),
        other => {
            eprintln!("unknown part {other:?}; use init, launcher or builder");
            64
        }
    };
    std::process::exit(status);
}
