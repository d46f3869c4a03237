//! What the program says of itself: help by topics, suggestions, completion, man pages, the reference of all commands.

mod explain;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Command, Subcommand};

pub use explain::explain;

use crate::printer::Printer;
use crate::{CliError, Exit, manpages};

/// Commands about this program itself.
#[derive(Debug, Subcommand)]
pub enum ProgramCommand {
    /// Show the version of this program
    Version,
    /// Write completion for a shell: bash, zsh or fish
    Completion(CompletionArgs),
    /// Write man pages into a directory
    Man(ManArgs),
    /// Write the reference of all commands, as in the handbook
    #[command(hide = true)]
    Reference,
}

/// `completion`.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Where the pages go, such as /usr/local/share/man/man1
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// Commands by topic, the most needed first. A test holds that none is forgotten.
const TOPICS: &[(&str, &[&str])] = &[
    ("Begin", &["login", "logout", "target", "passwd"]),
    (
        "Apps",
        &[
            "push",
            "apps",
            "app",
            "start",
            "stop",
            "restart",
            "restage",
            "scale",
            "rename",
            "delete",
            "set-health-check",
            "create-app-manifest",
            "restart-app-instance",
            "clear-cache",
        ],
    ),
    ("Versions of an app", &["revisions", "rollback", "continue-deployment", "cancel-deployment"]),
    ("Look inside", &["logs", "events", "run", "run-task", "tasks", "terminate-task"]),
    ("Environment variables", &["env", "set-env", "unset-env"]),
    (
        "Routes and domains",
        &[
            "routes",
            "create-route",
            "map-route",
            "unmap-route",
            "delete-route",
            "delete-orphaned-routes",
            "domains",
            "create-domain",
            "delete-domain",
            "share-domain",
            "unshare-domain",
        ],
    ),
    (
        "Services",
        &[
            "services",
            "service",
            "create-user-provided-service",
            "update-user-provided-service",
            "delete-service",
            "bind-service",
            "unbind-service",
            "bind-route-service",
            "unbind-route-service",
        ],
    ),
    (
        "Orgs and spaces",
        &[
            "orgs",
            "org",
            "create-org",
            "rename-org",
            "delete-org",
            "spaces",
            "space",
            "create-space",
            "rename-space",
            "delete-space",
        ],
    ),
    ("This program", &["version", "completion", "man", "curl", "help"]),
    ("Operators: a platform on this machine", &["up", "down", "status", "stack"]),
    ("Operators: people", &["users", "create-user", "delete-user", "roles", "set-role", "unset-role"]),
    (
        "Operators: what apps are built with",
        &["buildpacks", "create-buildpack", "update-buildpack", "delete-buildpack", "stacks"],
    ),
    (
        "Operators: limits and rules",
        &[
            "quotas",
            "create-quota",
            "update-quota",
            "delete-quota",
            "set-quota",
            "security-groups",
            "security-group",
            "create-security-group",
            "update-security-group",
            "delete-security-group",
            "bind-security-group",
            "unbind-security-group",
            "feature-flags",
            "set-feature-flag",
            "env-group",
            "set-env-group",
        ],
    ),
    ("Operators: parts of a cluster", &["controller", "cell", "router"]),
];

/// Gives a program help by topics.
#[must_use]
pub fn dressed(command: Command) -> Command {
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n\n");
    let width = visible(&command).map(|one| one.get_name().len()).max().unwrap_or_default();
    for (title, names) in TOPICS {
        let mut lines = String::new();
        for name in *names {
            if *name == "help" {
                let _ = writeln!(lines, "  {name:width$}  Show what a command takes");
            } else if let Some(one) = visible(&command).find(|one| one.get_name() == *name) {
                let _ = writeln!(lines, "  {name:width$}  {}", about(one));
            }
        }
        if lines.lines().any(|line| !line.trim_start().starts_with("help ")) {
            let _ = writeln!(text, "{title}:\n{lines}");
        }
    }
    text.push_str("Options:\n{options}\n\n`slipway help COMMAND` shows what a command takes.");
    command.help_template(text)
}

pub(crate) fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|one| !one.is_hide_set())
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Does a command about the program. `command` is the whole program as clap knows it.
pub(crate) fn run(what: ProgramCommand, command: Command, printer: &Printer) -> Result<Exit, CliError> {
    match what {
        ProgramCommand::Version => {
            let version = env!("CARGO_PKG_VERSION");
            if printer.wants_json() {
                printer.json(&serde_json::json!({ "name": "slipway", "version": version }))?;
            } else {
                printer.data(&format!("slipway {version}"))?;
            }
        }
        ProgramCommand::Completion(args) => {
            printer.bytes(completion(args.shell, &command).as_bytes())?;
        }
        ProgramCommand::Man(args) => {
            let pages = manpages::write(&shown(&command), &args.directory).map_err(|source| CliError::Usage {
                message: format!("Cannot write man pages to {}: {source}", args.directory.display()),
                hint: "Name a directory that can be written, such as ~/.local/share/man/man1.".to_owned(),
            })?;
            printer
                .say(&format!("{pages} man pages are in {}. Read one: `man slipway-push`", args.directory.display()));
        }
        ProgramCommand::Reference => printer.bytes(reference(&command).as_bytes())?,
    }
    Ok(Exit::Success)
}

/// What a shell needs to complete the commands that help shows.
#[must_use]
pub fn completion(shell: clap_complete::Shell, command: &Command) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut shown(command), "slipway", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The program without its hidden commands, which completion and man pages would show.
fn shown(command: &Command) -> Command {
    let mut bare = Command::new("slipway").version(env!("CARGO_PKG_VERSION")).about(about(command));
    bare = bare.args(command.get_arguments().filter(|one| one.get_id() != "help" && one.get_id() != "version"));
    bare.subcommands(visible(command).cloned())
}

/// All commands with what they take, as Markdown.
#[must_use]
pub fn reference(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let mut text = String::from(
        "# Commands\n\nWritten by `slipway reference` out of the program itself; a test fails when it is not up to \
         date.\n\n`--json`, `--quiet`, `--verbose`, `--no-progress` and `--target ORG/SPACE` work with every command. \
         Data goes to standard output, everything else to standard error. With `--json` data and failures are JSON; a \
         command that only changes something has no data and prints nothing on standard output.\n\n",
    );
    for (title, names) in TOPICS {
        let mut section = String::new();
        for one in names.iter().filter_map(|name| visible(&command).find(|one| one.get_name() == *name)) {
            if one.get_name() != "help" {
                describe(&mut section, one, &format!("slipway {}", one.get_name()));
            }
        }
        if !section.is_empty() {
            let _ = write!(text, "## {title}\n\n{section}");
        }
    }
    text.push_str(EXIT_CODES);
    text
}

const EXIT_CODES: &str = "## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | anything not listed below |
| 2 | the command line or the manifest is wrong, or -f is missing; nothing was sent |
| 3 | not logged in, or not allowed |
| 4 | the thing named does not exist |
| 5 | the platform refused the request as invalid |
| 6 | the platform could not be reached, or is not well |
| 7 | the build failed |
| 8 | the app did not start, or its new version did not take over |
| 130 | interrupted |

`slipway run` and `slipway run-task --wait` end with the exit code of the command that they ran.
";

fn describe(text: &mut String, command: &Command, name: &str) {
    if command.has_subcommands() {
        for one in visible(command).filter(|one| one.get_name() != "help") {
            describe(text, one, &format!("{name} {}", one.get_name()));
        }
        return;
    }
    let _ = write!(text, "### `{name}`\n\n{}.", about(command));
    let aliases: Vec<String> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(text, " Short: {}.", aliases.join(", "));
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(text, "\n\n```\n{}\n```\n\n", usage.trim_start_matches("Usage: "));
    let own =
        command.get_arguments().filter(|one| !one.is_hide_set() && !one.is_global_set() && one.get_id() != "help");
    let mut rows = String::new();
    for one in own {
        let values = one.get_value_names().unwrap_or_default().join(" ");
        let takes = one.get_num_args().is_none_or(|count| count.takes_values());
        let name = match (one.get_short(), one.get_long(), takes) {
            (None, None, _) => format!("`{values}`"),
            (short, long, takes) => {
                let flags: Vec<String> =
                    short.map(|c| format!("-{c}")).into_iter().chain(long.map(|word| format!("--{word}"))).collect();
                format!("`{}{}`", flags.join("`, `"), if takes { format!(" {values}") } else { String::new() })
            }
        };
        let mut help = one.get_help().map(ToString::to_string).unwrap_or_default();
        let choices: Vec<String> = one
            .get_possible_values()
            .iter()
            .filter(|value| takes && !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !choices.is_empty() {
            let _ = write!(help, " ({})", choices.join(", "));
        }
        let default: Vec<_> = one.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if takes && default.iter().any(|value| !value.is_empty()) {
            let _ = write!(help, " [default: {}]", default.join(" "));
        }
        let _ = writeln!(rows, "| {name} | {} |", help.replace('|', "\\|"));
    }
    if !rows.is_empty() {
        let _ = write!(text, "| | |\n|---|---|\n{rows}\n");
    }
}

/// That a program's help shows each of its commands once; the names that are missing or twice.
#[must_use]
pub fn misplaced(command: &Command) -> Vec<String> {
    let times = |name: &str| TOPICS.iter().flat_map(|(_, names)| *names).filter(|one| **one == name).count();
    visible(command).map(Command::get_name).filter(|name| times(name) != 1).map(str::to_owned).collect()
}
