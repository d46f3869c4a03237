//! The one shipped program: `slipway controller | cell | router | up | down | status | stack build | push | …`.

#![forbid(unsafe_code)]

mod local;
mod servers;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use slipway_cli::{DeveloperCommand, Exit, GlobalOptions, ProgramCommand, program};

/// Slipway: push your code and forget the machine
#[derive(Parser)]
#[command(
    name = "slipway",
    version,
    about = "Slipway: push your code and forget the machine. A Cloud Foundry of your own, in one program.",
    max_term_width = 100
)]
struct Program {
    #[command(flatten)]
    globals: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Developer(DeveloperCommand),
    #[command(flatten)]
    Platform(servers::PlatformCommand),
    #[command(flatten)]
    Program(ProgramCommand),
}

fn main() -> ExitCode {
    // One crypto provider for every TLS user in this program; there is no second caller that could have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let whole = program::dressed(Program::command());
    let args: Vec<OsString> = std::env::args_os().collect();
    let parsed = whole.clone().try_get_matches_from(&args).and_then(|matches| Program::from_arg_matches(&matches));
    let program = match parsed {
        Ok(program) => program,
        Err(error) if error.use_stderr() => {
            eprint!("{}", program::explain(&error, &whole, &args));
            return Exit::Usage.into();
        }
        Err(error) => error.exit(),
    };
    match program.command {
        Command::Platform(command) => servers::run(command, &program.globals),
        Command::Developer(command) => local::run_developer(command, program.globals),
        Command::Program(what) => slipway_cli::run_program(what, program.globals, whole).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn help_shows_each_command_once_and_no_hidden_one() {
        let whole = program::dressed(Program::command());
        whole.clone().debug_assert();
        assert_eq!(program::misplaced(&whole), Vec::<String>::new());
        let help = whole.clone().render_help().to_string();
        assert!(help.starts_with("Slipway: push your code"), "{help}");
        assert!(help.contains("Operators: a platform on this machine:\n") && !help.contains("supervise"), "{help}");
    }

    #[test]
    fn a_command_that_is_none_gets_suggestions_that_make_sense() {
        let whole = program::dressed(Program::command());
        let says = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let error = whole.clone().try_get_matches_from(&args).expect_err("no command");
            program::explain(&error, &whole, &args)
        };
        let text = says(&["slipway", "nosuch"]);
        assert!(text.contains("there is no command 'nosuch'") && !text.contains("Did you mean"), "{text}");
        for hidden in ["supervize", "dnss"] {
            let text = says(&["slipway", hidden]);
            assert!(!text.contains("supervise") && !text.contains("`slipway dns`"), "{text}");
        }
        assert!(says(&["slipway", "--json", "psuh"]).contains("Did you mean `slipway push`?"));
        assert!(says(&["slipway", "help", "psuh"]).contains("`slipway push`"));
        assert!(says(&["slipway", "stack", "biuld"]).contains("build"), "commands below others are clap's");
        let text = says(&["slipway", "push", "--strateg", "x"]);
        assert!(
            text.starts_with("error: `slipway push` does not take '--strateg'. Did you mean --strategy?"),
            "{text}"
        );
        assert!(!text.contains("tip:"), "{text}");
        for (args, said) in [
            (&["scale", "web", "-i", "abc"][..], "'--instances' takes a whole number, and 'abc' is none."),
            (&["scale", "web", "-i", "-1"], "'-i' takes no negative number, and '-1' is one."),
            (&["scale", "web", "--instances=-1"], "'--instances' takes a whole number from 0 on, and '-1' is none."),
            (&["logs", "-n", "1001"], "'--lines' takes a whole number from 0 to 1000, and '1001' is none."),
            (&["push", "-t", "0"], "'--timeout' takes a whole number from 1 on, and '0' is none."),
            (&["rollback", "--revision", "v4"], "'--revision' takes a whole number, and 'v4' is none."),
            (&["logs", "-f", "-5"], "`slipway logs` does not take '-5'."),
            (&["terminate-task", "web", "x"], "'<ID>' takes a whole number, and 'x' is none."),
            (&["scale", "web", "2"], "`slipway scale` does not take '2'. Write `slipway scale APP -i 2`."),
            (
                &["rollback", "web", "v4"],
                "`slipway rollback` does not take 'v4'. Write `slipway rollback APP --revision 4`.",
            ),
            (
                &["scale", "web", "web=2"],
                "`slipway scale` does not take 'web=2'. Write `slipway scale APP -p PROCESS -i",
            ),
        ] {
            let text = says(&[&["slipway"], args].concat());
            assert!(text.starts_with(&format!("error: {said}")), "{args:?}: {text}");
        }
        let text = says(&["slipway", "set-health-check", "web", "sometimes"]);
        assert!(text.contains("[possible values: port, http, process]"), "other values are clap's: {text}");
    }

    #[test]
    fn completion_and_man_pages_have_what_help_has() {
        let directory = tempfile::tempdir().expect("directory");
        let whole = program::dressed(Program::command());
        let args = program::ManArgs { directory: directory.path().to_owned() };
        let options = GlobalOptions { quiet: true, ..GlobalOptions::default() };
        let exit = slipway_cli::run_program(ProgramCommand::Man(args), options, whole);
        assert_eq!(exit, Exit::Success);
        let page = |name: &str| std::fs::read_to_string(directory.path().join(name));
        assert!(page("slipway.1").expect("a page").contains("slipway"));
        assert!(page("slipway-push.1").expect("a page").contains("strategy"));
        let logs = page("slipway-logs.1").expect("a page");
        let synopsis = logs.split(".SH SYNOPSIS").nth(1).and_then(|rest| rest.split(".SH").next()).expect("a synopsis");
        assert!(synopsis.contains("lines LINES]") && synopsis.contains("[APP]"), "{synopsis}");
        assert!(page("slipway-stack-build.1").is_ok());
        assert!(page("slipway-supervise.1").is_err() && page("slipway-reference.1").is_err());
        for shell in ["bash", "zsh", "fish"] {
            let text = program::completion(shell.parse().expect("a shell"), &Program::command());
            assert!(text.contains("create-user-provided-service") && text.contains("stack"), "{shell}");
            assert!(!text.contains("supervise"), "{shell}");
        }
    }

    /// `slipway reference > docs/handbook/commands.md` mends it.
    #[test]
    fn the_reference_in_the_handbook_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/handbook/commands.md");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let now = program::reference(&program::dressed(Program::command()));
        // The first difference says more than two long texts.
        let differs = committed.lines().zip(now.lines()).find(|(committed, now)| committed != now);
        assert!(committed == now, "run `slipway reference > docs/handbook/commands.md`: {differs:?}");
    }
}
