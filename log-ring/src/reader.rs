//! Reading, while somebody may be writing.

use std::path::{Path, PathBuf};

use crate::record::{self, Record};
use crate::{RingError, writer};

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

    /// Lines in a span of time: the oldest `limit` of them, or the newest when descending.
    ///
    /// # Errors
    /// When a segment that exists cannot be read. A ring that does not exist holds no lines.
    pub fn range(&self, query: Query) -> Result<Vec<Record>, RingError> {
        let mut segments = self.segments()?;
        if query.descending {
            segments.reverse();
        }
        let mut found = Vec::new();
        for (_, path) in segments {
            let mut records = read(&path)?;
            records.retain(|record| (query.start_ns..query.end_ns).contains(&record.unix_ns));
            if query.descending {
                records.reverse();
            }
            found.extend(records);
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
            found.extend(read(path)?.into_iter().filter(|record| record.seq >= seq));
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

/// A segment may go away between listing and reading: the writer has turned.
fn read(path: &Path) -> Result<Vec<Record>, RingError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(record::decode_all(&bytes).0),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(RingError { path: path.to_owned(), source }),
    }
}
