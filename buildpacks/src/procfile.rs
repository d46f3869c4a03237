//! `Procfile`: one process type a line, `web: node server.js`.

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
    let mut types: Vec<ProcessType> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |detail: &str| Problem::BadFile {
            file: "Procfile".into(),
            detail: format!("line {}: {detail}", number + 1),
        };
        let (kind, command) = line.split_once(':').ok_or_else(|| bad("expected `type: command`"))?;
        let (kind, command) = (kind.trim(), command.trim());
        if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(bad(&format!("{kind:?} is no process type; use letters, digits, - and _")));
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
    types.sort_by_key(|known| known.kind != "web");
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
    fn the_procfile_wins() {
        let of = |kind: &str, command: &str| ProcessType { kind: kind.into(), command: command.into() };
        let merged = merge(vec![of("web", "npm start")], vec![of("worker", "w"), of("web", "node x")]);
        assert_eq!(merged, [of("web", "node x"), of("worker", "w")]);
    }
}
