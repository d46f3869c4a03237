//! `Procfile`: one process type a line, `web: node server.js`.
//!
//! Cloud Foundry reads it as YAML, so files there begin with `---`, quote commands and fold long ones. Others were written
//! for readers of lines, and hold commands that are no YAML (`web: run --log "a: b"`). YAML first, then lines: both kinds mean
//! what their authors saw elsewhere.

use crate::contract::ProcessType;
use crate::errors::Problem;
use crate::source::Source;

/// The process types of the app's Procfile, `web` first; empty without one.
///
/// # Errors
/// When it is no Procfile.
pub fn read(source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
    source.read("Procfile").map_or_else(|| Ok(Vec::new()), |text| parse(&text))
}

fn parse(text: &str) -> Result<Vec<ProcessType>, Problem> {
    let mut types = match yaml(text) {
        Some(types) => types,
        None => lines(text)?,
    };
    types.sort_by_key(|known| known.kind != "web");
    Ok(types)
}

/// Whether this may name a process type.
fn names(kind: &str) -> bool {
    !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// The process types of a file that is a YAML mapping and good throughout. What is not is left to [`lines`], which knows places.
fn yaml(text: &str) -> Option<Vec<ProcessType>> {
    let entries: serde_norway::Mapping = serde_norway::from_str(text).ok()?;
    let types = entries.iter().map(|(kind, command)| {
        let (kind, command) = (kind.as_str()?, command.as_str()?.trim());
        let good = names(kind) && !command.is_empty();
        good.then(|| ProcessType { kind: kind.to_owned(), command: command.to_owned() })
    });
    types.collect::<Option<Vec<_>>>().filter(|types| !types.is_empty())
}

fn lines(text: &str) -> Result<Vec<ProcessType>, Problem> {
    let mut types: Vec<ProcessType> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line == "---" {
            continue;
        }
        let bad = |detail: &str| Problem::BadFile {
            file: "Procfile".into(),
            detail: format!("line {}: {detail}", number + 1),
        };
        let (kind, command) = line.split_once(':').ok_or_else(|| bad("expected `type: command`"))?;
        let (kind, command) = (kind.trim(), command.trim());
        if !names(kind) {
            return Err(bad(&format!("{kind:?} is not a process type; use letters, digits, - and _")));
        }
        if command.is_empty() {
            return Err(bad(&format!("{kind} has no command")));
        }
        types.retain(|known| known.kind != kind);
        types.push(ProcessType { kind: kind.to_owned(), command: command.to_owned() });
    }
    if types.is_empty() {
        return Err(Problem::BadFile { file: "Procfile".into(), detail: "it names no process type".into() });
    }
    Ok(types)
}

/// `upper` wins over `lower`, type by type; `web` comes first.
#[must_use]
pub fn merge(lower: Vec<ProcessType>, upper: Vec<ProcessType>) -> Vec<ProcessType> {
    let mut types = lower;
    for process in upper {
        match types.iter_mut().find(|known| known.kind == process.kind) {
            Some(known) => *known = process,
            None => types.push(process),
        }
    }
    types.sort_by_key(|known| known.kind != "web");
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfiles() {
        let types = parse("# c\nworker: python w.py\r\nweb: gunicorn -b :$PORT app:app\n\n").unwrap();
        assert_eq!(types[0].kind, "web");
        assert_eq!(types[0].command, "gunicorn -b :$PORT app:app");
        assert_eq!(types[1].command, "python w.py");
        for (text, place) in [("web node", "line 1"), ("\nweb:", "line 2"), ("a b: c", "line 1"), ("", "names no")] {
            let Err(Problem::BadFile { detail, .. }) = parse(text) else { panic!("{text:?} was accepted") };
            assert!(detail.contains(place), "{detail}");
        }
    }

    #[test]
    fn procfiles_of_cloud_foundry_are_yaml() {
        for (text, command) in [
            ("---\nweb: node server.js\n", "node server.js"),
            ("--- # apps\nworker: w\nweb: \"node 'server.js'\" # the one\n", "node 'server.js'"),
            ("web: >-\n  node\n  server.js\n", "node server.js"),
            ("{web: node server.js}", "node server.js"),
            ("---\nweb: run --log \"a: b\"\n", "run --log \"a: b\""),
            ("web: a\nweb: b\n", "b"),
            ("web: true\n", "true"),
        ] {
            let types = parse(text).unwrap();
            assert_eq!((types[0].kind.as_str(), types[0].command.as_str()), ("web", command), "{text:?}");
        }
        for text in ["---\n", "---\n- web\n", "web: [a]\nworker:\n", "web: {a: b}\nx y: z\n"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_procfile_wins() {
        let of = |kind: &str, command: &str| ProcessType { kind: kind.into(), command: command.into() };
        let merged = merge(vec![of("web", "npm start")], vec![of("worker", "w"), of("web", "node x")]);
        assert_eq!(merged, [of("web", "node x"), of("worker", "w")]);
    }
}
