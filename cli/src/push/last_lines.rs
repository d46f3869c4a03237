//! The last lines of an app that does not run.

use crate::client::logs::Line;
use crate::client::views::App;
use crate::commands::Session;
use crate::error::printable;

/// Lines shown of an app that crashed.
const CRASH_LINES: usize = 30;

/// Shows the last lines of an app that does not run.
pub(super) async fn show_last_lines(session: &Session, app: &App) {
    let Ok(client) = session.client() else { return };
    // The crash is the failure to report; logs that cannot be read are not.
    let Ok(lines) = client.recent_logs(&app.guid, 200).await else { return };
    let lines: Vec<_> =
        lines.iter().filter(|line| line.source.starts_with("APP") || line.source.starts_with("CELL")).collect();
    let lines = since_start(&lines);
    let shown = lines.len().saturating_sub(CRASH_LINES);
    if !lines.is_empty() {
        session.printer.say(&format!("Last lines of '{}':", app.name));
    }
    for line in &lines[shown..] {
        session.printer.say(&format!("   {} | {}", line.label(), printable(&line.text)));
    }
}

/// The lines since the version of the last one was started first: what was wrong with an earlier one is no help.
fn since_start<'a, 'b>(lines: &'b [&'a Line]) -> &'b [&'a Line] {
    let Some(last) = lines.last() else { return lines };
    let first_start =
        |line: &&Line| line.instance == last.instance && line.source.starts_with("CELL") && line.text == "starting";
    &lines[lines.iter().rposition(first_start).unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_earlier_version_are_left_out() {
        let line = |source: &str, instance: &str, text: &str| Line {
            timestamp: 0,
            source: source.into(),
            instance: instance.into(),
            error: false,
            text: text.into(),
        };
        let all = [
            line("CELL/0", "0", "starting"),
            line("APP/PROC/WEB", "0", "old"),
            line("CELL/0", "0", "starting"),
            line("CELL/1", "1", "starting"),
            line("APP/PROC/WEB", "0", "new"),
            line("CELL/0", "0", "starting again (start 2)"),
            line("APP/PROC/WEB", "0", "new again"),
        ];
        let all: Vec<&Line> = all.iter().collect();
        assert_eq!(since_start(&all), &all[2..]);
        assert_eq!(since_start(&all[1..2]), &all[1..2], "its start is not among them");
        assert!(since_start(&[]).is_empty());
    }
}
