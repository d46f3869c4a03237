//! `env`, `set-env`, `unset-env`, and the variables of everybody: `env-group`, `set-env-group`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Session;
use crate::args::{GroupArgs, SetEnvArgs, SetGroupArgs, UnsetEnvArgs};
use crate::client::Body;
use crate::error::CliError;

pub(super) async fn env(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let app = session.app_or_default(name).await?;
    let all: Value = session.client()?.get(&format!("/v3/apps/{}/env", app.guid)).await?;
    if session.printer.wants_json() {
        return session.printer.json(&all);
    }
    let parts = [
        ("Set by the platform", "application_env_json"),
        ("Set by the platform for services", "system_env_json"),
        ("Of the running group, for apps of all spaces", "running_env_json"),
        ("Of the staging group, for builds of all spaces", "staging_env_json"),
        // Last, where a terminal shows them: they are what is looked for.
        ("Set by you", "environment_variables"),
    ];
    for (title, key) in parts {
        let Some(variables) = all.get(key).and_then(Value::as_object).filter(|map| !map.is_empty()) else { continue };
        session.printer.data(&format!("{title}:"))?;
        print(session, variables)?;
    }
    Ok(())
}

fn print(session: &Session, variables: &Map<String, Value>) -> Result<(), CliError> {
    for (name, value) in variables {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Object(_) | Value::Array(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
            other => other.to_string(),
        };
        session.printer.data(&format!("  {name}: {value}"))?;
    }
    Ok(())
}

async fn change(session: &Session, app: &str, var: Map<String, Value>) -> Result<(), CliError> {
    let path = format!("/v3/apps/{app}/environment_variables");
    session.client()?.send(Method::PATCH, &path, Body::Json(json!({ "var": var }))).await?;
    Ok(())
}

/// App and variables of `set-env`.
fn assignments(words: &[String]) -> Result<(Option<String>, Map<String, Value>), CliError> {
    let usage = |message: String| CliError::Usage {
        message,
        hint: "Write `slipway set-env APP NAME=VALUE …`, or `slipway set-env APP NAME VALUE`.".to_owned(),
    };
    let (app, rest) = match words {
        [first, rest @ ..] if !first.contains('=') => (Some(first.clone()), rest),
        all => (None, all),
    };
    let mut var = Map::new();
    match rest {
        [] => return Err(usage("No variable is given.".to_owned())),
        [name, value] if !name.contains('=') => {
            var.insert(name.clone(), value.as_str().into());
        }
        pairs => {
            for (place, pair) in pairs.iter().enumerate() {
                let (name, value) = pair
                    .split_once('=')
                    .filter(|(name, _)| !name.is_empty())
                    // The value may be a secret that slipped into the wrong place.
                    .ok_or_else(|| match pair.as_str() {
                        // All words may be values, so the global flags come first.
                        "-v" | "-q" | "--verbose" | "--quiet" | "--json" => {
                            usage(format!("'{pair}' is taken for a variable here; write it before `set-env`."))
                        }
                        _ => usage(format!("Variable {} of {} is not of the form NAME=VALUE.", place + 1, pairs.len())),
                    })?;
                var.insert(name.to_owned(), value.into());
            }
        }
    }
    Ok((app, var))
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn is_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// Warns of variables that an app has and no shell can use.
fn doubt(session: &Session, var: &Map<String, Value>) {
    for (name, _) in var.iter().filter(|(name, value)| !value.is_null() && !is_variable(name)) {
        session.printer.warn(&unusual_variable(name));
    }
}

/// Whether a shell can read a variable of this name.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What is said of a name that is none for a shell.
pub(crate) fn unusual_variable(name: &str) -> String {
    format!("no shell can read the variable '{name}': names are of letters, digits and '_', and begin with no digit")
}

pub(super) async fn set(session: &Session, args: SetEnvArgs) -> Result<(), CliError> {
    let (name, var) = assignments(&args.words)?;
    let app = session.app_or_default(name).await?;
    doubt(session, &var);
    let (names, verb) = (quoted(var.keys()), is_are(var.len()));
    change(session, &app.guid, var).await?;
    session.printer.say(&format!("{names} {verb} set for '{}'. {}", app.name, takes_effect(&app.name)));
    Ok(())
}

fn takes_effect(app: &str) -> String {
    format!(
        "It takes effect with `slipway restart {app} --strategy rolling`, or with `slipway restage {app}` if the build needs it."
    )
}

pub(super) async fn unset(session: &Session, args: UnsetEnvArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let all: Value = session.client()?.get(&format!("/v3/apps/{}/env", app.guid)).await?;
    let is_set = |name: &String| all.get("environment_variables").and_then(|set| set.get(name)).is_some();
    let (there, missing): (Vec<String>, Vec<String>) = args.variables.into_iter().partition(is_set);
    if !missing.is_empty() {
        let (names, verb) = (quoted(missing.iter()), is_are(missing.len()));
        session.printer.say(&format!("{names} {verb} not set for '{}'.", app.name));
    }
    if there.is_empty() {
        return Ok(());
    }
    let (names, verb) = (quoted(there.iter()), is_are(there.len()));
    change(session, &app.guid, there.into_iter().map(|name| (name, Value::Null)).collect()).await?;
    session.printer.say(&format!("{names} {verb} removed from '{}'. {}", app.name, takes_effect(&app.name)));
    Ok(())
}

pub(super) async fn group(session: &Session, args: GroupArgs) -> Result<(), CliError> {
    let path = format!("/v3/environment_variable_groups/{}", args.group.word());
    let group: Value = session.client()?.get(&path).await?;
    if session.printer.wants_json() {
        return session.printer.json(&group);
    }
    match group.get("var").and_then(Value::as_object).filter(|var| !var.is_empty()) {
        Some(var) => print(session, var),
        None => {
            session.printer.say(&format!("The {} group has no variables.", args.group.word()));
            Ok(())
        }
    }
}

pub(super) async fn set_group(session: &Session, args: SetGroupArgs) -> Result<(), CliError> {
    let word = args.group.word();
    let mut var = Map::new();
    for text in &args.variables {
        match text.split_once('=') {
            Some((name, value)) => var.insert(name.to_owned(), value.into()),
            None => var.insert(text.clone(), Value::Null),
        };
    }
    let path = format!("/v3/environment_variable_groups/{word}");
    let names = quoted(var.keys());
    doubt(session, &var);
    session.client()?.send(Method::PATCH, &path, Body::Json(json!({ "var": var }))).await?;
    session
        .printer
        .say(&format!("The {word} group is changed: {names}. Apps see it at their next start, builds at once."));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_shell_can_read_are_known() {
        for name in ["A", "_x1", "PATH"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["", "BAD NAME", "1X", "a-b", "spring.profile", "\u{c4}"] {
            assert!(!is_variable(name), "{name}");
        }
    }

    #[test]
    fn variables_are_read_in_both_forms() {
        let read = |words: &[&str]| {
            assignments(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
                .map(|(app, var)| (app.unwrap_or_default(), Value::Object(var).to_string()))
        };
        for (words, app, var) in [
            (&["web", "A=1", "B=2=3"][..], "web", r#"{"A":"1","B":"2=3"}"#),
            (&["A=1"], "", r#"{"A":"1"}"#),
            (&["web", "KEY", "-value"], "web", r#"{"KEY":"-value"}"#),
            (&["web", "KEY", "a=b"], "web", r#"{"KEY":"a=b"}"#),
            (&["web", "KEY="], "web", r#"{"KEY":""}"#),
        ] {
            assert_eq!(read(words).expect("read"), (app.to_owned(), var.to_owned()), "{words:?}");
        }
        for words in [&["web"][..], &["web", "KEY"], &["web", "A=1", "secret"], &["web", "A", "B", "C"], &["web", "=1"]]
        {
            let error = read(words).expect_err("refused").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
