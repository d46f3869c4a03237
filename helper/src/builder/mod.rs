//! The builder: turns a package into a droplet inside the staging sandbox. `builder detect`, then `builder build`.
//!
//! The answer is always a file (`plan.json`, `result.json`), also when the build fails: the exit status says only whether
//! an answer was written. See `slipway_buildpacks::contract` for both sides' files.

mod build;
mod detect;
mod files;
mod libraries;
mod pack;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slipway_buildpacks::Problem;
use slipway_buildpacks::contract::{
    BuildOutcome, BuildPaths, BuildPlan, BuildRequest, EXIT_NO_SPACE, PLAN_FILE, REQUEST_FILE, RESULT_FILE,
};
use slipway_buildpacks::run::Runner;

/// Exit status when no answer could be written: the platform's fault.
const NO_ANSWER: i32 = 70;

/// Runs one phase: `args` is `["detect"]` or `["build"]`, optionally followed by the request's path (or the directory that
/// holds it). Gives back the exit status: 0 when the phase succeeded, 1 when the answer tells of a failure, 70 when there is no answer,
/// [`EXIT_NO_SPACE`] when that is because the disk is full.
pub(crate) fn main(args: &[String]) -> i32 {
    let path = args.get(1).map_or_else(|| BuildPaths::default().input, PathBuf::from);
    let request = if path.is_dir() { path.join(REQUEST_FILE) } else { path };
    let answer = match args.first().map(String::as_str) {
        Some("detect") => with_request(&request, |request, runner| {
            let plan = detect::run(request, runner)
                .unwrap_or_else(|problem| BuildPlan { error: Some(report(&problem)), ..BuildPlan::default() });
            files::write_json(&request.paths.output.join(PLAN_FILE), &plan).map(|()| plan.error.is_none())
        }),
        Some("build") => with_request(&request, |request, runner| {
            let outcome = build::run(request, runner)
                .unwrap_or_else(|problem| BuildOutcome { error: Some(report(&problem)), ..BuildOutcome::default() });
            files::write_json(&request.paths.output.join(RESULT_FILE), &outcome).map(|()| outcome.ok)
        }),
        _ => {
            eprintln!("usage: builder detect|build [REQUEST]");
            return NO_ANSWER;
        }
    };
    match answer {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("The builder could not do its work: {error}");
            if out_of_space(&error) { EXIT_NO_SPACE } else { NO_ANSWER }
        }
    }
}

fn out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn with_request(path: &Path, phase: impl FnOnce(&BuildRequest, &Runner) -> io::Result<bool>) -> io::Result<bool> {
    let request: BuildRequest = files::read_json(path)?;
    let runner = Runner::new(Duration::from_millis(request.limits.timeout_ms), request.limits.max_output_bytes);
    phase(&request, &runner)
}

/// Prints a failure in the build's output, as one line with Cloud Foundry's name for it at the end, and returns it for the
/// build's result, which clients show below the output.
fn report(problem: &Problem) -> slipway_buildpacks::contract::BuildError {
    let error = problem.to_error();
    println!("-----> Staging failed: {} [{}]", error.text.lines().next().unwrap_or_default(), error.id);
    error
}

/// A failure of the machine, with the step and its cause; a full disk is the app's matter and said so.
fn platform(step: &str, error: impl std::error::Error + 'static) -> Problem {
    let mut text = step.to_owned();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && out_of_space(io)
        {
            return Problem::NoSpace { step: step.to_owned() };
        }
        text += &format!(": {error}");
        cause = error.source();
    }
    Problem::Platform(text)
}
