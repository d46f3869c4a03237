//! Why a program failed, from what it printed: a few lines that a person needs.
//!
//! Package managers say the reason early and go on with usage, advice and the place of a log that nobody can read here, so
//! that their last lines say nothing. They are known by the shape of their lines and not by the program's name: scripts and
//! foreign buildpacks run them as well.

mod npm;
mod pip;
#[cfg(test)]
mod tests;

/// Bytes of the end of a program's output in which the reason is looked for: what npm prints of a wrong lock file, or a
/// compiler's warnings, is far longer than what is shown of it.
pub(crate) const LOOKED_AT: usize = 64 << 10;
/// Lines that are shown of a program that nobody knows: a JavaScript exception has seven without its calls.
const LAST_LINES: usize = 8;
/// Lines from the end within which the words of a program that is known count: an older failure may have been of no account.
const NEAR: usize = 12;
/// Lines that are shown of one that is known, and how many of these are its first ones.
const MAX_LINES: usize = 16;
const FIRST_LINES: usize = 5;
/// Characters of the beginning and of the end of a line, and of all: commands of compilers and lists of versions are of any
/// length, and an answer of the API has its bounds.
const BEGIN_OF_A_LINE: usize = 170;
const END_OF_A_LINE: usize = 70;
const MAX_TOTAL: usize = 1600;

/// The lines that say why, without what would play with a terminal; empty when nothing was printed.
pub(crate) fn of(printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let chosen = npm::reason(&lines).or_else(|| pip::reason(&lines)).unwrap_or_else(|| last(&lines));
    bounded(&without_repetition(chosen))
}

/// A line as it is seen at its end: what a progress bar wrote over is gone.
fn plain(line: &str) -> String {
    let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// The last lines, without the calls of an exception of JavaScript: they would leave no room for its words.
fn last<'l>(lines: &[&'l str]) -> Vec<&'l str> {
    let without_calls = lines.iter().filter(|line| !line.trim_start().starts_with("at ")).copied();
    let without_calls: Vec<&str> = without_calls.collect();
    without_calls[without_calls.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// Each line once: pip prints what a pip that it started has printed.
fn without_repetition(lines: Vec<&str>) -> Vec<&str> {
    let mut unique: Vec<&str> = Vec::new();
    for line in lines {
        if !unique.iter().any(|other| other.trim() == line.trim()) {
            unique.push(line);
        }
    }
    unique
}

fn bounded(lines: &[&str]) -> String {
    let mut shown: Vec<String> = lines.iter().map(|line| shortened(line)).collect();
    if shown.len() > MAX_LINES {
        shown.splice(FIRST_LINES..FIRST_LINES + shown.len() - MAX_LINES, ["…".to_owned()]);
    }
    // The middle goes first, as above: reasons are at one end or the other.
    while shown.len() > 2 && shown.iter().map(|line| line.chars().count() + 1).sum::<usize>() > MAX_TOTAL {
        shown.remove(shown.len() / 2);
    }
    shown.join("\n")
}

/// Without the middle of a long line: pip lists versions from the oldest to the newest.
fn shortened(line: &str) -> String {
    let characters: Vec<char> = line.chars().collect();
    if characters.len() <= BEGIN_OF_A_LINE + END_OF_A_LINE {
        return line.to_owned();
    }
    let part = |characters: &[char]| characters.iter().collect::<String>();
    let end = characters.len() - END_OF_A_LINE;
    format!("{} … {}", part(&characters[..BEGIN_OF_A_LINE]), part(&characters[end..]))
}

/// What a reason asks of the developer, where its words leave that open. Words of the reason, and what to do.
const REMEDIES: [(&[&str], &str); 7] = [
    (
        &["code E404"],
        "Correct the package's name in package.json. A private package needs its registry and its token: `.npmrc` with \
         ${NPM_TOKEN}, and NPM_TOKEN in the app's environment.",
    ),
    (&["code ETARGET"], "Ask in package.json for a version that exists: `npm view PACKAGE versions` lists them."),
    (
        &["can only install packages when your package.json"],
        "Run `npm install` in the app's directory and push the changed lock file with it.",
    ),
    (&["code ERESOLVE", "ResolutionImpossible"], "Ask for versions that go together, as the lines above name them."),
    (
        &["No matching distribution found"],
        "Correct the package's name or version: `pip index versions PACKAGE` lists what there is for your Python. A private \
         package needs PIP_INDEX_URL or PIP_EXTRA_INDEX_URL in the app's environment.",
    ),
    (
        &["Failed building wheel", "gyp ERR!"],
        "This package has to be compiled, and that failed. Take a version or a package that comes compiled (psycopg2-binary for \
         psycopg2), or bring along what it needs.",
    ),
    (
        &["ENOSPC", "No space left on device"],
        "Give the app a larger disk quota (option -k, or disk_quota in the manifest).",
    ),
];

/// What to do about a reason; `otherwise` when its words are not known.
pub(crate) fn remedy<'r>(reason: &str, otherwise: &'r str) -> &'r str {
    let known = REMEDIES.iter().find(|(words, _)| words.iter().any(|words| reason.contains(words)));
    known.map_or(otherwise, |(_, advice)| advice)
}
