//! `run`: a task of which one sees what it writes, and which ends the command with its own exit code.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use slipway_chassis::sizes::{LEAST_DISK_MB, LEAST_MEMORY_MB};

use super::Session;
use super::logs::OVERLAP;
use crate::args::RunArgs;
use crate::client::logs::{Line, Tail};
use crate::client::views::{App, Task, decode};
use crate::error::{CliError, clean};
use crate::exit::Exit;
use crate::size::parse_mib;
use crate::under_way::Unfinished;

const PAUSE: Duration = Duration::from_millis(150);
/// Reads without a line after which no more is expected of a task that has ended: its last lines are collected on another
/// machine.
const EMPTY_READS: u32 = 6;
/// A task that has not begun after so long is said to wait.
const WAITING: Duration = Duration::from_secs(3);

pub(super) async fn run(session: &Session, args: RunArgs) -> Result<Exit, CliError> {
    let body = body(&command_line(&args.command), None, args.memory.as_deref(), args.disk.as_deref())?;
    let app = session.app_or_default(args.name).await?;
    if is_bare_shell(&args.command) {
        session.printer.say("A task has no input, so a shell alone ends at once; give it a command: `-- bash -c '…'`.");
    }
    match follow(session, &app, body).await {
        // The command has said itself what was wrong.
        Err(CliError::TaskFailed { code: Some(code), .. }) => Ok(Exit::Task(code)),
        other => other.map(|_| Exit::Success),
    }
}

/// The request for a task.
pub(super) fn body(
    command: &str,
    name: Option<&str>,
    memory: Option<&str>,
    disk: Option<&str>,
) -> Result<Value, CliError> {
    let mut body = json!({ "command": command });
    if let Some(name) = name {
        body["name"] = name.into();
    }
    if let Some(memory) = memory {
        body["memory_in_mb"] = parse_mib(memory, LEAST_MEMORY_MB)?.into();
    }
    if let Some(disk) = disk {
        body["disk_in_mb"] = parse_mib(disk, LEAST_DISK_MB)?.into();
    }
    Ok(body)
}

/// Runs a task and shows its output until it ends; its last state.
pub(super) async fn follow(session: &Session, app: &App, body: Value) -> Result<Value, CliError> {
    let client = session.client()?;
    let mut tail = Tail::from_now(client, &app.guid, OVERLAP).await?;
    let path = format!("/v3/apps/{}/tasks", app.guid);
    let mut whole: Value = client.send_json(Method::POST, &path, body).await?;
    let mut task: Task = decode(whole.clone(), "tasks")?;
    let unfinished = Unfinished::Task { app: app.clone(), guid: task.guid.clone(), sequence: task.sequence_id };
    session.under_way.begin(unfinished);
    session.printer.say(&format!("Running task {} of '{}' …", task.sequence_id, app.name));
    let source = format!("APP/TASK/{}", task.name);
    let begun = Instant::now();
    let (mut warned, mut empty) = (false, 0);
    loop {
        let ended = matches!(task.state.as_str(), "SUCCEEDED" | "FAILED");
        let lines: Vec<Line> = tail.next(client).await?.into_iter().filter(|line| line.source == source).collect();
        lines.iter().try_for_each(|line| print(session, line))?;
        empty = if lines.is_empty() && ended { empty + 1 } else { 0 };
        if empty >= EMPTY_READS {
            break;
        }
        if task.state == "PENDING" && !warned && begun.elapsed() > WAITING {
            session.printer.say("   waiting for a cell with room");
            warned = true;
        }
        tokio::time::sleep(PAUSE).await;
        if !ended {
            whole = client.get(&format!("/v3/tasks/{}", task.guid)).await?;
            task = decode(whole.clone(), "tasks")?;
        }
    }
    session.under_way.end();
    if task.state == "FAILED" {
        return Err(failed(app, task));
    }
    Ok(whole)
}

/// The failure of a task that has ended.
pub(super) fn failed(app: &App, task: Task) -> CliError {
    let reason = task.result.and_then(|result| result.failure_reason);
    let reason = reason.unwrap_or_else(|| "the platform gave no reason".to_owned());
    CliError::TaskFailed { app: app.name.clone(), sequence: task.sequence_id, code: exit_code(&reason), reason }
}

/// What the command ended with, out of the platform's words.
fn exit_code(reason: &str) -> Option<u8> {
    let (_, rest) = reason.split_once("exited with status ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|code| *code > 0)
}

/// Standard output to standard output, standard error to standard error; as it is, but for what could play tricks on a
/// terminal.
fn print(session: &Session, line: &Line) -> Result<(), CliError> {
    let printer = &session.printer;
    if printer.wants_json() {
        return printer.json_line(line);
    }
    let text = if printer.has_screen() { clean(&line.text, true) } else { line.text.clone() };
    if line.error {
        printer.stderr_line(&text);
        return Ok(());
    }
    printer.data(&text)
}

/// Whether the command is a shell that would ask for commands.
fn is_bare_shell(words: &[String]) -> bool {
    let [word] = words else { return false };
    matches!(word.rsplit('/').next(), Some("bash" | "sh"))
}

/// A command for the shell that starts tasks: one word is a whole command line, several are a command and its arguments as
/// they are.
fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quote = |word: &String| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    match words {
        [one] => one.clone(),
        several => several.iter().map(quote).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_arrive_as_they_were_typed() {
        let line = |words: &[&str]| command_line(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["node -v | cat"]), "node -v | cat");
        assert_eq!(line(&["node", "-v"]), "node -v");
        assert_eq!(line(&["echo", "a b", "", "it's", "$HOME"]), r"echo 'a b' '' 'it'\''s' '$HOME'");
    }

    #[test]
    fn a_shell_without_a_command_is_known() {
        let bare = |words: &[&str]| is_bare_shell(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert!(bare(&["bash"]) && bare(&["/bin/sh"]));
        assert!(!bare(&["bash", "-c", "ls"]) && !bare(&["bash -c ls"]) && !bare(&["node"]));
    }

    #[test]
    fn exit_codes_are_read_out_of_the_platforms_words() {
        assert_eq!(exit_code("exited with status 3"), Some(3));
        assert_eq!(exit_code("APP/TASK/x: exited with status 143 (stopped)"), Some(143));
        for reason in
            ["out of memory: limit 64 MiB", "exited with status 0", "exited with status 999", "exited with status"]
        {
            assert_eq!(exit_code(reason), None, "{reason}");
        }
    }
}
