//! What a `requirements.txt` says, as far as one must know to tell whether an installation may be taken again: which files
//! it consists of, and that everything in it comes from a package index.

use std::collections::BTreeSet;

use crate::source::{Source, plain};

/// Files that include each other endlessly are an error, which is pip's to tell.
const MAX_FILES: usize = 100;
/// A requirement with such an end is a file of the app.
const ARCHIVES: [&str; 9] = [".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".egg"];
/// Options with a value that say where and how packages come from an index.
const WITH_VALUE: [&str; 9] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "--trusted-host",
    "--no-binary",
    "--only-binary",
    "--use-feature",
    "--progress-bar",
    "--config-settings",
];
/// The same without one.
const ALONE: [&str; 4] = ["--no-index", "--prefer-binary", "--require-hashes", "--pre"];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// `requirements.txt` and what it includes, relative to the app.
    pub(super) files: BTreeSet<String>,
    /// Every requirement names the digest of its archive, so that pip takes nothing else, of indirect ones neither.
    pub(super) pinned: bool,
}

/// Reads a file and those it includes.
///
/// # Errors
/// In words, what may change although these files do not.
pub(super) fn read(source: &dyn Source, file: &str) -> Result<Requirements, String> {
    let mut found = Requirements { files: BTreeSet::new(), pinned: true };
    let mut open = vec![file.to_owned()];
    while let Some(file) = open.pop() {
        if !found.files.insert(file.clone()) {
            continue;
        }
        if found.files.len() > MAX_FILES {
            return Err(format!("{file} and others are more than {MAX_FILES} files"));
        }
        let text = source.read(&file).ok_or_else(|| format!("{file} is not a text file of the app"))?;
        for line in lines(&text) {
            requirement(&line, &file, &mut found, &mut open)?;
        }
    }
    Ok(found)
}

/// Logical lines, without comments.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let comment = line.trim_start().starts_with('#');
        if let (Some(part), false) = (line.strip_suffix('\\'), comment) {
            open += part;
            open.push(' ');
            continue;
        }
        open += if comment { "" } else { line };
        lines.push(std::mem::take(&mut open));
    }
    lines.push(open);
    let words = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        words.join(" ")
    };
    lines.iter().map(words).filter(|line| !line.is_empty()).collect()
}

fn requirement(line: &str, file: &str, found: &mut Requirements, open: &mut Vec<String>) -> Result<(), String> {
    let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
    if line.starts_with('-') {
        let (option, value) = option(line);
        let include = ["-r", "--requirement", "-c", "--constraint"].contains(&option);
        return match (option, value) {
            (_, Some(path)) if include => {
                open.push(beside(file, path).ok_or_else(|| format!("{file} has the line {shown:?}"))?);
                Ok(())
            }
            (_, Some(_)) if WITH_VALUE.contains(&option) => Ok(()),
            (_, None) if ALONE.contains(&option) => Ok(()),
            _ => Err(format!("{file} has the line {shown:?}, which names more than packages of an index")),
        };
    }
    // The name ends where extras, a version, a marker or an option begin.
    let name = line.split(['[', '=', '<', '>', '!', '~', ';', ' ', '(']).next().unwrap_or_default();
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let archive = ARCHIVES.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    if !letters || !begins || archive || line.contains(" @ ") || line.contains("://") {
        return Err(format!("{file} has the line {shown:?}, which is not a package of an index"));
    }
    found.pinned &= line.contains("--hash=") || line.contains("--hash ");
    Ok(())
}

/// `-rbase.txt`, `-r base.txt`, `--requirement=base.txt`, `--requirement base.txt`.
fn option(line: &str) -> (&str, Option<&str>) {
    let (option, value) = match line.split_once([' ', '=']) {
        Some((option, value)) => (option, Some(value)),
        None => (line, None),
    };
    match (option.starts_with("--"), option.len() > 2, value, option.get(..2)) {
        (false, true, None, Some(short)) => (short, option.get(2..)),
        _ => (option, value.map(str::trim)),
    }
}

/// The path of an included file; `None` when it is not below the app.
fn beside(file: &str, included: &str) -> Option<String> {
    let included = plain(included);
    let simple = !included.is_empty() && included.split('/').all(|part| !["", ".", ".."].contains(&part));
    if !simple || included.contains(':') {
        return None;
    }
    Some(match file.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/{included}"),
        None => included.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Listing;

    fn of(text: &str) -> Result<Requirements, String> {
        read(
            &Listing::of(&[
                ("requirements.txt", text),
                ("more/base.txt", "-r deep.txt\nflask"),
                ("more/deep.txt", "a"),
            ]),
            "requirements.txt",
        )
    }

    #[test]
    fn packages_of_an_index_may_be_taken_again() {
        for text in [
            "",
            "# nothing\n",
            "Flask==3.0.3\ngunicorn>=22,<23 # a comment\n",
            "requests[security]~=2.8 ; python_version < '3.12'\nzope.interface",
            "-i https://index.example/simple\n--extra-index-url=https://more.example\n--prefer-binary\nflask",
            "flask (>=2)",
        ] {
            let found = of(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!(found.files, BTreeSet::from(["requirements.txt".to_owned()]), "{text}");
        }
        let all = of("-r more/base.txt\n").unwrap();
        assert_eq!(all.files.len(), 3);
        assert!(all.files.contains("more/deep.txt"));
        assert_eq!(of("-rmore/base.txt"), Ok(all.clone()));
        assert_eq!(of("--constraint=./more/base.txt"), Ok(all));
    }

    #[test]
    fn only_hashes_pin_every_requirement() {
        assert!(of("flask==3 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\n").unwrap().pinned);
        assert!(!of("flask==3").unwrap().pinned);
        assert!(!of("flask==3 --hash=sha256:aa\nother==1").unwrap().pinned);
    }

    #[test]
    fn requirements_that_may_change_are_named() {
        for line in [
            "-e .",
            "--editable=./lib",
            ".",
            "./lib",
            "lib/thing",
            "thing-1.0-py3-none-any.whl",
            "thing-1.0.TAR.GZ",
            "git+https://git.example/x.git",
            "thing @ file:///srv/thing.whl",
            "thing@https://files.example/thing.zip",
            "https://files.example/thing.zip",
            "-f wheels",
            "--find-links wheels",
            "-r ../outside.txt",
            "-r /etc/requirements.txt",
            "-r https://lists.example/base.txt",
            "-c absent.txt",
            "--no-such-option",
            "${PACKAGE}",
        ] {
            assert!(of(&format!("flask\n{line}\n")).is_err(), "{line}");
        }
        let endless: Vec<(String, String)> =
            (0..200).map(|n| (format!("{n}.txt"), format!("-r {}.txt", n + 1))).collect();
        let endless: Vec<(&str, &str)> = endless.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert!(read(&Listing::of(&endless), "0.txt").unwrap_err().contains("100"));
        let ring = Listing::of(&[("a", "-r b"), ("b", "-r a")]);
        assert_eq!(read(&ring, "a").unwrap().files.len(), 2);
    }
}
