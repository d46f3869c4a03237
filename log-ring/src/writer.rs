//! Appending.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::{RingError, record};

/// How many segments share the bound. Fewer would drop a larger part of the ring at each turn.
const SEGMENTS: u64 = 4;

/// The one writer of a ring.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    segment_bytes: u64,
    file: File,
    size: u64,
    next: u64,
}

impl Writer {
    /// Opens a ring, or makes it. Goes on after the last good line of an earlier writer.
    ///
    /// # Errors
    /// When the directory or a segment cannot be made, read or written.
    pub fn open(directory: &Path, max_bytes: u64) -> Result<Self, RingError> {
        std::fs::create_dir_all(directory).map_err(RingError::at(directory))?;
        let segment_bytes = (max_bytes / SEGMENTS).max(4096);
        let last = segments(directory)?.pop();
        let Some((first, path)) = last else {
            let (file, size) = (create(directory, 1)?, 0);
            return Ok(Self { directory: directory.to_owned(), segment_bytes, file, size, next: 1 });
        };
        let bytes = std::fs::read(&path).map_err(RingError::at(&path))?;
        let (records, good) = record::decode_all(&bytes);
        let file = OpenOptions::new().append(true).open(&path).map_err(RingError::at(&path))?;
        file.set_len(good as u64).map_err(RingError::at(&path))?;
        let next = records.last().map_or(first, |record| record.seq + 1);
        Ok(Self { directory: directory.to_owned(), segment_bytes, file, size: good as u64, next })
    }

    /// Appends a line and returns its number. A text above [`crate::MAX_TEXT`] is cut.
    ///
    /// # Errors
    /// When the disk refuses; the number is then used up, so that readers see the hole.
    pub fn append(&mut self, unix_ns: i64, flags: u8, text: &[u8]) -> Result<u64, RingError> {
        let seq = self.next;
        self.append_all([(unix_ns, flags, text)])?;
        Ok(seq)
    }

    /// Appends lines (time, flags, text) in this order, with one write for all that go into the same segment.
    ///
    /// # Errors
    /// As [`Writer::append`]; what was refused is missing as a whole.
    pub fn append_all<'a>(&mut self, lines: impl IntoIterator<Item = (i64, u8, &'a [u8])>) -> Result<(), RingError> {
        let mut bytes = Vec::new();
        let mut outcome = Ok(());
        for (unix_ns, flags, text) in lines {
            let seq = self.next;
            self.next += 1;
            if self.size + bytes.len() as u64 >= self.segment_bytes {
                outcome = outcome.and(self.write(&bytes));
                bytes.clear();
                // Without a new segment the ring would leave its bound.
                if let Err(error) = self.turn(seq) {
                    outcome = outcome.and(Err(error));
                    continue;
                }
            }
            record::encode(&mut bytes, seq, unix_ns, flags, text);
        }
        outcome.and(self.write(&bytes))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RingError> {
        if let Err(source) = self.file.write_all(bytes) {
            // A half-written record would hide all that follows it.
            let cut = self.file.set_len(self.size);
            return Err(RingError { path: self.directory.clone(), source: cut.err().unwrap_or(source) });
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn turn(&mut self, first: u64) -> Result<(), RingError> {
        let mut old = segments(&self.directory)?;
        // The new segment counts: leave room for it, oldest go first.
        while old.len() as u64 >= SEGMENTS {
            let (_, path) = old.remove(0);
            std::fs::remove_file(&path).map_err(RingError::at(&path))?;
        }
        self.file = create(&self.directory, first)?;
        self.size = 0;
        Ok(())
    }
}

fn create(directory: &Path, first: u64) -> Result<File, RingError> {
    let path = directory.join(format!("{first:020}.log"));
    OpenOptions::new().create(true).append(true).open(&path).map_err(RingError::at(&path))
}

/// Segments by the number of their first line, oldest first. Foreign files are passed over.
pub(crate) fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, RingError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(RingError::at(directory))? {
        let path = entry.map_err(RingError::at(directory))?.path();
        let first = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".log"))
            .and_then(|name| name.parse().ok());
        if let Some(first) = first {
            found.push((first, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}
