//! Checks an uploaded zip, and adds the files that the platform already had.
//!
//! A package is unpacked by a cell, in a sandbox. It is checked here all the same, entry by entry and with every byte
//! really decompressed, because a clear answer at upload is worth more than a failed build: nothing may leave the
//! directory it is unpacked into (names or links), no name may be said twice, and the sizes that count are the ones
//! that come out, not the ones that are declared.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha1_checked::{Digest as _, Sha1};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::directory::{self, Metered};
use crate::reserve::{Reserve, ReserveWriter};

/// Files smaller than this are not remembered: sending them again is cheaper than asking.
pub const REMEMBERED_FROM: u64 = 64 * 1024;
/// Most files remembered from one upload, and most bytes: the first push of something huge must stay quick.
const REMEMBERED_FILES: usize = 512;
const REMEMBERED_BYTES: u64 = 256 << 20;
/// Longest name of an entry.
const MAX_NAME: usize = 4096;
/// Longest target of a symbolic link.
const MAX_LINK: u64 = 4096;

/// What one package may hold.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveLimits {
    /// All files, unpacked.
    pub unpacked_bytes: u64,
    /// Entries.
    pub files: u64,
}

/// A file that the client named and the platform has.
#[derive(Clone, Debug)]
pub struct KnownFile {
    /// Where it belongs in the package.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// A local copy.
    pub local: PathBuf,
}

/// A file worth remembering, copied out of the package.
#[derive(Debug)]
pub struct Remembered {
    /// SHA-1 of its content.
    pub sha1: [u8; 20],
    /// Bytes.
    pub size: u64,
    /// A local copy.
    pub local: PathBuf,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read as a zip.
    #[error("the upload is not a valid zip archive: {0}")]
    NotZip(String),
    /// An entry would leave the directory.
    #[error("the archive entry {name:?} {problem}; package the files of one directory, with relative paths")]
    Hostile {
        /// The entry.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name occurs twice.
    #[error("the archive holds {0:?} more than once")]
    Duplicate(String),
    /// More comes out than is allowed.
    #[error("the package unpacks to more than {limit} bytes, the most this platform takes")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// More entries than are allowed.
    #[error("the package holds {found} files, more than the {limit} this platform takes")]
    TooMany {
        /// Entries.
        found: u64,
        /// Allowed.
        limit: u64,
    },
    /// A local file failed: our own fault.
    #[error("a temporary file for the upload cannot be made or written")]
    Io(#[from] io::Error),
}

/// Where copies and the complete archive are written.
#[derive(Clone, Copy, Debug)]
pub struct Scratch<'a> {
    /// Removed by the caller when all is done.
    pub directory: &'a Path,
    /// Whether files are worth remembering.
    pub remember: bool,
    /// What stays free on its disk.
    pub reserve: Option<&'a Reserve>,
}

impl Scratch<'_> {
    /// The complete archive, when one was written.
    #[must_use]
    pub fn complete(&self) -> PathBuf {
        self.directory.join("complete.zip")
    }

    fn create(&self, path: &Path) -> io::Result<ReserveWriter<BufWriter<File>>> {
        Ok(ReserveWriter::new(BufWriter::new(File::create(path)?), self.reserve))
    }
}

/// What judging a package gave.
#[derive(Debug, Default)]
pub struct CheckedPackage {
    /// Files to be remembered, in `scratch`.
    pub remembered: Vec<Remembered>,
    /// A new archive was written ([`Scratch::complete`]); otherwise the upload is the package.
    pub rewritten: bool,
}

/// Judges the uploaded archive (if there is one) and, when files are known, writes the complete package. Blocking: call it
/// from a blocking task.
///
/// # Errors
/// When the archive is refused, or a local file fails.
pub fn check_package(
    upload: Option<&Path>,
    known: &[KnownFile],
    limits: ArchiveLimits,
    scratch: Scratch<'_>,
) -> Result<CheckedPackage, ArchiveError> {
    let mut checked = CheckedPackage::default();
    let mut names: HashMap<String, EntryKind> = HashMap::new();
    let mut total = 0_u64;
    let left_out = known.len() as u64;
    let too_many = |found| ArchiveError::TooMany { found, limit: limits.files };
    let Some(most) = limits.files.checked_sub(left_out) else { return Err(too_many(left_out)) };
    let mut archive = match upload {
        Some(path) => Some(open(path, most).map_err(|error| match error {
            ArchiveError::TooMany { found, .. } => too_many(found.saturating_add(left_out)),
            error => error,
        })?),
        None => None,
    };
    if let Some(archive) = archive.as_mut() {
        check_package_entries(archive, limits, scratch, &mut names, &mut total, &mut checked)?;
    }
    for file in known {
        let name = clean_name(&file.path)?;
        insert(&mut names, name, EntryKind::File)?;
        total = total.saturating_add(file.size);
        if total > limits.unpacked_bytes {
            return Err(ArchiveError::TooLarge { limit: limits.unpacked_bytes });
        }
    }
    no_entry_below_a_link(&names)?;
    if archive.is_none() || !known.is_empty() {
        write_complete(archive, known, scratch)?;
        checked.rewritten = true;
    }
    Ok(checked)
}

/// Checks the files that a client left out, by their sizes, before anything is copied for them.
///
/// # Errors
/// [`ArchiveError::TooMany`], [`ArchiveError::TooLarge`].
pub fn check_known(sizes: impl ExactSizeIterator<Item = u64>, limits: ArchiveLimits) -> Result<(), ArchiveError> {
    let found = sizes.len() as u64;
    if found > limits.files {
        return Err(ArchiveError::TooMany { found, limit: limits.files });
    }
    if sizes.fold(0_u64, u64::saturating_add) > limits.unpacked_bytes {
        return Err(ArchiveError::TooLarge { limit: limits.unpacked_bytes });
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Directory,
    File,
    Link,
}

fn open(path: &Path, most: u64) -> Result<ZipArchive<Metered>, ArchiveError> {
    let archive = directory::open(path, most)?;
    if archive.has_duplicate_names() {
        return Err(ArchiveError::NotZip("a name occurs more than once in its directory".to_owned()));
    }
    Ok(archive)
}

pub(super) fn not_zip(error: zip::result::ZipError) -> ArchiveError {
    match error {
        zip::result::ZipError::Io(error)
            if error.kind() != io::ErrorKind::UnexpectedEof
                && error.kind() != io::ErrorKind::InvalidData
                && error.kind() != io::ErrorKind::InvalidInput =>
        {
            ArchiveError::Io(error)
        }
        other => ArchiveError::NotZip(other.to_string()),
    }
}

fn check_package_entries(
    archive: &mut ZipArchive<Metered>,
    limits: ArchiveLimits,
    scratch: Scratch<'_>,
    names: &mut HashMap<String, EntryKind>,
    total: &mut u64,
    checked: &mut CheckedPackage,
) -> Result<(), ArchiveError> {
    let mut remembered_bytes = 0_u64;
    let mut seen = HashSet::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(not_zip)?;
        let raw = entry.name().map_err(not_zip)?.into_owned();
        let name = clean_name(&raw)?;
        if entry.encrypted() {
            return Err(ArchiveError::Hostile { name: raw, problem: "is encrypted" });
        }
        if entry.is_dir() {
            insert(names, name, EntryKind::Directory)?;
            continue;
        }
        if entry.is_symlink() {
            let mut target = Vec::new();
            entry.by_ref().take(MAX_LINK + 1).read_to_end(&mut target).map_err(|error| damaged(&raw, &error))?;
            check_link(&raw, &name, &target)?;
            insert(names, name, EntryKind::Link)?;
            continue;
        }
        if entry.unix_mode().is_some_and(|mode| !matches!(mode & 0o170_000, 0 | 0o100_000)) {
            return Err(ArchiveError::Hostile { name: raw, problem: "is neither a file, a directory nor a link" });
        }
        let remember = scratch.remember
            && entry.size() >= REMEMBERED_FROM
            && checked.remembered.len() < REMEMBERED_FILES
            && remembered_bytes.saturating_add(entry.size()) <= REMEMBERED_BYTES;
        let mut copy = match remember {
            true => Some((Sha1::new(), scratch.directory.join(format!("file-{index}")))),
            false => None,
        };
        let mut writer = match &copy {
            Some((_, path)) => Some(scratch.create(path)?),
            None => None,
        };
        let mut size = 0_u64;
        loop {
            let read = entry.read(&mut buffer).map_err(|error| damaged(&raw, &error))?;
            if read == 0 {
                break;
            }
            size += read as u64;
            *total += read as u64;
            if *total > limits.unpacked_bytes {
                return Err(ArchiveError::TooLarge { limit: limits.unpacked_bytes });
            }
            if let (Some((hash, _)), Some(writer)) = (copy.as_mut(), writer.as_mut()) {
                hash.update(&buffer[..read]);
                writer.write_all(&buffer[..read])?;
            }
        }
        if let Some(mut writer) = writer {
            writer.flush()?;
        }
        if let Some((hash, local)) = copy.take() {
            // A file that was made to have the SHA-1 of another must not be taken for it.
            let sha1 = hash.try_finalize();
            let collides = sha1.has_collision();
            let sha1 = <[u8; 20]>::from(*sha1.hash());
            if size >= REMEMBERED_FROM && !collides && seen.insert(sha1) {
                remembered_bytes = remembered_bytes.saturating_add(size);
                checked.remembered.push(Remembered { sha1, size, local });
            } else {
                std::fs::remove_file(&local)?;
            }
        }
        insert(names, name, EntryKind::File)?;
    }
    Ok(())
}

fn damaged(name: &str, error: &io::Error) -> ArchiveError {
    ArchiveError::NotZip(format!("the entry {name:?} is damaged ({error})"))
}

/// A relative path without `.` parts, or a refusal.
fn clean_name(raw: &str) -> Result<String, ArchiveError> {
    let hostile = |problem| ArchiveError::Hostile { name: raw.chars().take(200).collect(), problem };
    if raw.len() > MAX_NAME {
        return Err(hostile("has a name longer than 4096 bytes"));
    }
    if raw.starts_with('/') {
        return Err(hostile("has an absolute path"));
    }
    if raw.contains('\\') {
        return Err(hostile("has a backslash in its path"));
    }
    if raw.contains('\0') {
        return Err(hostile("has a NUL in its path"));
    }
    let mut parts = Vec::new();
    for part in raw.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(hostile("climbs out of its directory with '..'")),
            part if part.len() > 255 => return Err(hostile("has a part longer than 255 bytes")),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// A link may climb at the beginning of its target only, and never above the package. Because no entry lies below a
/// link ([`no_entry_below_a_link`]), the directories it climbs through are real ones, so counting them is enough.
fn check_link(raw: &str, name: &str, target: &[u8]) -> Result<(), ArchiveError> {
    let hostile = |problem| ArchiveError::Hostile { name: raw.chars().take(200).collect(), problem };
    if target.len() as u64 > MAX_LINK || target.is_empty() {
        return Err(hostile("is a link with an empty or overlong target"));
    }
    let Ok(target) = std::str::from_utf8(target) else {
        return Err(hostile("is a link whose target is not UTF-8"));
    };
    if target.starts_with('/') || target.contains('\0') {
        return Err(hostile("is a link to an absolute path"));
    }
    let mut depth = name.split('/').count() - 1;
    let mut descended = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if descended || depth == 0 => return Err(hostile("is a link that leads out of the package")),
            ".." => depth -= 1,
            _ => descended = true,
        }
    }
    Ok(())
}

fn insert(names: &mut HashMap<String, EntryKind>, name: String, kind: EntryKind) -> Result<(), ArchiveError> {
    if name.is_empty() {
        // The directory itself ("./"); a file cannot have this name.
        return match kind {
            EntryKind::Directory => Ok(()),
            _ => Err(ArchiveError::Hostile { name, problem: "has no name" }),
        };
    }
    match names.get(&name) {
        Some(EntryKind::Directory) if kind == EntryKind::Directory => Ok(()),
        Some(_) => Err(ArchiveError::Duplicate(name)),
        None => {
            names.insert(name, kind);
            Ok(())
        }
    }
}

fn no_entry_below_a_link(names: &HashMap<String, EntryKind>) -> Result<(), ArchiveError> {
    for name in names.keys() {
        let mut parent = name.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            if names.get(above).is_some_and(|kind| *kind != EntryKind::Directory) {
                return Err(ArchiveError::Hostile { name: name.clone(), problem: "lies below a file or a link" });
            }
            parent = above;
        }
    }
    Ok(())
}

fn write_complete(
    archive: Option<ZipArchive<Metered>>,
    known: &[KnownFile],
    scratch: Scratch<'_>,
) -> Result<(), ArchiveError> {
    let into_io = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => ArchiveError::Io(error),
        error => ArchiveError::Io(io::Error::other(error)),
    };
    let mut writer = ZipWriter::new(scratch.create(&scratch.complete())?);
    if let Some(mut archive) = archive {
        for index in 0..archive.len() {
            writer.raw_copy_file(archive.by_index_raw(index).map_err(into_io)?).map_err(into_io)?;
        }
    }
    for file in known {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(1))
            .large_file(file.size > u64::from(u32::MAX) / 2)
            .unix_permissions(file.mode & 0o777);
        writer.start_file(clean_name(&file.path)?, options).map_err(into_io)?;
        io::copy(&mut File::open(&file.local)?, &mut writer)?;
    }
    writer.finish().map_err(into_io)?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ArchiveLimits = ArchiveLimits { unpacked_bytes: 1 << 20, files: 10 };

    enum Entry<'a> {
        File(&'a str, Vec<u8>),
        Link(&'a str, &'a str),
    }

    fn zip_of(path: &Path, entries: &[Entry<'_>]) {
        let mut writer = ZipWriter::new(File::create(path).expect("create"));
        for entry in entries {
            match entry {
                Entry::File(name, content) => {
                    writer.start_file(*name, SimpleFileOptions::default()).expect("start");
                    writer.write_all(content).expect("write");
                }
                Entry::Link(name, target) => {
                    writer.add_symlink(*name, *target, SimpleFileOptions::default()).expect("link");
                }
            }
        }
        writer.finish().expect("finish");
    }

    fn scratch(directory: &tempfile::TempDir) -> Scratch<'_> {
        Scratch { directory: directory.path(), remember: true, reserve: None }
    }

    fn checked(
        entries: &[Entry<'_>],
        known: &[KnownFile],
    ) -> Result<(CheckedPackage, tempfile::TempDir), ArchiveError> {
        let directory = tempfile::tempdir().expect("tempdir");
        let upload = directory.path().join("upload.zip");
        zip_of(&upload, entries);
        let checked = check_package(Some(&upload), known, LIMITS, scratch(&directory))?;
        Ok((checked, directory))
    }

    fn refused(entries: &[Entry<'_>]) -> String {
        checked(entries, &[]).map(|_| ()).expect_err("refused").to_string()
    }

    #[test]
    fn entries_that_climb_out_are_refused() {
        for name in ["../x", "a/../../x", "/etc/passwd", "a\\..\\b"] {
            let text = refused(&[Entry::File(name, b"x".to_vec())]);
            assert!(text.contains("the archive entry"), "{name}: {text}");
        }
        for (name, target) in
            [("l", "/etc/passwd"), ("l", ".."), ("a/l", "../.."), ("a/l", "b/../../.."), ("l", "b/..")]
        {
            let text = refused(&[Entry::Link(name, target)]);
            assert!(text.contains("link"), "{name} -> {target}: {text}");
        }
        let text = refused(&[Entry::Link("l", "a"), Entry::File("l/x", b"x".to_vec())]);
        assert!(text.contains("below a file or a link"), "{text}");
        assert!(checked(&[Entry::Link("a/l", "../b"), Entry::File("b", b"x".to_vec())], &[]).is_ok());
    }

    #[test]
    fn bombs_and_crowds_are_refused_by_what_comes_out() {
        let text = refused(&[Entry::File("zeros", vec![0; (1 << 20) + 1])]);
        assert!(text.contains("1048576 bytes"), "{text}");
        let names: Vec<String> = (0..11).map(|n| format!("f{n}")).collect();
        let entries: Vec<Entry<'_>> = names.iter().map(|name| Entry::File(name, Vec::new())).collect();
        let text = refused(&entries);
        assert!(text.contains("11 files"), "{text}");
    }

    #[test]
    fn files_left_out_are_counted_before_they_are_copied() {
        assert!(check_known([1 << 19, 1 << 19].into_iter(), LIMITS).is_ok());
        let large = check_known([1 << 19, (1 << 19) + 1].into_iter(), LIMITS).expect_err("too large").to_string();
        assert!(large.contains("1048576 bytes"), "{large}");
        assert!(check_known([u64::MAX, u64::MAX].into_iter(), LIMITS).is_err());
        let many = check_known([0; 11].into_iter(), LIMITS).expect_err("too many").to_string();
        assert!(many.contains("11 files"), "{many}");
    }

    #[test]
    fn the_same_name_twice_and_what_is_no_zip_are_refused() {
        let text = refused(&[Entry::File("a", b"1".to_vec()), Entry::File("./a", b"2".to_vec())]);
        assert!(text.contains("more than once"), "{text}");
        let directory = tempfile::tempdir().expect("tempdir");
        let upload = directory.path().join("upload.zip");
        std::fs::write(&upload, b"not a zip at all").expect("write");
        let error = check_package(Some(&upload), &[], LIMITS, scratch(&directory)).expect_err("refused");
        assert!(matches!(error, ArchiveError::NotZip(_)), "{error}");
    }

    /// The two beginnings of a published pair of files with one SHA-1; whatever follows both, they stay a pair.
    const PAIR: [&str; 2] = [
        "255044462d312e330a25e2e3cfd30a0a0a312030206f626a0a3c3c2f57696474682032203020522f4865696768742033203020522f547970\
         652034203020522f537562747970652035203020522f46696c7465722036203020522f436f6c6f7253706163652037203020522f4c656e67\
         74682038203020522f42697473506572436f6d706f6e656e7420383e3e0a73747265616d0affd8fffe00245348412d312069732064656164\
         2121212121852fec092339759c39b1a1c63c4c97e1fffe017f46dc93a6b67e013b029aaa1db2560b45ca67d688c7f84b8c4c791fe02b3df6\
         14f86db1690901c56b45c1530afedfb76038e972722fe7ad728f0e4904e046c230570fe9d41398abe12ef5bc942be33542a4802d98b5d70f\
         2a332ec37fac3514e74ddc0f2cc1a874cd0c78305a21566461309789606bd0bf3f98cda8044629a1",
        "255044462d312e330a25e2e3cfd30a0a0a312030206f626a0a3c3c2f57696474682032203020522f4865696768742033203020522f547970\
         652034203020522f537562747970652035203020522f46696c7465722036203020522f436f6c6f7253706163652037203020522f4c656e67\
         74682038203020522f42697473506572436f6d706f6e656e7420383e3e0a73747265616d0affd8fffe00245348412d312069732064656164\
         2121212121852fec092339759c39b1a1c63c4c97e1fffe017346dc9166b67e118f029ab621b2560ff9ca67cca8c7f85ba84c79030c2b3de2\
         18f86db3a90901d5df45c14f26fedfb3dc38e96ac22fe7bd728f0e45bce046d23c570feb141398bb552ef5a0a82be331fea48037b8b5d71f\
         0e332edf93ac3500eb4ddc0decc1a864790c782c76215660dd309791d06bd0af3f98cda4bc4629b1",
    ];

    #[test]
    fn a_file_made_to_have_the_sha1_of_another_is_not_remembered() {
        let pair = PAIR.map(|hex_text| {
            let mut file = hex::decode(hex_text).expect("hex");
            file.resize(70_000, b'x');
            file
        });
        let sha1 = |bytes: &[u8]| <sha1::Sha1 as sha1::Digest>::digest(bytes);
        assert!(pair[0] != pair[1] && sha1(&pair[0]) == sha1(&pair[1]), "they are a pair");
        for file in pair {
            let (checked, _) = checked(&[Entry::File("a.pdf", file)], &[]).expect("a package may hold it");
            assert!(checked.remembered.is_empty());
        }
    }

    #[test]
    fn known_files_complete_the_package_and_large_ones_are_remembered() {
        let directory = tempfile::tempdir().expect("tempdir");
        let local = directory.path().join("known");
        std::fs::write(&local, b"known content").expect("write");
        let known = [KnownFile { path: "lib/known.txt".to_owned(), mode: 0o755, size: 13, local }];
        let large = vec![7_u8; 70_000];
        let (checked, place) =
            checked(&[Entry::File("big.bin", large.clone()), Entry::File("small", b"s".to_vec())], &known)
                .expect("judged");
        assert!(checked.rewritten);
        assert_eq!(checked.remembered.len(), 1);
        assert_eq!(checked.remembered[0].sha1[..], <sha1::Sha1 as sha1::Digest>::digest(&large)[..]);
        let mut archive = ZipArchive::new(File::open(place.path().join("complete.zip")).expect("open")).expect("zip");
        let mut text = String::new();
        let mut entry = archive.by_name("lib/known.txt").expect("known");
        assert_eq!(entry.unix_mode().map(|mode| mode & 0o777), Some(0o755));
        entry.read_to_string(&mut text).expect("read");
        assert_eq!(text, "known content");
        drop(entry);
        assert_eq!(archive.by_name("big.bin").expect("big").size(), 70_000);
    }
}
