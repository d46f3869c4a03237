//! The text of an access line.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use http::{HeaderValue, Method, Uri, Version};

use crate::table::Endpoint;

/// Bytes of a header's value that a line shows, and of the request's target: a line is about a request, not a copy of it.
const MAX_HEADER_BYTES: usize = 1 << 10;
const MAX_TARGET_BYTES: usize = 4 << 10;

/// What a line is made of. It shares the request's head, so it must not outlive its request.
#[derive(Debug)]
pub(crate) struct Line {
    /// When the request came.
    pub(crate) unix_ns: i64,
    pub(crate) host: String,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) referer: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) remote: SocketAddr,
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) forwarded_proto: Option<HeaderValue>,
    pub(crate) request_id: HeaderValue,
    pub(crate) response_time_s: f64,
    pub(crate) router_time_s: f64,
    pub(crate) app_id: Arc<str>,
    /// None when the request went to the route's service.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Why the router answered instead of the app.
    pub(crate) router_error: Option<&'static str>,
}

impl Line {
    /// Appends it in the form of Cloud Foundry's router.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        let mut text = Text(text);
        let time = DateTime::from_timestamp_nanos(self.unix_ns).to_rfc3339_opts(SecondsFormat::Nanos, true);
        let target = self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let endpoint = self.endpoint.as_deref();
        // Writing to memory cannot fail, so the results below are dropped.
        let _ = write!(text, "{} - [{time}] \"{} ", self.host, self.method);
        text.harmless(target.as_bytes(), MAX_TARGET_BYTES);
        let _ = write!(text, " {:?}\" {} {} {} ", self.version, self.status, self.received, self.sent);
        text.header(self.referer.as_ref());
        text.push(" ");
        text.header(self.user_agent.as_ref());
        let _ = write!(text, " \"{}\" ", self.remote);
        let _ = match endpoint {
            Some(endpoint) => write!(text, "\"{}\"", endpoint.address),
            None => write!(text, "\"-\""),
        };
        text.push(" x_forwarded_for:");
        text.header(self.forwarded_for.as_ref());
        text.push(" x_forwarded_proto:");
        text.header(self.forwarded_proto.as_ref());
        text.push(" vcap_request_id:");
        text.header(Some(&self.request_id));
        let (response, router) = (self.response_time_s, self.router_time_s);
        let _ = write!(text, " response_time:{response:.6} gorouter_time:{router:.6} app_id:\"{}\"", self.app_id);
        let _ = match endpoint {
            Some(endpoint) => write!(text, " app_index:\"{}\"", endpoint.index),
            None => write!(text, " app_index:\"-\""),
        };
        text.push(" instance_id:");
        text.quoted(endpoint.map_or(b"-", |endpoint| endpoint.assignment_id.as_bytes()));
        text.push(" x_cf_routererror:");
        text.quoted(self.router_error.unwrap_or("-").as_bytes());
    }
}

/// Where the text goes.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text);
        Ok(())
    }
}

impl Text<'_> {
    fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn header(&mut self, value: Option<&HeaderValue>) {
        self.quoted(value.map_or(b"-", HeaderValue::as_bytes));
    }

    fn quoted(&mut self, bytes: &[u8]) {
        self.push("\"");
        self.harmless(bytes, MAX_HEADER_BYTES);
        self.push("\"");
    }

    /// With what could end the quotes or the line made harmless; `...` at the end stands for more than `most` bytes.
    fn harmless(&mut self, bytes: &[u8], most: usize) {
        let (shown, cut) = if bytes.len() > most { (&bytes[..most], "...") } else { (bytes, "") };
        for byte in shown {
            match byte {
                b'"' | b'\\' => self.0.extend_from_slice(&[b'\\', *byte]),
                0x20..=0x7e => self.0.push(*byte),
                other => {
                    let _ = write!(self, "\\x{other:02x}");
                }
            }
        }
        self.push(cut);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::access_log) fn line(app: &str) -> Line {
        let endpoint = Endpoint {
            key: 1,
            pool_id: "pool".into(),
            assignment_id: "iid".into(),
            index: 2,
            address: ([10, 0, 0, 1], 61001).into(),
            tls: false,
            http2: false,
            app_id: app.into(),
            headers: None,
            under_way: Arc::default(),
        };
        Line {
            unix_ns: 1_700_000_000_123_456_789,
            host: "app.test".into(),
            method: Method::GET,
            uri: Uri::from_static("/a?b=c"),
            version: Version::HTTP_11,
            status: 200,
            received: 3,
            sent: 14,
            referer: None,
            user_agent: Some(HeaderValue::from_bytes(b"evil\" \\ \xff").expect("value")),
            remote: ([10, 0, 0, 9], 5555).into(),
            forwarded_for: Some(HeaderValue::from_static("10.0.0.9")),
            forwarded_proto: Some(HeaderValue::from_static("https")),
            request_id: HeaderValue::from_static("rid"),
            response_time_s: 0.25,
            router_time_s: 0.001,
            app_id: app.into(),
            endpoint: Some(Arc::new(endpoint)),
            router_error: Some("endpoint_failure (reset)"),
        }
    }

    fn text(line: &Line) -> String {
        let mut text = Vec::new();
        line.write(&mut text);
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn lines_look_like_cloud_foundrys() {
        assert_eq!(
            text(&line("aid")),
            "app.test - [2023-11-14T22:13:20.123456789Z] \"GET /a?b=c HTTP/1.1\" 200 3 14 \"-\" \"evil\\\" \\\\ \\xff\" \
             \"10.0.0.9:5555\" \"10.0.0.1:61001\" x_forwarded_for:\"10.0.0.9\" x_forwarded_proto:\"https\" \
             vcap_request_id:\"rid\" response_time:0.250000 gorouter_time:0.001000 app_id:\"aid\" app_index:\"2\" \
             instance_id:\"iid\" x_cf_routererror:\"endpoint_failure (reset)\""
        );
        let through = text(&Line { endpoint: None, router_error: None, ..line("aid") });
        assert!(through.contains(" \"10.0.0.9:5555\" \"-\" x_forwarded_for:"), "{through}");
        assert!(
            through.ends_with(" app_id:\"aid\" app_index:\"-\" instance_id:\"-\" x_cf_routererror:\"-\""),
            "{through}"
        );
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        let long = |byte: u8, count| HeaderValue::from_bytes(&vec![byte; count]).expect("value");
        let uri = format!("/{}", "t".repeat(60_000)).parse().expect("uri");
        let worst = Line {
            uri,
            referer: Some(long(b'r', 30_000)),
            user_agent: Some(long(0xff, 30_000)),
            forwarded_for: Some(long(b'"', 30_000)),
            forwarded_proto: Some(long(b'p', MAX_HEADER_BYTES)),
            ..line("aid")
        };
        let text = text(&worst);
        assert!(text.contains(&format!("GET /{}... HTTP/1.1", "t".repeat(MAX_TARGET_BYTES - 1))));
        assert!(text.contains(&format!(" \"{}...\" ", "r".repeat(MAX_HEADER_BYTES))));
        assert!(
            text.contains(&format!(" x_forwarded_proto:\"{}\" ", "p".repeat(MAX_HEADER_BYTES))),
            "not longer than it may be"
        );
        assert!(
            text.ends_with(" x_cf_routererror:\"endpoint_failure (reset)\"") && text.len() < slipway_log_ring::MAX_TEXT
        );
    }
}
