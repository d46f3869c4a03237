//! From the app's pipes to its log ring, line by line. The app is never held up: what the disk refuses or the rate limit
//! forbids is dropped, and a notice says so.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use slipway_log_ring::{MAX_TEXT, NOTICE, PROGRAM_SHIFT, STDERR, Writer};

/// One pipe's open end and the beginning of a line that is not complete.
pub(super) struct Stream {
    pipe: Option<File>,
    partial: Vec<u8>,
    flags: u8,
}

impl Stream {
    /// Standard output of the program with this number, 0 = the command.
    pub(super) fn out(pipe: OwnedFd, program: u8) -> Self {
        Self { pipe: Some(pipe.into()), partial: Vec::new(), flags: program << PROGRAM_SHIFT }
    }

    /// Standard error of the program with this number.
    pub(super) fn err(pipe: OwnedFd, program: u8) -> Self {
        Self { flags: (program << PROGRAM_SHIFT) | STDERR, ..Self::out(pipe, program) }
    }

    /// None once all writers are gone.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads once. Returns whether there may be more.
    pub(super) fn pump(&mut self, log: &mut Log, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(buffer) {
            Ok(0) => {
                self.finish(log);
                false
            }
            Ok(size) => {
                self.take(&buffer[..size], log);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.finish(log);
                false
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], log: &mut Log) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end], log);
            log.line(self.flags, &self.partial);
            self.partial.clear();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes, log);
        // A quiet instance should not keep the room of its longest line.
        if self.partial.is_empty() && self.partial.capacity() > 8192 {
            self.partial = Vec::new();
        }
    }

    /// A line beyond the bound goes on as a further line.
    fn extend(&mut self, mut bytes: &[u8], log: &mut Log) {
        while self.partial.len() + bytes.len() > MAX_TEXT {
            let (now, later) = bytes.split_at(MAX_TEXT - self.partial.len());
            self.partial.extend_from_slice(now);
            log.line(self.flags, &self.partial);
            self.partial.clear();
            bytes = later;
        }
        self.partial.extend_from_slice(bytes);
    }

    fn finish(&mut self, log: &mut Log) {
        if !self.partial.is_empty() {
            log.line(self.flags, &self.partial);
        }
        self.partial = Vec::new();
        self.pipe = None;
    }
}

/// The ring, its rate limit, and what was lost.
pub(super) struct Log {
    ring: Writer,
    rate: u64,
    second: Instant,
    used: u64,
    limited: u64,
    refused: u64,
}

impl Log {
    pub(super) fn new(ring: Writer, rate: u64) -> Self {
        Self { ring, rate, second: Instant::now(), used: 0, limited: 0, refused: 0 }
    }

    fn line(&mut self, flags: u8, text: &[u8]) {
        self.turn();
        let size = text.len() as u64 + 1;
        // One line a second passes whatever its size, or a limit below the length of a line would silence the app.
        if self.rate > 0 && self.used > 0 && self.used + size > self.rate {
            self.limited += 1;
            return;
        }
        self.used += size;
        self.append(flags, text);
    }

    /// Says what was dropped once the second is over.
    pub(super) fn turn(&mut self) {
        if self.rate > 0 && self.second.elapsed().as_secs() >= 1 {
            self.second = Instant::now();
            self.used = 0;
            self.report_limited();
        }
    }

    fn report_limited(&mut self) {
        if self.limited > 0 {
            let lines = std::mem::take(&mut self.limited);
            let text =
                format!("app instance exceeded log rate limit ({} bytes/sec); {lines} lines were dropped", self.rate);
            self.append(NOTICE, text.as_bytes());
        }
    }

    /// Whether a notice waits for the end of the second.
    pub(super) fn waiting(&self) -> bool {
        self.limited > 0
    }

    /// Writes the notices that still wait: whoever opens the ring next goes on after its last line, and a hole behind that
    /// one is seen by nobody.
    pub(super) fn close(&mut self) {
        self.report_limited();
        self.report_refused();
    }

    /// Says what the disk refused. Answers whether nothing more is to be said.
    fn report_refused(&mut self) -> bool {
        if self.refused > 0 {
            let notice = format!("{} lines were lost: the cell's disk refused them", self.refused);
            if self.ring.append(now_ns(), NOTICE, notice.as_bytes()).is_err() {
                return false;
            }
            self.refused = 0;
        }
        true
    }

    fn append(&mut self, flags: u8, text: &[u8]) {
        if !self.report_refused() || self.ring.append(now_ns(), flags, text).is_err() {
            self.refused += 1;
        }
    }
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    i64::try_from(now).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use slipway_log_ring::Reader;

    use super::*;

    fn lines(directory: &std::path::Path) -> Vec<(u8, Vec<u8>)> {
        let query = slipway_log_ring::Query { start_ns: 0, end_ns: i64::MAX, descending: false, limit: 100 };
        Reader::new(directory).range(query).unwrap().into_iter().map(|line| (line.flags, line.text)).collect()
    }

    #[test]
    fn lines_are_split_truncated_and_the_rest_is_buffered() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Log::new(Writer::open(home.path(), 1 << 20).unwrap(), 0);
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut stream = Stream::err(read, 2);
        stream.take(b"one\ntw", &mut log);
        stream.take(b"o\n", &mut log);
        stream.take(&vec![b'x'; MAX_TEXT + 5], &mut log);
        stream.take(b"\nlast", &mut log);
        drop(File::from(write).flush());
        assert!(!stream.pump(&mut log, &mut [0; 16]));
        assert!(stream.fd().is_none());
        let texts = lines(home.path());
        let lengths: Vec<_> = texts.iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [3, 3, MAX_TEXT, 5, 4]);
        assert_eq!(texts[1], (STDERR | 2 << PROGRAM_SHIFT, b"two".to_vec()));
    }

    #[test]
    fn the_rate_limit_drops_and_says_so() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Log::new(Writer::open(home.path(), 1 << 20).unwrap(), 10);
        // However long the lines below take, the second is not over.
        log.second = Instant::now() + std::time::Duration::from_secs(3600);
        for _ in 0..5 {
            log.line(0, b"12345678");
        }
        assert!(log.waiting());
        log.close();
        let texts = lines(home.path());
        assert_eq!(texts[0], (0, b"12345678".to_vec()));
        let (flags, notice) = texts.last().unwrap();
        assert_eq!(*flags, NOTICE);
        assert!(String::from_utf8_lossy(notice).starts_with("app instance exceeded log rate limit ("), "{notice:?}");
        assert!(String::from_utf8_lossy(notice).ends_with("lines were dropped"), "{notice:?}");
    }

    #[test]
    fn lines_that_the_disk_refused_last_are_reported_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let ring = home.path().join("ring");
        let mut log = Log::new(Writer::open(&ring, 1).unwrap(), 0);
        // A segment is full, and the next one cannot be made.
        log.line(0, &[b'x'; 4096]);
        std::fs::rename(&ring, home.path().join("aside")).unwrap();
        log.line(0, b"lost");
        std::fs::rename(home.path().join("aside"), &ring).unwrap();
        log.close();
        let texts = lines(&ring);
        let (flags, notice) = texts.last().unwrap();
        assert_eq!((*flags, String::from_utf8_lossy(notice).starts_with("1 lines were lost")), (NOTICE, true));
    }
}
