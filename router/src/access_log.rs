//! One line per request of an app, into that app's ring.
//!
//! Requests hand a record to a bounded channel and go on; one thread formats and writes. When the disk is slower than the
//! requests, records are dropped and counted per app, and the ring gets a line that says how many.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat};
use http::{HeaderValue, Method, Uri, Version};
use slipway_chassis::chain;
use slipway_log_ring::{NOTICE, RingError, Writer};

/// Records that may wait. Each holds its request's head, some kilobytes at most.
const MOST_WAITING: usize = 8192;
/// Rings held open; the one that was written longest ago is closed for a new one.
const MOST_OPEN: usize = 256;
/// A ring that nobody wrote to for this long is of an app that is gone.
const FORGET: Duration = Duration::from_secs(7 * 24 * 3600);
const TIDY: Duration = Duration::from_secs(3600);

/// What a line is made of.
#[derive(Debug)]
pub(crate) struct Line {
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
    /// None when the request went to the route's service.
    pub(crate) backend: Option<SocketAddr>,
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) forwarded_proto: Option<HeaderValue>,
    pub(crate) request_id: HeaderValue,
    pub(crate) response_time_s: f64,
    pub(crate) router_time_s: f64,
    pub(crate) app_id: Arc<str>,
    pub(crate) app_index: Option<u32>,
    pub(crate) instance_id: String,
    /// Why the router answered instead of the app.
    pub(crate) router_error: Option<&'static str>,
}

impl Line {
    /// In the form of Cloud Foundry's router.
    fn text(&self) -> String {
        let time = DateTime::from_timestamp_nanos(self.unix_ns).to_rfc3339_opts(SecondsFormat::Nanos, true);
        let target = self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut text = format!("{} - [{time}] ", self.host);
        let request = format!("{} {target} {:?}", self.method, self.version);
        quoted(&mut text, request.as_bytes());
        let _ = write!(text, " {} {} {} ", self.status, self.received, self.sent);
        header(&mut text, self.referer.as_ref());
        text.push(' ');
        header(&mut text, self.user_agent.as_ref());
        let _ = write!(text, " \"{}\" \"{}\" x_forwarded_for:", self.remote, or_dash(self.backend));
        header(&mut text, self.forwarded_for.as_ref());
        text.push_str(" x_forwarded_proto:");
        header(&mut text, self.forwarded_proto.as_ref());
        text.push_str(" vcap_request_id:");
        header(&mut text, Some(&self.request_id));
        let _ = write!(
            text,
            " response_time:{:.6} gorouter_time:{:.6} app_id:\"{}\" app_index:\"{}\" instance_id:",
            self.response_time_s,
            self.router_time_s,
            self.app_id,
            or_dash(self.app_index)
        );
        quoted(&mut text, self.instance_id.as_bytes());
        text.push_str(" x_cf_routererror:");
        quoted(&mut text, self.router_error.unwrap_or("-").as_bytes());
        text
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn header(text: &mut String, value: Option<&HeaderValue>) {
    quoted(text, value.map_or(b"-", HeaderValue::as_bytes));
}

/// In quotes, with what could end the quotes or the line made harmless.
fn quoted(text: &mut String, bytes: &[u8]) {
    text.push('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            0x20..=0x7e => text.push(char::from(*byte)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text.push('"');
}

/// Directory of an app's ring; `None` for an id that is no id.
pub(crate) fn ring_directory(root: &Path, app_id: &str) -> Option<PathBuf> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!app_id.is_empty() && app_id.len() <= 64 && app_id.bytes().all(good)).then(|| root.join(app_id))
}

#[derive(Debug, Default)]
struct Dropped {
    total: AtomicU64,
    /// Touched only when the channel is full, and by the writer when there is something.
    by_app: Mutex<HashMap<Arc<str>, u64>>,
}

/// Where requests leave their records.
#[derive(Clone, Debug)]
pub(crate) struct LogSender {
    sender: SyncSender<Box<Line>>,
    dropped: Arc<Dropped>,
}

impl LogSender {
    /// Never waits.
    pub(crate) fn send(&self, line: Box<Line>) {
        if let Err(TrySendError::Full(line) | TrySendError::Disconnected(line)) = self.sender.try_send(line) {
            self.dropped.total.fetch_add(1, Ordering::Relaxed);
            let mut by_app = self.dropped.by_app.lock().unwrap_or_else(PoisonError::into_inner);
            *by_app.entry(line.app_id).or_default() += 1;
        }
    }

    /// Records dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.total.load(Ordering::Relaxed)
    }
}

/// Starts the writer over `root`. It ends when every sender is gone.
///
/// # Errors
/// When the directory or the thread cannot be made.
pub(crate) fn start(root: &Path, ring_bytes: u64) -> std::io::Result<(LogSender, JoinHandle<()>)> {
    std::fs::create_dir_all(root)?;
    let (sender, receiver) = sync_channel(MOST_WAITING);
    let dropped = Arc::new(Dropped::default());
    let rings = Rings {
        root: root.to_owned(),
        ring_bytes,
        open: HashMap::new(),
        clock: 0,
        complained: false,
        dropped: Arc::clone(&dropped),
        told: 0,
    };
    let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || rings.run(&receiver))?;
    Ok((LogSender { sender, dropped }, thread))
}

struct Rings {
    root: PathBuf,
    ring_bytes: u64,
    open: HashMap<String, (u64, Writer)>,
    clock: u64,
    complained: bool,
    dropped: Arc<Dropped>,
    /// How many dropped records have been told of.
    told: u64,
}

impl Rings {
    fn run(mut self, receiver: &Receiver<Box<Line>>) {
        self.tidy();
        let mut tidied = std::time::Instant::now();
        loop {
            match receiver.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => self.write(&line.app_id, line.unix_ns, 0, line.text().as_bytes()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tell_dropped();
            if tidied.elapsed() > TIDY {
                self.tidy();
                tidied = std::time::Instant::now();
            }
        }
        self.tell_dropped();
    }

    fn tell_dropped(&mut self) {
        let total = self.dropped.total.load(Ordering::Relaxed);
        if total == self.told {
            return;
        }
        self.told = total;
        let by_app = std::mem::take(&mut *self.dropped.by_app.lock().unwrap_or_else(PoisonError::into_inner));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        for (app, count) in by_app {
            let text = format!("{count} access lines were dropped: requests came faster than the disk takes lines");
            self.write(&app, now, NOTICE, text.as_bytes());
        }
    }

    fn write(&mut self, app_id: &str, unix_ns: i64, flags: u8, text: &[u8]) {
        match self.append(app_id, unix_ns, flags, text) {
            Ok(()) => self.complained = false,
            Err(error) => {
                self.open.remove(app_id);
                if !self.complained {
                    tracing::error!(app.guid = app_id, error = %chain(&error), "access lines cannot be written");
                    self.complained = true;
                }
            }
        }
    }

    fn append(&mut self, app_id: &str, unix_ns: i64, flags: u8, text: &[u8]) -> Result<(), RingError> {
        self.clock += 1;
        if !self.open.contains_key(app_id) {
            let Some(directory) = ring_directory(&self.root, app_id) else { return Ok(()) };
            if self.open.len() >= MOST_OPEN
                && let Some(oldest) = self.open.iter().min_by_key(|(_, (used, _))| *used).map(|(app, _)| app.clone())
            {
                self.open.remove(&oldest);
            }
            let writer = Writer::open(&directory, self.ring_bytes)?;
            self.open.insert(app_id.to_owned(), (0, writer));
        }
        if let Some((used, writer)) = self.open.get_mut(app_id) {
            *used = self.clock;
            writer.append(unix_ns, flags, text)?;
        }
        Ok(())
    }

    /// Removes the rings of apps that had no request for long.
    fn tidy(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let newest = std::fs::read_dir(entry.path())
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|file| file.metadata().and_then(|metadata| metadata.modified()).ok())
                .max();
            let stale = newest.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > FORGET);
            if stale {
                self.open.remove(&*entry.file_name().to_string_lossy());
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!(path = %entry.path().display(), %error, "an old ring cannot be removed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use slipway_log_ring::{Query, Reader};

    use super::*;

    fn line(app: &str) -> Box<Line> {
        Box::new(Line {
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
            backend: Some(([10, 0, 0, 1], 61001).into()),
            forwarded_for: Some(HeaderValue::from_static("10.0.0.9")),
            forwarded_proto: Some(HeaderValue::from_static("https")),
            request_id: HeaderValue::from_static("rid"),
            response_time_s: 0.25,
            router_time_s: 0.001,
            app_id: app.into(),
            app_index: Some(2),
            instance_id: "iid".into(),
            router_error: Some("endpoint_failure (reset)"),
        })
    }

    #[test]
    fn lines_look_like_cloud_foundrys() {
        assert_eq!(
            line("aid").text(),
            "app.test - [2023-11-14T22:13:20.123456789Z] \"GET /a?b=c HTTP/1.1\" 200 3 14 \"-\" \"evil\\\" \\\\ \\xff\" \
             \"10.0.0.9:5555\" \"10.0.0.1:61001\" x_forwarded_for:\"10.0.0.9\" x_forwarded_proto:\"https\" \
             vcap_request_id:\"rid\" response_time:0.250000 gorouter_time:0.001000 app_id:\"aid\" app_index:\"2\" \
             instance_id:\"iid\" x_cf_routererror:\"endpoint_failure (reset)\""
        );
    }

    #[test]
    fn each_app_has_its_ring_and_sees_what_was_dropped() {
        let root = tempfile::tempdir().expect("directory");
        let (sender, receiver) = sync_channel(2);
        let dropped = Arc::new(Dropped::default());
        let sender = LogSender { sender, dropped: Arc::clone(&dropped) };
        for app in ["a", "b", "a", "a", "../../etc"] {
            sender.send(line(app));
        }
        assert_eq!(sender.dropped(), 3);
        drop(sender);
        let rings = Rings {
            root: root.path().to_owned(),
            ring_bytes: 1 << 20,
            open: HashMap::new(),
            clock: 0,
            complained: false,
            dropped,
            told: 0,
        };
        rings.run(&receiver);
        let all = Query { start_ns: 0, end_ns: i64::MAX, descending: false, limit: 10 };
        let read = |app: &str| Reader::new(&ring_directory(root.path(), app).expect("id")).range(all).expect("read");
        let a = read("a");
        assert_eq!(a.len(), 2);
        assert_eq!(a[1].flags, NOTICE);
        assert!(a[1].text.starts_with(b"2 access lines were dropped"), "{:?}", a[1]);
        assert_eq!(read("b").len(), 1);
        assert_eq!(ring_directory(root.path(), "../../etc"), None);
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 2);
    }
}
