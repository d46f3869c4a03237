//! What is wrong with a command line, said to a person.

use std::ffi::{OsStr, OsString};

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{TOPICS, visible};
use crate::Exit;

/// What other platforms call it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("api", "login"),
    ("auth", "login"),
    ("bash", "run"),
    ("config", "env"),
    ("config:get", "env"),
    ("config:set", "set-env"),
    ("config:unset", "unset-env"),
    ("create-app", "push"),
    ("create-private-domain", "create-domain"),
    ("create-service", "create-user-provided-service"),
    ("create-shared-domain", "create-domain --shared"),
    ("delete-private-domain", "delete-domain"),
    ("delete-shared-domain", "delete-domain"),
    ("deploy", "push"),
    ("destroy", "delete"),
    ("exec", "run"),
    ("marketplace", "create-user-provided-service"),
    ("org-quotas", "quotas"),
    ("org-users", "roles"),
    ("ps", "app"),
    ("ps:scale", "scale"),
    ("releases", "revisions"),
    ("releases:rollback", "rollback"),
    ("set-org-role", "set-role"),
    ("set-space-role", "set-role"),
    ("space-quotas", "quotas"),
    ("space-users", "roles"),
    ("ssh", "run"),
    ("unset-org-role", "unset-role"),
    ("unset-space-role", "unset-role"),
];

/// What is wrong with a command line: as clap says it, but with suggestions out of what `--help` shows. As JSON when that
/// is asked for.
#[must_use]
pub fn explain(error: &clap::Error, command: &Command, args: &[OsString]) -> String {
    let text = describe(error, command, args);
    let wants_json = args.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    if !error.use_stderr() || !wants_json {
        return text;
    }
    let (message, hint) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
    let message = message.strip_prefix("error: ").unwrap_or(message);
    format!("{}\n", crate::printer::failure_json(message, hint.trim(), Exit::Usage))
}

fn describe(error: &clap::Error, command: &Command, args: &[OsString]) -> String {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
    {
        return unknown_flag(error, flag, command, args);
    }
    if error.kind() == ErrorKind::ValueValidation
        && let Some(text) = wrong_number(error)
    {
        return text;
    }
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(text) = missing(error, command, args)
    {
        return text;
    }
    let unknown = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(name))) => name,
        _ => return error.to_string(),
    };
    // Of a command below another one clap knows more.
    let first = args.iter().skip(1).find(|word| !word.to_string_lossy().starts_with('-'));
    let helped = first.is_some_and(|word| word == "help");
    if !helped && first.is_none_or(|word| word != OsStr::new(unknown)) {
        return error.to_string();
    }
    let names: Vec<&str> = visible(command).map(Command::get_name).collect();
    let advice = match suggestions(unknown, &names).as_slice() {
        [] => String::new(),
        all => format!("\n\n  Did you mean {}?", all.join(" or ")),
    };
    format!("error: there is no command '{unknown}'{advice}\n\n`slipway --help` lists all commands.\n")
}

/// Whether a word is a flag of a command that a value follows.
fn takes_value(command: &Command, word: &str) -> bool {
    command.get_arguments().filter(|one| one.get_action().takes_values()).any(|one| {
        one.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long))
            || one.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])))
    })
}

/// The command that is called, and its whole name.
fn command_of<'c>(command: &'c Command, args: &[OsString]) -> (String, &'c Command) {
    let (mut path, mut here) = ("slipway".to_owned(), command);
    for word in args.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = here.find_subcommand(word) {
            path = format!("{path} {}", below.get_name());
            here = below;
        }
    }
    (path, here)
}

/// What the words that are there were taken for, when others are missing: most often the first one is the forgotten one.
fn missing(error: &clap::Error, command: &Command, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else { return None };
    let (path, here) = command_of(command, args);
    let whole = command.clone().ignore_errors(true).try_get_matches_from(args).ok()?;
    let mut matches = &whole;
    while let Some((_, below)) = matches.subcommand() {
        matches = below;
    }
    let name = |one: &clap::Arg| one.get_value_names().unwrap_or_default().join(" ");
    let given: Vec<String> = here
        .get_positionals()
        .filter_map(|one| {
            let value = matches.try_get_raw(one.get_id().as_str()).ok()??.next()?;
            Some(format!("'{}' for {}", value.to_string_lossy(), name(one)))
        })
        .collect();
    if given.is_empty() {
        return None;
    }
    let usage: Vec<String> = here
        .get_positionals()
        .map(|one| {
            let more = if matches!(one.get_action(), clap::ArgAction::Append) { " …" } else { "" };
            format!("{}{}{more}", if one.is_last_set() { "-- " } else { "" }, name(one))
        })
        .collect();
    let missing: Vec<String> = missing.iter().map(|one| one.replace(['<', '>'], "").replace("...", "")).collect();
    Some(format!(
        "error: `{path}` takes {}, and {} is missing. Write `{path} {}`.\n\n`{path} --help` shows what it takes.\n",
        given.join(" and "),
        missing.join(" and "),
        usage.join(" ")
    ))
}

/// That a command does not take a word, and which one may have been meant.
fn unknown_flag(error: &clap::Error, flag: &str, command: &Command, args: &[OsString]) -> String {
    let (path, here) = command_of(command, args);
    let before = args.iter().position(|word| word == flag).and_then(|place| args.get(place.checked_sub(1)?));
    if let Some(before) = before.and_then(|word| word.to_str()).filter(|word| takes_value(here, word))
        && flag.parse::<f64>().is_ok()
    {
        return format!("error: '{before}' takes no negative number, and '{flag}' is one.\n");
    }
    let after_dashes = here.get_arguments().any(|one| one.is_last_set());
    let meant = match error.get(ContextKind::SuggestedArg) {
        // `slipway run app node -v`: the flag is the command's.
        _ if after_dashes && args.iter().all(|word| word != "--") => {
            format!(" Put `--` before the command that it belongs to: `{path} APP -- COMMAND …`.")
        }
        // As Heroku and Dokku have it.
        _ if path == "slipway scale" && flag.contains('=') => {
            " Write `slipway scale APP -p PROCESS -i COUNT`.".to_owned()
        }
        _ if path == "slipway scale" && flag.parse::<u32>().is_ok() => format!(" Write `slipway scale APP -i {flag}`."),
        _ if path == "slipway rollback" && flag.trim_start_matches('v').parse::<u64>().is_ok() => {
            format!(" Write `slipway rollback APP --revision {}`.", flag.trim_start_matches('v'))
        }
        Some(ContextValue::String(meant)) => format!(" Did you mean {meant}?"),
        _ => String::new(),
    };
    format!("error: `{path}` does not take '{flag}'.{meant}\n\n`{path} --help` shows what it takes.\n")
}

/// What a flag takes that got something else than a number, in words; nothing of other values.
fn wrong_number(error: &clap::Error) -> Option<String> {
    use std::error::Error as _;
    let source = error.source()?.to_string();
    let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return None;
    };
    let name = flag.split_once(' ').map_or(flag.as_str(), |(name, _)| name);
    // `invalid digit found in string`, or `0 is not in 1..=100`
    let range = match source.rsplit_once(" is not in ") {
        Some((_, range)) => describe_range(range)?,
        None if source.contains("digit") => String::new(),
        None => return None,
    };
    Some(format!("error: '{name}' takes a whole number{range}, and '{value}' is none.\n"))
}

/// ` from 1 to 100` of `1..=100`, ` from 1 on` of one that ends with its type.
fn describe_range(range: &str) -> Option<String> {
    let (least, most) = range.split_once("..")?;
    let most = most.trim_start_matches('=');
    let endless = most.is_empty() || [u64::from(u32::MAX), u64::MAX].iter().any(|end| end.to_string() == most);
    Some(if endless { format!(" from {least} on") } else { format!(" from {least} to {most}") })
}

/// At most three commands that may have been meant, the likeliest first.
fn suggestions(unknown: &str, names: &[&str]) -> Vec<String> {
    let quoted = |name: &str| format!("`slipway {name}`");
    if let Some((_, here)) = ELSEWHERE.iter().find(|(there, _)| *there == unknown) {
        return vec![quoted(here)];
    }
    let place = |name: &str| TOPICS.iter().flat_map(|(_, names)| *names).position(|one| *one == name);
    let mut ranked: Vec<(usize, Option<usize>, &str)> = names
        .iter()
        .filter_map(|name| {
            let distance = strsim::damerau_levenshtein(unknown, name);
            let close = distance <= (unknown.chars().count() / 3).clamp(1, 3);
            let part = unknown.len() >= 3 && (name.starts_with(unknown) || name.ends_with(unknown));
            (close || part).then_some((distance, place(name), *name))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(3).map(|(.., name)| quoted(name)).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn says(words: &[&str]) -> String {
        let whole = super::super::dressed(crate::Cli::command());
        let args: Vec<OsString> = ["slipway"].iter().chain(words).map(OsString::from).collect();
        let error = whole.clone().try_get_matches_from(&args).expect_err("refused");
        explain(&error, &whole, &args)
    }

    #[test]
    fn a_missing_argument_is_reported_with_how_the_others_were_read() {
        assert_eq!(
            says(&["unset-env", "A"]),
            "error: `slipway unset-env` takes 'A' for APP, and NAME is missing. Write `slipway unset-env APP NAME …`.\n\n\
             `slipway unset-env --help` shows what it takes.\n"
        );
        let text = says(&["map-route", "web", "-n", "x"]);
        assert!(text.contains("'web' for APP, and DOMAIN is missing") && text.contains("APP DOMAIN`"), "{text}");
        let text = says(&["run", "web"]);
        assert!(text.contains("COMMAND is missing") && text.contains("`slipway run APP -- COMMAND …`"), "{text}");
        assert!(says(&["unset-env"]).contains("<APP>"), "without any word clap says enough");
    }

    #[test]
    fn mistakes_are_json_when_that_is_asked_for() {
        let json = |words: &[&str]| serde_json::from_str::<serde_json::Value>(&says(words)).expect("JSON");
        let error = json(&["psuh", "--json"]);
        assert_eq!(error["error"]["exit_code"], 2);
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.starts_with("there is no command 'psuh'")));
        assert!(
            json(&["--json", "unset-env", "A"])["error"]["hint"].as_str().is_some_and(|text| text.contains("--help"))
        );
        assert!(says(&["run", "web", "x", "--", "--json"]).starts_with("error: "), "the flag is the command's");
    }

    #[test]
    fn suggestions_are_commands_that_help_shows() {
        let names = ["push", "apps", "app", "logs", "routes", "create-route", "delete-route", "status", "orgs"];
        for (typed, meant) in [
            ("pusj", "`slipway push`"),
            ("psuh", "`slipway push`"),
            ("log", "`slipway logs`"),
            ("route", "`slipway routes` or `slipway create-route` or `slipway delete-route`"),
            ("deploy", "`slipway push`"),
            ("create-shared-domain", "`slipway create-domain --shared`"),
            ("nosuch", ""),
            ("supervize", ""),
            ("x", ""),
        ] {
            assert_eq!(suggestions(typed, &names).join(" or "), meant, "{typed}");
        }
    }
}
