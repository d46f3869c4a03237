//! Opens a zip whose directory has a limited size.
//!
//! The directory of a zip is read into memory completely, and a header takes 46 bytes in the file but several hundred in
//! memory: an upload of a gigabyte could take many. So the end records, which give the number of entries, are read first;
//! and the bytes that are read as directory are limited as well, because names and comments may be long.
//!
//! A file can hold several candidates for the end record, and readers differ in which one they take: each of them must be
//! within the limit.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use zip::ZipArchive;

use super::archive::{ArchiveError, not_zip};

/// A record at the end, without its comment.
const END: usize = 22;
/// The last part of a file, in which a record at the end can begin: it, its comment, and room for what readers allow.
const TAIL: u64 = 65_536 + 1024;
/// The record that points to a large record, before the one at the end.
const LOCATOR: usize = 20;
/// A large record, as all writers make it.
const LARGE_END: usize = 56;
/// Bytes of the directory for one entry, on an average over all that are allowed; and what any archive may have.
const PER_ENTRY: u64 = 256;
const ANY: u64 = 1 << 20;

/// A reader that gives only so much.
#[derive(Debug)]
pub struct Metered {
    inner: BufReader<File>,
    left: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.get().checked_sub(read as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "its directory is too large")),
        }
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Opens an archive with at most `most` entries.
///
/// # Errors
/// [`ArchiveError::TooMany`] with what the archive says it holds; [`ArchiveError::NotZip`].
pub fn open(path: &Path, most: u64) -> Result<ZipArchive<Metered>, ArchiveError> {
    let mut file = File::open(path)?;
    check_ends(&mut file, most)?;
    file.rewind()?;
    let left = Rc::new(Cell::new(most.saturating_mul(PER_ENTRY).saturating_add(ANY)));
    let archive = ZipArchive::new(Metered { inner: BufReader::new(file), left: Rc::clone(&left) }).map_err(not_zip)?;
    // The rest is read piece by piece, and judged by what comes out.
    left.set(u64::MAX);
    Ok(archive)
}

fn check_ends(file: &mut File, most: u64) -> Result<(), ArchiveError> {
    let length = file.seek(SeekFrom::End(0))?;
    // With room for the records that stand before the one at the end.
    let start = length.saturating_sub(TAIL + (LOCATOR + LARGE_END) as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(TAIL + (LOCATOR + LARGE_END) as u64).read_to_end(&mut tail)?;
    for place in signatures(&tail, *b"PK\x05\x06") {
        let Some(end) = tail.get(place..place + END) else { continue };
        let large = if points_to_large_record(end) { large_entries(&tail, start, place)? } else { None };
        let found = large.unwrap_or_else(|| u64::from(number_16(end, 10)));
        if found > most {
            return Err(ArchiveError::TooMany { found, limit: most });
        }
    }
    Ok(())
}

/// One of its figures is the largest there is, which means "see the large record".
fn points_to_large_record(end: &[u8]) -> bool {
    number_16(end, 8) == u16::MAX
        || number_16(end, 10) == u16::MAX
        || number_32(end, 12) == u32::MAX
        || number_32(end, 16) == u32::MAX
}

/// Entries that the large record before the end at `place` tells of, if there is one.
fn large_entries(tail: &[u8], start: u64, place: usize) -> Result<Option<u64>, ArchiveError> {
    let locator = place.checked_sub(LOCATOR).and_then(|from| tail.get(from..place));
    let Some(locator) = locator.filter(|locator| locator[..4] == *b"PK\x06\x07") else { return Ok(None) };
    let odd = |what: &str| ArchiveError::NotZip(format!("its zip64 record {what}"));
    // Right before the locator, where every writer puts it, and nowhere else.
    let Some(at) = place.checked_sub(LOCATOR + LARGE_END) else { return Err(odd("is missing")) };
    let record = tail.get(at..at + LARGE_END).filter(|record| record[..4] == *b"PK\x06\x06");
    let Some(record) = record else { return Err(odd("is missing")) };
    if number_64(locator, 8) != start.saturating_add(at as u64) {
        return Err(odd("is not where its locator says"));
    }
    Ok(Some(number_64(record, 24).max(number_64(record, 32))))
}

fn signatures(bytes: &[u8], wanted: [u8; 4]) -> impl Iterator<Item = usize> {
    bytes.windows(4).enumerate().filter(move |(_, found)| **found == wanted).map(|(place, _)| place)
}

fn number_16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    u32::from(number_16(bytes, at)) | u32::from(number_16(bytes, at + 2)) << 16
}

fn number_64(bytes: &[u8], at: usize) -> u64 {
    u64::from(number_32(bytes, at)) | u64::from(number_32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn opened(bytes: &[u8], most: u64) -> Result<usize, ArchiveError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        open(file.path(), most).map(|archive| archive.len())
    }

    fn zip_of(entries: usize, name_length: usize) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for n in 0..entries {
            writer.start_file(format!("{n:0name_length$}"), SimpleFileOptions::default()).expect("an entry");
        }
        writer.finish().expect("finished").into_inner()
    }

    /// Headers of a directory and nothing else, with large end records.
    fn headers(entries: u64, announced: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..entries {
            bytes.extend_from_slice(b"PK\x01\x02");
            bytes.extend_from_slice(&[0; 42]);
        }
        let size = bytes.len() as u64;
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.extend_from_slice(&44_u64.to_le_bytes());
        bytes.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [announced, announced, size, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        bytes.extend_from_slice(&[0xff; 12]);
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }

    #[test]
    fn entries_are_counted_before_they_are_read() {
        assert_eq!(opened(&zip_of(5, 3), 5).expect("allowed"), 5);
        assert!(matches!(opened(&zip_of(6, 3), 5), Err(ArchiveError::TooMany { found: 6, limit: 5 })));
        assert!(matches!(opened(&headers(1000, 1000), 999), Err(ArchiveError::TooMany { found: 1000, .. })));
        // As many as are told, although no header of them is there to be read.
        assert!(
            matches!(opened(&headers(0, 1 << 40), 999), Err(ArchiveError::TooMany { found, .. }) if found == 1 << 40)
        );
    }

    #[test]
    fn end_records_of_an_archive_are_limited() {
        // The last one is harmless but broken, the one before it is what a reader would go back to.
        let mut hidden = headers(1000, 1000);
        hidden.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\xff\0\0\0\xff\xff\xff\x7f\0\0");
        assert!(matches!(opened(&hidden, 999), Err(ArchiveError::TooMany { found: 1000, .. })));
        // A large record elsewhere than the locator says.
        let mut moved = headers(10, 10);
        let locator = moved.len() - END - LOCATOR + 8;
        moved[locator] ^= 1;
        assert!(matches!(opened(&moved, 999), Err(ArchiveError::NotZip(text)) if text.contains("locator")));
    }

    #[test]
    fn long_names_are_limited_together() {
        let named = zip_of(40, 60_000);
        assert_eq!(opened(&named, 10_000).expect("few enough bytes"), 40);
        let error = opened(&named, 100).expect_err("too much").to_string();
        assert!(error.contains("directory is too large"), "{error}");
    }

    #[test]
    fn a_real_large_archive_is_read() {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for n in 0..70_000 {
            writer.start_file(n.to_string(), SimpleFileOptions::default()).expect("an entry");
        }
        writer.write_all(b"x").expect("content");
        let bytes = writer.finish().expect("finished").into_inner();
        assert_eq!(opened(&bytes, 70_000).expect("allowed"), 70_000);
        assert!(matches!(opened(&bytes, 69_999), Err(ArchiveError::TooMany { found: 70_000, .. })));
    }
}
