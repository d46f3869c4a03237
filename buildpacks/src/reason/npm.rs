//! npm: lines that begin with `npm error`, in older releases with `npm ERR!`.

use super::{NEAR, last};

const MARKS: [&str; 2] = ["npm error", "npm ERR!"];
/// Where npm turns from the reason to how it is used.
const USAGE: [&str; 2] = ["Clean install a project", "Usage:"];
/// Beginnings of what says nothing about this app: npm's advice, places of logs, and node-gyp's account of itself.
const NOISE: [&str; 30] = [
    "A complete log of this run",
    "Log files were not written",
    "In most cases you or one of your dependencies",
    "Note that you can also install from a",
    "tarball, folder, http url, or git url.",
    "For a full report see:",
    "This is probably not a problem with npm",
    "Fix the upstream dependency conflict",
    "this command with --force",
    "to accept an incorrect",
    "command failed",
    "make: Entering directory",
    "make: Leaving directory",
    "gyp info",
    "gyp verb",
    "gyp http",
    "gyp ERR! System",
    "gyp ERR! command",
    "gyp ERR! cwd",
    "gyp ERR! node -v",
    "gyp ERR! node-gyp -v",
    "gyp ERR! $npm",
    "gyp ERR! build error",
    "gyp ERR! stack at ",
    "gyp ERR! stack     at ",
    "gyp ERR! not ok",
    "CXX(target)",
    "CC(target)",
    "SOLINK_MODULE(target)",
    "errno ",
];

/// npm's own words, when it ends with them; before them the last words of a script that it ran and that failed.
pub(super) fn reason<'l>(lines: &[&'l str]) -> Option<Vec<&'l str>> {
    let begin = lines.iter().position(|line| message_of(line).is_some())?;
    let end = lines.iter().rposition(|line| message_of(line).is_some())?;
    if lines.len() - end > NEAR {
        return None;
    }
    let own = lines[begin..].iter().filter_map(|line| Some((*line, message_of(line)?)));
    let reasons = own.take_while(|(_, words)| !USAGE.contains(words)).filter(|(_, words)| is_reason(words));
    let reasons: Vec<&str> = reasons.map(|(line, _)| line).collect();
    if reasons.is_empty() {
        return None;
    }
    let mut reason = if of_a_script(&reasons) { last(&lines[..begin]) } else { Vec::new() };
    reason.extend(reasons);
    reason.extend(&lines[end + 1..]);
    Some(reason)
}

/// The text behind npm's mark.
fn message_of(line: &str) -> Option<&str> {
    MARKS.iter().find_map(|mark| line.trim_start().strip_prefix(mark)).map(str::trim)
}

fn is_reason(words: &str) -> bool {
    // A code stands before each line of its reason, also before those that say nothing.
    let words = words.strip_prefix("404").or_else(|| words.strip_prefix("notarget")).unwrap_or(words).trim_start();
    !words.is_empty() && !NOISE.iter().any(|noise| words.starts_with(noise))
}

/// Whether a script of the app failed. npm's code is then the script's exit status, and the script printed the reason.
fn of_a_script(reasons: &[&str]) -> bool {
    reasons
        .iter()
        .filter_map(|line| message_of(line)?.strip_prefix("code "))
        .any(|code| code.trim().parse::<i32>().is_ok())
}
