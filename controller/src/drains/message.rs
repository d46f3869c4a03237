//! A line as RFC 5424, with Cloud Foundry's fields. Pure.

use std::fmt::Write as _;

use chrono::DateTime;
use slipway_protocol::v1;

use crate::store::drains::DrainRow;

/// `user.info` and `user.error`.
const INFO: u8 = 14;
const ERROR: u8 = 11;
/// Of the structured data, as Cloud Foundry has it.
const ID: &str = "tags@47450";
const MAX_HOST: usize = 255;
const MAX_PROCESS: usize = 128;

/// What is the same for all lines of a drain.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `org.space.app`.
    host: String,
    app: String,
}

impl Names {
    pub(super) fn of(row: &DrainRow) -> Self {
        let parts = [&row.organization_name, &row.space_name, &row.app_name];
        let host = parts.map(|part| plain(part)).join(".").chars().take(MAX_HOST).collect();
        Self { host, app: row.app.to_string() }
    }
}

/// Letters, digits and dashes: what a host name may hold.
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_whitespace() { '-' } else { c }).collect();
    text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>().trim_matches('-').to_owned()
}

/// A line of an app or of a router.
pub(super) fn of(names: &Names, line: &v1::LogLine) -> Vec<u8> {
    let mut process = line.source_type.replace(' ', "-");
    if !line.instance_id.is_empty() {
        process = format!("{process}/{}", line.instance_id);
    }
    build(names, line, if line.stderr { ERROR } else { INFO }, &process, &line.text)
}

/// What is said before the first line that comes after a loss.
pub(super) fn about_loss(names: &Names, line: &v1::LogLine, lost: u64) -> Vec<u8> {
    let text = format!("{lost} messages were lost: this drain could not be reached in time, or is too slow.");
    build(names, line, ERROR, "LGR", text.as_bytes())
}

fn build(names: &Names, line: &v1::LogLine, priority: u8, process: &str, text: &[u8]) -> Vec<u8> {
    let time = DateTime::from_timestamp_nanos(line.unix_ns).format("%Y-%m-%dT%H:%M:%S%.6f%:z");
    let process: String = process.chars().filter(char::is_ascii_graphic).take(MAX_PROCESS - 2).collect();
    let mut head = format!("<{priority}>1 {time} {} {} [{process}] - [{ID}", names.host, names.app);
    let own = [("instance_id", &line.instance_id), ("source_type", &line.source_type)];
    let tags = line
        .tags
        .iter()
        .map(|tag| (tag.name.as_str(), &tag.value))
        .filter(|(name, _)| is_name(name) && own.iter().all(|(other, _)| other != name));
    for (name, value) in tags.chain(own) {
        // Writing to a string does not fail.
        let _ = write!(head, " {name}=\"{}\"", escaped(value));
    }
    head.push_str("] ");
    let mut message = head.into_bytes();
    // A NUL ends a line for some receivers, and a line feed for others.
    message.extend(text.iter().filter(|byte| !matches!(byte, 0 | b'\n')));
    message.push(b'\n');
    message
}

/// SD-NAME of RFC 5424.
fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"'))
}

fn escaped(value: &str) -> String {
    value.chars().fold(String::with_capacity(value.len()), |mut out, c| {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { host: "acme.dev.my-shop".into(), app: "guid".into() }
    }

    #[test]
    fn a_line_has_cloud_foundrys_fields() {
        let line = v1::LogLine {
            unix_ns: 1_700_000_000_123_456_789,
            text: b"hello\0 [world]".to_vec().into(),
            source_type: "APP/PROC/WEB".into(),
            instance_id: "0".into(),
            tags: vec![
                v1::EnvVar { name: "app_name".into(), value: "my \"shop]".into() },
                v1::EnvVar { name: "bad name".into(), value: "x".into() },
                v1::EnvVar { name: "source_type".into(), value: "twice".into() },
            ],
            ..v1::LogLine::default()
        };
        let text = String::from_utf8(of(&names(), &line)).expect("text");
        assert_eq!(
            text,
            "<14>1 2023-11-14T22:13:20.123456+00:00 acme.dev.my-shop guid [APP/PROC/WEB/0] - \
             [tags@47450 app_name=\"my \\\"shop\\]\" instance_id=\"0\" source_type=\"APP/PROC/WEB\"] hello [world]\n"
        );
        let text = String::from_utf8(of(&names(), &v1::LogLine { stderr: true, ..line.clone() })).expect("text");
        assert!(text.starts_with("<11>1 "), "{text}");
        let text = String::from_utf8(about_loss(&names(), &line, 7)).expect("text");
        assert!(text.contains("[LGR] - ") && text.contains("] 7 messages were lost"), "{text}");
    }

    #[test]
    fn names_become_host_names() {
        assert_eq!(plain("My Org_1!"), "My-Org1");
        assert_eq!(plain("-ä-"), "");
    }
}
