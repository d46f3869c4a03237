//! `logs`: the last lines, or lines as they come.

use std::os::fd::AsFd as _;
use std::time::Duration;

use chrono::{DateTime, Local, Utc};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Session;
use crate::args::LogsArgs;
use crate::client::ClientError;
use crate::client::logs::{LIMIT, Line, Tail};
use crate::error::{CliError, clean};

/// How late a line of one cell may arrive after younger ones of others.
pub(super) const OVERLAP: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(250);
/// Failures in a row after which following ends.
const TRIES: u32 = 20;
/// Lines with which following begins when nothing is said about it.
const BEFORE: u32 = 20;
/// Where lines come from, as --source has it.
const SOURCES: &[&str] = &["app", "task", "rtr", "stg", "cell", "api"];

pub(super) async fn logs(session: &Session, args: LogsArgs) -> Result<(), CliError> {
    let filter = LogFilter::of(&args)?;
    let app = session.app_or_default(args.name.clone()).await?;
    let client = session.client()?;
    let chosen = args.recent || args.lines.is_some() || args.since.is_some();
    let follow = args.follow || !chosen;
    // Following begins with something to look at.
    let lines = if chosen { args.lines } else { Some(BEFORE) };
    let mut tail = if follow { Some(Tail::from_now(client, &app.guid, OVERLAP).await?) } else { None };
    if lines != Some(0) || !follow {
        let mut found = client.logs_since(&app.guid, filter.start, LIMIT).await?;
        // What is younger comes with the tail.
        let until = tail.as_ref().map_or(i64::MAX, Tail::newest);
        found.retain(|line| filter.has(line) && line.timestamp <= until);
        let skipped = lines.map_or(0, |count| found.len().saturating_sub(count as usize));
        if found.is_empty() && !follow {
            session
                .printer
                .say(&format!("There are no such lines of '{}'. `slipway logs {0} -f` waits for some.", app.name));
        }
        found[skipped..].iter().try_for_each(|line| print(session, line))?;
    }
    let Some(tail) = &mut tail else { return Ok(()) };
    session.printer.say(&format!("Following the logs of '{}'; Ctrl-C ends.", app.name));
    let mut failures = 0;
    loop {
        match tail.next(client).await {
            Ok(lines) => {
                if failures > 0 {
                    session.printer.warn("the logs can be read again");
                }
                failures = 0;
                lines.iter().filter(|line| filter.has(line)).try_for_each(|line| print(session, line))?;
            }
            Err(ClientError::Logs { source }) if source.has_status(404) => {
                session.printer.say(&format!("'{}' is deleted: there is nothing more to follow.", app.name));
                return Ok(());
            }
            // The platform may restart under us; the tail continues where it was.
            Err(error @ ClientError::Logs { .. }) if failures < TRIES => {
                if failures == 0 {
                    session.printer.warn(&format!("{}; trying again", slipway_chassis::errors::chain(&error)));
                }
                failures += 1;
            }
            Err(error) => return Err(error.into()),
        }
        if reader_is_gone() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE * (1 + failures)).await;
    }
}

/// Whether standard output is a pipe that nobody reads any more, as after `| head`. Otherwise a write would be the first
/// to notice, and a quiet app writes nothing.
fn reader_is_gone() -> bool {
    let out = std::io::stdout();
    let mut pipe = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let polled = poll(&mut pipe, PollTimeout::ZERO);
    polled.is_ok() && pipe[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// Which lines are shown.
#[derive(Debug)]
struct LogFilter {
    /// Nanoseconds since the epoch.
    start: i64,
    sources: Vec<String>,
}

impl LogFilter {
    fn of(args: &LogsArgs) -> Result<Self, CliError> {
        let start = match &args.since {
            None => 0,
            Some(text) => {
                let begin = Utc::now() - duration(text)?;
                begin.timestamp_nanos_opt().unwrap_or_default().max(0)
            }
        };
        let sources: Vec<String> = args.source.iter().map(|source| source.trim().to_ascii_lowercase()).collect();
        match sources.iter().find(|source| !SOURCES.contains(&source.as_str())) {
            None => Ok(Self { start, sources }),
            Some(other) => Err(CliError::Usage {
                message: format!("'{other}' is not a source of log lines."),
                hint: format!(
                    "Write one or more of {}, with commas between them. `app` has the lines of all processes.",
                    SOURCES.join(", ")
                ),
            }),
        }
    }

    fn has(&self, line: &Line) -> bool {
        let source = line.source.to_ascii_lowercase();
        let first = source.split('/').next().unwrap_or_default();
        let is = |filter: &String| {
            if filter == "task" { source.starts_with("app/task/") } else { first == filter.as_str() }
        };
        self.sources.is_empty() || self.sources.iter().any(is)
    }
}

/// A while as people write it: `30s`, `10m`, `2h`, `1d`.
fn duration(text: &str) -> Result<chrono::TimeDelta, CliError> {
    let bad = || CliError::Usage {
        message: format!("'{text}' is not a length of time."),
        hint: "Write a whole number and a unit: 30s, 10m, 2h, 1d.".to_owned(),
    };
    let unit = text.chars().last().ok_or_else(bad)?;
    let number: u32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| bad())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    chrono::TimeDelta::try_seconds(i64::from(number) * seconds).ok_or_else(bad)
}

fn print(session: &Session, line: &Line) -> Result<(), CliError> {
    if session.printer.wants_json() {
        return session.printer.json_line(line);
    }
    let time = DateTime::from_timestamp_nanos(line.timestamp).with_timezone(&Local);
    if session.printer.has_screen() {
        let colours = session.environment.variable("NO_COLOR").is_none();
        let mut line = line.clone();
        if line.source.starts_with("RTR") && !session.printer.is_verbose() {
            line.text = super::access_line::short(&line.text).unwrap_or(line.text);
        }
        return session.printer.data(&on_screen(&line, &time.format("%H:%M:%S%.3f").to_string(), colours));
    }
    // Stable, for programs: a line that has one form today has it tomorrow.
    let time = time.format("%Y-%m-%dT%H:%M:%S%.3f%z");
    let stream = if line.error { "ERR" } else { "OUT" };
    session.printer.data(&format!("{time} [{}/{}] {stream} {}", line.source, line.instance, clean(&line.text, false)))
}

/// A line for people: the time of day, a short word for the source in its colour, the text with its own colours.
fn on_screen(line: &Line, time: &str, colours: bool) -> String {
    let label = line.label();
    let text = clean(&line.text, colours);
    if !colours {
        let mark = if line.error { " !" } else { "" };
        return format!("{time} {label}{mark} | {text}");
    }
    // Red is for what went to standard error.
    let colour = match (line.error, line.source.split('/').next().unwrap_or_default()) {
        (true, _) => 31,
        (_, "APP") => 36,
        (_, "RTR") => 35,
        (_, "STG") => 33,
        (_, "API") => 34,
        _ => 90,
    };
    let mark = if line.error { " !" } else { "" };
    format!("\u{1b}[90m{time}\u{1b}[0m \u{1b}[{colour}m{label}{mark} |\u{1b}[0m {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: &str, error: bool, text: &str) -> Line {
        Line { timestamp: 0, source: source.into(), instance: "1".into(), error, text: text.into() }
    }

    fn filter(source: &[&str]) -> Result<LogFilter, CliError> {
        LogFilter::of(&LogsArgs {
            name: None,
            recent: false,
            lines: None,
            since: None,
            source: source.iter().map(|&one| one.to_owned()).collect(),
            follow: false,
        })
    }

    #[test]
    fn sources_choose_lines() {
        let all = ["APP/PROC/WEB", "APP/TASK/migrate", "RTR", "STG/0", "CELL", "API"];
        let shown = |names: &[&str]| {
            let filter = filter(names).expect("sources");
            all.into_iter().filter(|source| filter.has(&line(source, false, ""))).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[]), all);
        assert_eq!(shown(&["app", "RTR"]), ["APP/PROC/WEB", "APP/TASK/migrate", "RTR"]);
        assert_eq!(shown(&["task"]), ["APP/TASK/migrate"]);
        assert_eq!(shown(&["stg"]), ["STG/0"]);
        assert!(filter(&["ap"]).expect_err("no source").to_string().contains("'ap'"));
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(duration(text).expect(text).num_seconds(), seconds);
        }
        for text in ["", "10", "m", "-1m", "1.5h", "10 m", "5ä", "99999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_screen_shows_short_labels_and_a_mark_for_errors_that_needs_no_colour() {
        assert_eq!(on_screen(&line("APP/PROC/WEB", false, "\u{1b}[31mhi"), "12:00:00", false), "12:00:00 web.1 | hi");
        assert_eq!(on_screen(&line("APP/TASK/migrate", true, "no"), "12:00:00", false), "12:00:00 task migrate ! | no");
        let coloured = on_screen(&line("RTR", false, "\u{1b}[31mhi"), "12:00:00", true);
        assert!(coloured.contains("[35mrouter |") && coloured.ends_with("\u{1b}[31mhi\u{1b}[0m"), "{coloured:?}");
    }
}
