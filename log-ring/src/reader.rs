//! Reading, while somebody may be writing.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::record::{self, Record};
use crate::{RingError, writer};

/// The file system's clock is coarser than a writer's, by so much at most.
const COARSE_NS: i64 = 1_000_000_000;

/// Which lines are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Inclusive, nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Exclusive; `i64::MAX` = no end.
    pub end_ns: i64,
    /// Newest first.
    pub descending: bool,
    /// At most this many.
    pub limit: usize,
}

impl Query {
    fn wants(&self, unix_ns: i64) -> bool {
        (self.start_ns..self.end_ns).contains(&unix_ns)
    }
}

/// Reads a ring. Holds nothing open.
#[derive(Clone, Debug)]
pub struct Reader {
    directory: PathBuf,
}

impl Reader {
    /// A reader of this directory; it need not exist yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Lines in a span of time: the oldest `limit` of them, or the newest when descending. Where lines are missing, because
    /// the ring has overwritten them or the disk refused them, a line of the reader's own says how many ([`crate::GAP`]).
    /// It stands beside a line that is wanted, so one who follows a ring hears of what was lost since he asked last.
    ///
    /// # Errors
    /// When a segment that exists cannot be read. A ring that does not exist holds no lines.
    pub fn range(&self, query: Query) -> Result<Vec<Record>, RingError> {
        let segments = self.segments()?;
        let mut places: Vec<usize> = (0..segments.len()).collect();
        if query.descending {
            places.reverse();
        }
        let mut found = Vec::new();
        for place in places {
            let (first, path) = &segments[place];
            let Some((mut file, changed_ns)) = open(path)? else { continue };
            // What is asked for again and again is what is new: the rest of the ring need not be looked through for it.
            if changed_ns.saturating_add(COARSE_NS) < query.start_ns {
                continue;
            }
            let before = if place == 0 { 0 } else { first.saturating_sub(1) };
            let next = segments.get(place + 1).map(|(first, _)| *first);
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(RingError::at(path))?;
            let mut records = wanted(&bytes, before, next, &query);
            if query.descending {
                records.reverse();
            }
            found.append(&mut records);
            if found.len() >= query.limit {
                break;
            }
        }
        found.truncate(query.limit);
        Ok(found)
    }

    /// Lines from this number on, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When a segment that exists cannot be read.
    pub fn since(&self, seq: u64, limit: usize) -> Result<Vec<Record>, RingError> {
        let segments = self.segments()?;
        let mut found = Vec::new();
        for (place, (_, path)) in segments.iter().enumerate() {
            // A segment whose successor begins at or before `seq` holds only older lines.
            if segments.get(place + 1).is_some_and(|(first, _)| *first <= seq) {
                continue;
            }
            let Some((mut file, _)) = open(path)? else { continue };
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(RingError::at(path))?;
            let records = record::decode_all(&bytes).0;
            found.extend(records.iter().filter(|record| record.seq >= seq).map(record::SegmentLine::record));
            if found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    fn segments(&self) -> Result<Vec<(u64, PathBuf)>, RingError> {
        match writer::segments(&self.directory) {
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }
}

/// A segment, and when it was last written; it may go away between listing and opening: the writer has turned.
fn open(path: &Path) -> Result<Option<(File, i64)>, RingError> {
    let opened = File::open(path).and_then(|file| {
        let changed = file.metadata()?.modified()?;
        let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((file, i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RingError { path: path.to_owned(), source }),
    }
}

/// The wanted lines of a segment with what is missing between them. `before` = number of the last line before the segment,
/// `next` = number of the first one behind it.
fn wanted(bytes: &[u8], mut before: u64, next: Option<u64>, query: &Query) -> Vec<Record> {
    let mut found = Vec::new();
    let mut last = None;
    for record in record::decode_all(bytes).0 {
        let missing = record.seq.saturating_sub(before).saturating_sub(1);
        (before, last) = (record.seq, Some(record.unix_ns));
        if query.wants(record.unix_ns) {
            if missing > 0 {
                found.push(Record::gap(missing, record.unix_ns));
            }
            found.push(record.record());
        }
    }
    let missing = next.map_or(0, |next| next.saturating_sub(before).saturating_sub(1));
    if missing > 0
        && let Some(last) = last.filter(|last| query.wants(*last))
    {
        found.push(Record::gap(missing, last.saturating_add(1)));
    }
    found
}
