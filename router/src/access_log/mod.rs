//! One line per request of an app, into that app's ring.
//!
//! A core writes the text of a line as its request ends, into memory of its own; it wakes nobody, and no other core
//! touches that memory. One thread takes what all cores have gathered a tenth of a second after the first line came,
//! or sooner when there is much of it, and gives it to the rings, one write for each app. So a request costs no call of
//! the kernel here, and a line is read a tenth of a second late. When the disk is slower than the requests, lines
//! are dropped, first those of the app that has most waiting; they are counted, and the ring gets a line that says so.

mod line;
mod rings;
mod waiting;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

pub(crate) use line::Line;
use rings::Rings;
pub(crate) use rings::ring_directory;
use slipway_chassis::clock;
use waiting::Waiting;

/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(100);
/// Bytes of lines at which one core waits no longer.
const MUCH: usize = 1 << 20;
/// Bytes of lines that may wait in one core, some ten thousand usual ones.
const MAX_WAITING: usize = 4 << 20;
/// How often rings of apps that are gone are looked for.
const TIDY: Duration = Duration::from_secs(3600);

/// The queue between the cores and the writer.
#[derive(Debug, Default)]
struct AccessLogQueue {
    cores: Mutex<Vec<Arc<Mutex<Waiting>>>>,
    dropped: AtomicU64,
    /// Lines wait. Set by whoever adds the first one.
    some: AtomicBool,
    /// They should wait no longer.
    much: AtomicBool,
    /// No more will come.
    closed: AtomicBool,
    writer: OnceLock<Thread>,
}

impl AccessLogQueue {
    /// Sets a flag; the writer is woken only by whoever sets it first.
    fn ring(&self, flag: &AtomicBool) {
        if !flag.swap(true, Ordering::SeqCst)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

/// The access log: cores get their own part of it here. The writer ends when this and all parts are gone.
#[derive(Debug)]
pub(crate) struct AccessLog {
    open: Arc<Open>,
}

/// Closes the queue when the last handle that could add a line is dropped.
#[derive(Debug)]
struct Open(Arc<AccessLogQueue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ring(&self.0.closed);
    }
}

impl AccessLog {
    /// The part of one core.
    pub(crate) fn core(&self) -> CoreLog {
        let waiting = Arc::new(Mutex::new(Waiting::new(MAX_WAITING)));
        self.open.0.cores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&waiting));
        CoreLog { waiting, open: Arc::clone(&self.open) }
    }

    /// Lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.open.0.dropped.load(Ordering::Relaxed)
    }
}

/// Where the requests of one core leave their lines.
#[derive(Debug)]
pub(crate) struct CoreLog {
    waiting: Arc<Mutex<Waiting>>,
    open: Arc<Open>,
}

impl CoreLog {
    /// Adds the line of a request that has ended just now. Waits for nothing but the writer taking what is there.
    pub(crate) fn add(&self, line: &Line) {
        let queue = &self.open.0;
        // Lines are in the order of their ends: who follows a log asks for what is younger than what he has seen, so
        // a long request's line must not be dated back to its beginning.
        let unix_ns = line.unix_ns.saturating_add((line.response_time_s * 1e9) as i64);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty();
        let dropped = waiting.add(&line.app_id, unix_ns, |text| line.write(text));
        let much = waiting.bytes() > MUCH;
        drop(waiting);
        if dropped > 0 {
            queue.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if first {
            queue.ring(&queue.some);
        }
        if much {
            queue.ring(&queue.much);
        }
    }
}

/// Starts the writer over `root`.
///
/// # Errors
/// When the directory or the thread cannot be made.
pub(crate) fn start(root: &Path, ring_bytes: u64) -> std::io::Result<(AccessLog, JoinHandle<()>)> {
    std::fs::create_dir_all(root)?;
    let queue = Arc::new(AccessLogQueue::default());
    let (seen, rings) = (Arc::clone(&queue), Rings::new(root.to_owned(), ring_bytes));
    let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || run(&seen, rings))?;
    // Whoever rings before this is heard as well: the writer looks at the flags before it sleeps.
    let _ = queue.writer.set(thread.thread().clone());
    Ok((AccessLog { open: Arc::new(Open(queue)) }, thread))
}

fn run(queue: &AccessLogQueue, mut rings: Rings) {
    rings.tidy();
    let mut tidied = Instant::now();
    loop {
        sleep(tidied + TIDY, || is_set(&queue.some) || is_set(&queue.closed));
        if is_set(&queue.some) {
            sleep(Instant::now() + GATHER, || is_set(&queue.much) || is_set(&queue.closed));
        }
        let closed = is_set(&queue.closed);
        // Before the lines are taken: one that comes now is taken now, or rings again.
        queue.some.store(false, Ordering::SeqCst);
        queue.much.store(false, Ordering::SeqCst);
        let cores = queue.cores.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let taken = cores.iter().map(|core| core.lock().unwrap_or_else(PoisonError::into_inner).take()).collect();
        rings.write(taken, clock::unix_ns());
        if closed {
            return;
        }
        if tidied.elapsed() > TIDY {
            rings.tidy();
            tidied = Instant::now();
        }
    }
}

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

/// Sleeps until then, or until it is over.
fn sleep(until: Instant, over: impl Fn() -> bool) {
    while !over() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use slipway_log_ring::{NOTICE, Query, Reader};

    use super::line::tests::line;
    use super::*;

    const ALL: Query = Query { start_ns: 0, end_ns: i64::MAX, descending: false, limit: 100_000 };

    fn read(root: &Path, app: &str) -> Vec<slipway_log_ring::Record> {
        Reader::new(&ring_directory(root, app).expect("id")).range(ALL).expect("read")
    }

    #[test]
    fn lines_of_all_cores_reach_their_rings_by_time_and_the_last_ones_at_the_end() {
        let root = tempfile::tempdir().expect("directory");
        let (log, thread) = start(root.path(), 1 << 20).expect("start");
        let cores = [log.core(), log.core()];
        for number in 0..100 {
            for app in ["a", "b", "../../etc"] {
                cores[number % 2].add(&Line { unix_ns: 1_000 + number as i64, response_time_s: 0.0, ..line(app) });
            }
        }
        assert_eq!(log.dropped(), 0);
        drop((cores, log));
        thread.join().expect("ends");
        for app in ["a", "b"] {
            let times: Vec<i64> = read(root.path(), app).iter().map(|record| record.unix_ns).collect();
            assert_eq!(times, (1_000..1_100).collect::<Vec<i64>>());
        }
        assert_eq!(ring_directory(root.path(), "../../etc"), None);
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 2);
    }

    #[test]
    fn a_line_is_readable_while_the_router_runs_and_dated_by_the_end_of_its_request() {
        let root = tempfile::tempdir().expect("directory");
        let (log, thread) = start(root.path(), 1 << 20).expect("start");
        let core = log.core();
        for number in 1..=3 {
            core.add(&Line { unix_ns: 1_000, response_time_s: 2.0, ..line("a") });
            while read(root.path(), "a").len() < number {
                std::thread::yield_now();
            }
        }
        assert!(read(root.path(), "a").iter().all(|record| record.unix_ns == 2_000_001_000));
        drop((core, log));
        thread.join().expect("ends");
    }

    #[test]
    fn dropped_lines_are_reported_in_their_own_apps_ring() {
        let root = tempfile::tempdir().expect("directory");
        // As if the writer were busy all the time: nobody takes what waits.
        let mut waiting = Waiting::new(4_000);
        for number in 0..1_000 {
            let app: Arc<str> = if number % 100 == 0 { "quiet".into() } else { "flood".into() };
            waiting.add(&app, number, |text| text.extend_from_slice(&[b'x'; 100]));
        }
        let mut rings = Rings::new(root.path().to_owned(), 1 << 20);
        rings.write(vec![waiting.take()], 5_000);
        assert_eq!(read(root.path(), "quiet").len(), 10, "a flood of another app costs none of these");
        let flood = read(root.path(), "flood");
        let (notice, lines) = flood.split_last().expect("some");
        assert_eq!((notice.flags, notice.unix_ns), (NOTICE, 5_000));
        let wanted = format!("{} access lines were dropped", 990 - lines.len());
        assert!(notice.text.starts_with(wanted.as_bytes()), "{}", String::from_utf8_lossy(&notice.text));
    }
}
