//! `logs`: the last lines, or lines as they come.

use std::time::Duration;

use chrono::{DateTime, Local};

use super::Session;
use crate::args::LogsArgs;
use crate::client::ClientError;
use crate::client::logs::{Line, Tail};
use crate::error::CliError;

/// How late a line of one cell may arrive after younger ones of others.
const OVERLAP: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(250);
/// Failures in a row after which following ends.
const TRIES: u32 = 20;
/// Lines that `--recent` shows, as the `cf` command line does it.
const RECENT: usize = 1000;

pub(super) async fn logs(session: &Session, args: LogsArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let client = session.client()?;
    if args.recent {
        return client.recent_logs(&app.guid, RECENT).await?.iter().try_for_each(|line| print(session, line));
    }
    let mut tail = Tail::from_now(client, &app.guid, OVERLAP).await?;
    session.printer.say(&format!("Following the logs of '{}'; Ctrl-C ends.", app.name));
    let mut failures = 0;
    loop {
        match tail.next(client).await {
            Ok(lines) => {
                if failures > 0 {
                    session.printer.warn("the logs can be read again");
                }
                failures = 0;
                lines.iter().try_for_each(|line| print(session, line))?;
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
        tokio::time::sleep(PAUSE * (1 + failures)).await;
    }
}

fn print(session: &Session, line: &Line) -> Result<(), CliError> {
    if session.printer.wants_json() {
        return session.printer.json_line(line);
    }
    let time = DateTime::from_timestamp_nanos(line.timestamp).with_timezone(&Local).format("%Y-%m-%dT%H:%M:%S%.3f%z");
    let stream = if line.error { "ERR" } else { "OUT" };
    session.printer.data(&format!("{time} [{}/{}] {stream} {}", line.source, line.instance, line.text))
}
