//! Reading the log cache: the last lines, and lines as they come.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};

use super::url::query;
use super::{Client, ClientError};

/// Most lines that one read gives.
pub(crate) const LIMIT: usize = 1000;

/// One line of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// Nanoseconds since the epoch.
    pub(crate) timestamp: i64,
    /// `APP/PROC/WEB`, `STG`, `RTR`, …
    pub(crate) source: String,
    /// Index of the instance.
    pub(crate) instance: String,
    /// Whether it was written to standard error.
    pub(crate) error: bool,
    /// The text without its newline.
    pub(crate) text: String,
}

impl Line {
    /// Where it comes from, in short: `web.0`, `task migrate`, `build`, `router`, `cell.1`.
    pub(crate) fn label(&self) -> String {
        let mut parts = self.source.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("APP"), Some("PROC"), Some(kind)) => format!("{}.{}", kind.to_lowercase(), self.instance),
            (Some("APP"), Some("TASK"), Some(name)) => format!("task {name}"),
            (Some("APP"), ..) => format!("app.{}", self.instance),
            (Some("STG"), ..) => "build".to_owned(),
            (Some("RTR"), ..) => "router".to_owned(),
            // A cell's words about an instance. In a remark about the cell itself the number is 0 and means nothing.
            (Some("CELL"), ..) => format!("cell.{}", self.instance),
            (Some(other), ..) => other.to_lowercase(),
            (None, ..) => String::new(),
        }
    }
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    envelopes: Batch,
}

#[derive(Default, Deserialize)]
struct Batch {
    #[serde(default)]
    batch: Vec<Envelope>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default, deserialize_with = "nanoseconds")]
    timestamp: i64,
    #[serde(default)]
    instance_id: String,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    log: Option<Log>,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default)]
    source_type: String,
    #[serde(default)]
    instance_id: Option<String>,
}

#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    payload: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// 64-bit numbers are strings in protobuf's JSON.
fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

impl Envelope {
    fn into_line(self) -> Option<Line> {
        let log = self.log?;
        let bytes = STANDARD.decode(&log.payload).unwrap_or_else(|_| log.payload.clone().into_bytes());
        Some(Line {
            timestamp: self.timestamp,
            source: self.tags.source_type,
            instance: self.tags.instance_id.unwrap_or(self.instance_id),
            error: log.kind == "ERR",
            text: String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned(),
        })
    }
}

impl Client {
    async fn read_logs(&self, app: &str, parameters: &[(&str, &str)]) -> Result<Vec<Line>, ClientError> {
        let path = query(&format!("/api/v1/read/{app}"), parameters);
        let read: Read = self
            .log_cache(&path)
            .await
            .and_then(|answer| answer.json())
            .map_err(|source| ClientError::Logs { source: Box::new(source) })?;
        Ok(read.envelopes.batch.into_iter().filter_map(Envelope::into_line).collect())
    }

    /// The newest `limit` lines, oldest first.
    pub(crate) async fn recent_logs(&self, app: &str, limit: usize) -> Result<Vec<Line>, ClientError> {
        self.logs_since(app, 0, limit).await
    }

    /// The newest `limit` lines that are not older than `start` nanoseconds since the epoch, oldest first.
    pub(crate) async fn logs_since(&self, app: &str, start: i64, limit: usize) -> Result<Vec<Line>, ClientError> {
        let (start, limit) = (start.to_string(), limit.min(LIMIT).to_string());
        let parameters = [
            ("descending", "true"),
            ("envelope_types", "LOG"),
            ("limit", limit.as_str()),
            ("start_time", start.as_str()),
        ];
        let mut lines = self.read_logs(app, &parameters).await?;
        // Those of the same moment keep their order.
        lines.reverse();
        lines.sort_by_key(|line| line.timestamp);
        Ok(lines)
    }
}

/// Follows the lines of an app.
///
/// Lines of several instances may arrive late, after younger ones of others. Each read therefore begins `overlap` before
/// the youngest line seen, and what was given before is left out. Clocks are not compared: the start is a line of the
/// platform itself.
pub(crate) struct Tail {
    app: String,
    overlap: Duration,
    newest: i64,
    seen: HashSet<(i64, String, String, String, usize)>,
    /// The last remark of the platform about missing lines, which it repeats in each answer.
    remark: Option<String>,
}

/// Lines that are looked through for one of the app. The last words about an app that runs are a cell's (`healthy`), a few
/// for each instance; finding no other line would mean to begin with all that the platform still has.
const LOOKED_AT: usize = 200;

/// The time of the youngest line that is not a remark, 0 when there is none.
fn youngest(lines: &[Line]) -> i64 {
    lines.iter().filter(|line| line.source != REMARK).map(|line| line.timestamp).max().unwrap_or(0)
}

/// Lines of the platform itself about a cell. Their time is that of another clock than the app's lines have.
const REMARK: &str = "CELL";

/// Source of the words about lines that are missing; they have the time of the line behind the hole.
const GAP: &str = "LGR";

impl Tail {
    /// Begins after the youngest line there is now.
    pub(crate) async fn from_now(client: &Client, app: &str, overlap: Duration) -> Result<Self, ClientError> {
        let newest = youngest(&client.recent_logs(app, LOOKED_AT).await?);
        let mut tail = Self { app: app.to_owned(), overlap, newest, seen: HashSet::new(), remark: None };
        if newest > 0 {
            // What lies in the overlap already is not new.
            tail.next(client).await?;
        }
        Ok(tail)
    }

    /// The time of the youngest line that is taken for given; 0 when there was none.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// The lines that came since the last call, oldest first.
    pub(crate) async fn next(&mut self, client: &Client) -> Result<Vec<Line>, ClientError> {
        let mut fresh = Vec::new();
        let mut start = self.newest.saturating_sub(self.overlap.as_nanos() as i64).max(0);
        loop {
            let (from, limit) = (start.to_string(), LIMIT.to_string());
            let parameters = [("envelope_types", "LOG"), ("limit", limit.as_str()), ("start_time", from.as_str())];
            let batch = client.read_logs(&self.app, &parameters).await?;
            let full = batch.len() >= LIMIT;
            let youngest = batch.iter().map(|line| line.timestamp).max().unwrap_or(start);
            fresh.extend(self.unseen(batch));
            if !full {
                break;
            }
            // A full batch has more behind it. One nanosecond with more lines than fit must not hold us for ever.
            start = if youngest > start { youngest } else { start + 1 };
        }
        let retained_from = self.newest.saturating_sub(self.overlap.as_nanos() as i64);
        self.seen.retain(|key| key.0 >= retained_from);
        fresh.sort_by_key(|line| line.timestamp);
        Ok(fresh)
    }

    fn unseen(&mut self, batch: Vec<Line>) -> Vec<Line> {
        // Equal lines of the same nanosecond are told apart by how many came before in the same answer.
        let mut counts = std::collections::HashMap::new();
        let mut fresh = Vec::new();
        let before = self.newest;
        for line in batch {
            // Lines are missing before one that was seen: the overlap reaches back to where the log now begins.
            if line.source == GAP && line.timestamp <= before {
                continue;
            }
            let key = (line.timestamp, line.source.clone(), line.instance.clone(), line.text.clone());
            let count: &mut usize = counts.entry(key.clone()).or_default();
            *count += 1;
            if line.source == REMARK {
                if self.remark.as_ref() == Some(&line.text) {
                    continue;
                }
                self.remark = Some(line.text.clone());
            } else {
                self.newest = self.newest.max(line.timestamp);
            }
            if self.seen.insert((key.0, key.1, key.2, key.3, *count)) {
                fresh.push(line);
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(timestamp: i64, text: &str) -> Line {
        Line { timestamp, source: "STG".into(), instance: "0".into(), error: false, text: text.into() }
    }

    #[test]
    fn overlapping_reads_give_each_line_once_and_keep_equal_ones() {
        let mut tail = Tail { app: "a".into(), overlap: Duration::ZERO, newest: 0, seen: HashSet::new(), remark: None };
        assert_eq!(tail.unseen(vec![line(1, "x"), line(2, ""), line(2, "")]).len(), 3);
        assert_eq!(
            tail.unseen(vec![line(2, ""), line(2, ""), line(2, "late"), line(3, "y")]),
            [line(2, "late"), line(3, "y")]
        );
        assert_eq!(tail.newest, 3);
    }

    #[test]
    fn a_cells_own_line_after_the_last_line_does_not_hide_it() {
        let remark = |timestamp| Line { source: REMARK.into(), ..line(timestamp, "healthy") };
        assert_eq!(youngest(&[line(1, "x"), line(2, "y"), remark(3), remark(4)]), 2);
        assert_eq!(youngest(&[remark(3)]), 0);
    }

    #[test]
    fn a_repeated_remark_is_given_once_and_does_not_move_the_tail() {
        let mut tail = Tail { app: "a".into(), overlap: Duration::ZERO, newest: 3, seen: HashSet::new(), remark: None };
        let remark = |timestamp| Line { source: REMARK.into(), ..line(timestamp, "cell a did not answer") };
        assert_eq!(tail.unseen(vec![remark(100)]).len(), 1);
        assert_eq!(tail.unseen(vec![line(4, "x"), remark(200)]), [line(4, "x")]);
        assert_eq!(tail.newest, 4);
    }

    #[test]
    fn a_label_says_which_instance() {
        for (source, label) in [
            ("APP/PROC/WEB", "web.2"),
            ("APP/PROC/WEB/SIDECAR/HELPER", "web.2"),
            ("APP/TASK/migrate", "task migrate"),
            ("STG/0", "build"),
            ("CELL", "cell.2"),
            ("API/0", "api"),
        ] {
            let line = Line { source: source.into(), instance: "2".into(), ..line(1, "x") };
            assert_eq!(line.label(), label);
        }
    }

    #[test]
    fn a_gap_is_reported_when_it_lies_after_lines_that_were_shown() {
        let mut tail = Tail { app: "a".into(), overlap: Duration::ZERO, newest: 5, seen: HashSet::new(), remark: None };
        let gap = |timestamp| Line { source: GAP.into(), ..line(timestamp, "9 lines are missing here") };
        assert_eq!(tail.unseen(vec![gap(4), line(4, "x")]), [line(4, "x")], "the log has lost what was shown");
        assert_eq!(tail.unseen(vec![gap(7), line(7, "y")]), [gap(7), line(7, "y")]);
    }

    #[test]
    fn envelopes_are_read_with_numbers_as_strings_and_without_logs() {
        let read: Read = serde_json::from_str(
            r#"{"envelopes":{"batch":[
                {"timestamp":"17","source_id":"g","instance_id":"3","tags":{"source_type":"APP/PROC/WEB"},
                 "log":{"payload":"aGk=","type":"ERR"}},
                {"timestamp":18,"gauge":{"metrics":{}}}]}}"#,
        )
        .expect("decoded");
        let lines: Vec<Line> = read.envelopes.batch.into_iter().filter_map(Envelope::into_line).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (lines[0].timestamp, lines[0].text.as_str(), lines[0].instance.as_str(), lines[0].error),
            (17, "hi", "3", true)
        );
    }
}
