//! pip: lines that begin with `ERROR:`, a step that failed (`×`), and the output of that step in a frame.

use super::NEAR;

/// Says only that something follows.
const SUBPROCESS: &str = "error: subprocess-exited-with-error";
/// Begins the name of a step that failed.
const FAILED_STEP: &str = "× ";
/// Begins what tells which package is looked at from there on.
const GETTING: [&str; 2] = ["Collecting ", "Processing "];
/// Begins and ends the output of a step that failed.
const OUTPUT: &str = " lines of output]";
const END_OF_OUTPUT: &str = "[end of output]";
/// Begins the list of who asks for what.
const CONFLICT: &str = "The conflict is caused by:";
/// Last lines of a step's output: a compiler's message with its place in the source, and what was being built.
const LAST_OF_OUTPUT: usize = 6;
/// How a command that failed is told, and how many characters it then has at least.
const COMMAND: &str = "error: command ";
const LONG_COMMAND: usize = 160;

/// What pip's errors begin with: others write `ERROR:` as well, and go on in forms of their own.
const ERRORS: [&str; 14] = [
    "Cannot install ",
    "Cannot uninstall ",
    "Could not build wheels",
    "Could not find a version",
    "Could not install packages",
    "Could not open requirements file",
    "Failed building wheel",
    "Failed to build ",
    "HTTP error ",
    "Invalid requirement",
    "No matching distribution",
    "Package '",
    "ResolutionImpossible",
    "THESE PACKAGES DO NOT MATCH",
];
const ERROR: &str = "ERROR: ";

/// pip's own words, when it ends with them.
pub(super) fn reason<'l>(lines: &[&'l str]) -> Option<Vec<&'l str>> {
    let known = |line: &&str| {
        let error = line.trim_start().strip_prefix(ERROR);
        let of_pip = |words: &str| ERRORS.iter().any(|begin| words.starts_with(begin));
        error.is_some_and(of_pip) || [SUBPROCESS, END_OF_OUTPUT].contains(&line.trim())
    };
    let end = lines.iter().rposition(known)?;
    if lines.len() - end > NEAR {
        return None;
    }
    let mut reason = Vec::new();
    let mut framed: Option<Vec<&str>> = None;
    let mut goes_on = false;
    let mut package = None;
    for line in lines {
        let words = line.trim_start();
        if words.ends_with(OUTPUT) {
            framed = Some(Vec::new());
        } else if words == END_OF_OUTPUT {
            let output = framed.take().unwrap_or_default();
            reason.extend_from_slice(&output[output.len().saturating_sub(LAST_OF_OUTPUT)..]);
        } else if let Some(output) = &mut framed {
            output.extend((!is_command(words)).then_some(*line));
        } else {
            // What is indented below an error belongs to it: both digests of a package, or the place of a mistake.
            goes_on = line.starts_with(ERROR) || words == CONFLICT || goes_on && line.starts_with("  ");
            if GETTING.iter().any(|begin| words.starts_with(begin)) {
                package = Some(*line);
            }
            if words.starts_with(FAILED_STEP) {
                // Steps of building are named with their package, those of asking it what it needs are not.
                reason.extend(package.take().filter(|_| !words.contains(" for ")));
            }
            if goes_on || words.starts_with(FAILED_STEP) || words.starts_with(ERROR) {
                reason.push(*line);
            }
        }
    }
    // Output that breaks off in a frame.
    let rest = framed.unwrap_or_default();
    reason.extend_from_slice(&rest[rest.len().saturating_sub(LAST_OF_OUTPUT)..]);
    Some(reason)
}

/// A compiler's command, or the same again in the words of Python: hundreds of characters that the message between them makes
/// no clearer. A short one may say that the compiler is not there.
fn is_command(words: &str) -> bool {
    let program = words.split_whitespace().next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let name = program.rsplit('-').next().unwrap_or_default();
    let compiles = ["gcc", "g++", "cc", "c++", "clang", "clang++"].contains(&name);
    let repeats = words.get(..COMMAND.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(COMMAND));
    compiles || repeats && words.chars().count() > LONG_COMMAND
}
