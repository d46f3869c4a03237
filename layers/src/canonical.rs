//! The canonical tar: bytes that follow from a tree's content alone.
//!
//! Entries are sorted by path; owners and times are kept, set or made of the content as asked; user names, access times, extended attributes
//! (also overlay's and file capabilities) and the setuid, setgid bits are left out. Devices, pipes, sockets and overlay
//! whiteouts are refused: they have no place in a layer that is mounted under others.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header};
use walkdir::WalkDir;

use crate::digest::{Digest, HashingWriter};

/// Ids from here on are not in a sandbox's range.
const FIRST_FOREIGN_ID: u32 = 65_536;
/// Fast, and within a few per cent of level 9 on binaries.
const ZSTD_LEVEL: i32 = 3;
/// Compression threads: more do not pay below a few hundred megabytes.
const ZSTD_WORKERS: u32 = 4;

/// Who owns the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As on disk.
    Keep,
    /// All belong to this user and group.
    Fixed(u32, u32),
}

/// Modification times of the entries, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As on disk, but nothing younger than this. Packages' own times survive; what an installation made does not make
    /// every build another layer.
    Clamp(i64),
    /// The same for all.
    Fixed(i64),
    /// A file's own, made of its content: a second from 1980 to 2013. Web servers tell by time and size whether a visitor's
    /// copy is still good; with one time for all, a page in which a word was replaced by another of the same length would be
    /// the old one to them. Which of two files is newer such times do not say. Everything else has the first of these times.
    Content,
}

/// 1980-01-01, the oldest time that a zip can carry.
pub const FIRST_TIME: i64 = 315_532_800;
/// Bits of a file's digest that make its time: the last second is in January 2014, which is the past everywhere.
const TIME_BITS: u32 = 30;
/// A file up to here is read once, into memory, when its time is made of its content. A larger one is read twice.
const READ_ONCE: u64 = 1 << 20;

/// The time of a file with such content.
fn time_of(digest: &Digest) -> u64 {
    let [a, b, c, d, ..] = *digest.as_bytes();
    FIRST_TIME.unsigned_abs() + u64::from(u32::from_be_bytes([a, b, c, d]) >> (u32::BITS - TIME_BITS))
}

/// How a tree is packed.
pub struct PackOptions<'a> {
    /// Owners.
    pub owners: Owners,
    /// Times.
    pub times: Times,
    /// Whether a path, relative to the root, is taken. A directory that is not takes its content with it.
    pub take: &'a dyn Fn(&Path) -> bool,
    /// Leave devices, pipes and sockets out instead of refusing the tree.
    pub skip_special: bool,
    /// Bytes that all regular files may have together.
    pub max_bytes: u64,
    /// Wait until the archive is on the disk. Not for what is read again at once and then thrown away.
    pub durable: bool,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// SHA-256 of the uncompressed tar.
    pub digest: Digest,
    /// SHA-256 of the file that was written.
    pub blob: Digest,
    /// Its bytes.
    pub blob_size: u64,
    /// Bytes of all regular files.
    pub size: u64,
    /// Entries, relative to the root, in the order of the tar.
    pub paths: Vec<PathBuf>,
}

/// Why a tree cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Reading the tree or writing the archive failed.
    #[error("packing {} failed", path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A device, pipe, socket or whiteout.
    #[error("{} is a device, pipe, socket or whiteout of overlayfs: a layer holds only files, directories and links", .0.display())]
    Special(PathBuf),
    /// An owner that no sandbox can have.
    #[error("{} belongs to {id}: ids in a layer are below {FIRST_FOREIGN_ID}", path.display())]
    ForeignOwner {
        /// Where.
        path: PathBuf,
        /// User or group.
        id: u32,
    },
    /// The tree holds more than it may.
    #[error("the files hold more than the permitted {limit} bytes")]
    TooLarge {
        /// Permitted.
        limit: u64,
    },
}

/// Packs the tree at `root` into a zstd-compressed canonical tar at `target`.
///
/// # Errors
/// When the tree has something that a layer cannot hold, or on I/O; `target` is then incomplete and must not be used.
pub fn pack(root: &Path, target: &Path, options: &PackOptions<'_>) -> Result<Packed, MakeError> {
    let file = File::create(target).map_err(at(target))?;
    let blob = HashingWriter::new(BufWriter::with_capacity(1 << 20, file));
    let encoder = compressor(blob).map_err(at(target))?;
    let (encoder, digest, paths, size) = write_tree(root, HashingWriter::new(encoder), options)?;
    let (writer, blob, blob_size) = encoder.finish().map_err(at(target))?.finish();
    let file = writer.into_inner().map_err(|error| at(target)(error.into_error()))?;
    if options.durable {
        file.sync_all().map_err(at(target))?;
    }
    Ok(Packed { digest, blob, blob_size, size, paths })
}

/// How every archive is compressed: equal tars give equal blobs.
///
/// # Errors
/// When the encoder cannot be made.
pub fn compressor<W: Write>(blob: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(blob, ZSTD_LEVEL)?;
    // One worker or more gives the same bytes for any number of them; none gives others.
    encoder.multithread(ZSTD_WORKERS)?;
    Ok(encoder)
}

type Written<W> = (W, Digest, Vec<PathBuf>, u64);

/// Writes the canonical tar of `root`: the writer below, the digest, the paths and the bytes of all files.
fn write_tree<W: Write>(
    root: &Path,
    sink: HashingWriter<W>,
    options: &PackOptions<'_>,
) -> Result<Written<W>, MakeError> {
    let mut tar = Builder::new(sink);
    let mut paths = Vec::new();
    let mut size = 0;
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let walk = WalkDir::new(root)
        .min_depth(1)
        .follow_links(false)
        .sort_by(|a, b| a.file_name().cmp(b.file_name()))
        .into_iter()
        .filter_entry(|entry| {
            entry.depth() == 0 || (options.take)(entry.path().strip_prefix(root).unwrap_or(entry.path()))
        });
    for entry in walk {
        let entry = entry
            .map_err(|error| MakeError::Io { path: error.path().unwrap_or(root).to_owned(), source: error.into() })?;
        let full = entry.path();
        let name = full.strip_prefix(root).unwrap_or(full).to_owned();
        let metadata = fs::symlink_metadata(full).map_err(at(full))?;
        let kind = metadata.file_type();
        if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
            if options.skip_special {
                continue;
            }
            return Err(MakeError::Special(name));
        }
        let mut header = header(&name, &metadata, options)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, &name, io::empty()).map_err(at(full))?;
        } else if kind.is_symlink() {
            let to = fs::read_link(full).map_err(at(full))?;
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            append_link(&mut tar, &mut header, &name, &to).map_err(at(full))?;
        } else if let Some(first) =
            (metadata.nlink() > 1).then(|| links.get(&(metadata.dev(), metadata.ino()))).flatten()
        {
            header.set_entry_type(EntryType::Link);
            append_link(&mut tar, &mut header, &name, first).map_err(at(full))?;
        } else {
            header.set_entry_type(EntryType::Regular);
            header.set_size(metadata.len());
            let by_content = options.times == Times::Content;
            append_file(&mut tar, &mut header, &name, full, metadata.len(), by_content).map_err(at(full))?;
            size += metadata.len();
            if size > options.max_bytes {
                return Err(MakeError::TooLarge { limit: options.max_bytes });
            }
            if metadata.nlink() > 1 {
                links.insert((metadata.dev(), metadata.ino()), name.clone());
            }
        }
        paths.push(name);
    }
    let (inner, digest, _) = tar.into_inner().map_err(at(root))?.finish();
    Ok((inner, digest, paths, size))
}

/// A file of so many bytes; its time is made of them when asked for.
fn append_file<W: Write>(
    tar: &mut Builder<W>,
    header: &mut Header,
    name: &Path,
    full: &Path,
    size: u64,
    by_content: bool,
) -> io::Result<()> {
    // A file that changes its length meanwhile would shift everything behind it.
    let exact = |file| Exact { inner: Read::take(file, size), left: size };
    let mut file = File::open(full)?;
    if by_content && size <= READ_ONCE {
        let mut bytes = Vec::new();
        exact(file).read_to_end(&mut bytes)?;
        header.set_mtime(time_of(&Digest::of(&bytes)));
        return tar.append_data(header, name, &bytes[..]);
    }
    if by_content {
        let mut hash = HashingWriter::new(io::sink());
        io::copy(&mut file, &mut hash)?;
        header.set_mtime(time_of(&hash.finish().1));
        file.rewind()?;
    }
    tar.append_data(header, name, &mut exact(file))
}

/// Link targets are written byte for byte: `a//b` and `./b` must come back as they were.
fn append_link<W: Write>(tar: &mut Builder<W>, header: &mut Header, name: &Path, to: &Path) -> io::Result<()> {
    let bytes = to.as_os_str().as_bytes();
    if bytes.len() < 100 {
        header.set_link_name_literal(bytes)?;
        tar.append_data(header, name, io::empty())
    } else {
        tar.append_link(header, name, to)
    }
}

fn header(name: &Path, metadata: &fs::Metadata, options: &PackOptions<'_>) -> Result<Header, MakeError> {
    let mut header = Header::new_gnu();
    let (user, group) = match options.owners {
        Owners::Keep => (metadata.uid(), metadata.gid()),
        Owners::Fixed(user, group) => (user, group),
    };
    if let Some(id) = [user, group].into_iter().find(|id| *id >= FIRST_FOREIGN_ID) {
        return Err(MakeError::ForeignOwner { path: name.to_owned(), id });
    }
    let time = match options.times {
        Times::Clamp(latest) => metadata.mtime().min(latest),
        Times::Fixed(time) => time,
        Times::Content => FIRST_TIME,
    };
    header.set_uid(user.into());
    header.set_gid(group.into());
    header.set_mtime(u64::try_from(time).unwrap_or(0));
    header.set_mode(metadata.mode() & 0o1777);
    header.set_size(0);
    Ok(header)
}

fn at(path: &Path) -> impl Fn(io::Error) -> MakeError {
    let path = path.to_owned();
    move |source| MakeError::Io { path: path.clone(), source }
}

/// Fails when a file ends before its announced length.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left -= read as u64;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was packed"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn everything() -> PackOptions<'static> {
        PackOptions {
            owners: Owners::Fixed(2000, 2000),
            times: Times::Fixed(315_532_800),
            take: &|_| true,
            skip_special: false,
            max_bytes: u64::MAX,
            durable: false,
        }
    }

    fn tree(directory: &Path, reversed: bool) {
        let mut files = vec![("b/two", "2"), ("a", "1"), ("b/one", "11")];
        if reversed {
            files.reverse();
        }
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        symlink("./b//one", directory.join("link")).unwrap();
        fs::hard_link(directory.join("b/one"), directory.join("hard")).unwrap();
    }

    #[test]
    fn equal_trees_give_equal_bytes() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let out = tempfile::tempdir().unwrap();
        tree(first.path(), false);
        tree(second.path(), true);
        let a = pack(first.path(), &out.path().join("a"), &everything()).unwrap();
        let b = pack(second.path(), &out.path().join("b"), &everything()).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.size, 4, "a hard link is counted once");
        assert_eq!(Digest::of_file(&out.path().join("a")).unwrap(), (a.blob, a.blob_size));
        fs::write(second.path().join("a"), "3").unwrap();
        assert_ne!(pack(second.path(), &out.path().join("b"), &everything()).unwrap().digest, a.digest);
    }

    /// Names and times of what an archive holds.
    fn times(archive: &Path) -> Vec<(PathBuf, u64)> {
        let bytes = zstd::decode_all(File::open(archive).unwrap()).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.path().unwrap().into_owned(), entry.header().mtime().unwrap())).collect()
    }

    #[test]
    fn a_file_has_another_time_when_its_content_is_another() {
        let (source, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(source.path(), false);
        // Both ways of reading.
        let large = vec![b'a'; usize::try_from(READ_ONCE).unwrap() + 1];
        fs::write(source.path().join("large"), &large).unwrap();
        let options = PackOptions { times: Times::Content, ..everything() };
        let pack = || {
            let packed = pack(source.path(), &out.path().join("a"), &options).unwrap();
            (packed.digest, times(&out.path().join("a")))
        };
        let first = pack();
        assert_eq!(pack(), first, "equal content, equal bytes, whatever the clock says");
        let (first_time, last_time) = (FIRST_TIME.unsigned_abs(), 1_389_274_623);
        for (name, time) in &first.1 {
            let file = ["a", "b/one", "b/two", "large"].iter().any(|file| Path::new(file) == name);
            assert_eq!(*time == first_time, !file, "{}: {time}", name.display());
            assert!((first_time..=last_time).contains(time), "{}: {time}", name.display());
        }

        fs::write(source.path().join("a"), "2").unwrap();
        fs::write(source.path().join("large"), [&large[1..], b"b"].concat()).unwrap();
        let changed = pack().1.into_iter().zip(first.1).filter(|(new, old)| new != old).map(|(new, _)| new.0);
        assert_eq!(changed.collect::<Vec<_>>(), ["a", "large"].map(PathBuf::from));
    }

    #[test]
    fn setuid_is_dropped_and_sockets_are_refused() {
        let source = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        fs::write(source.path().join("su"), "x").unwrap();
        fs::set_permissions(source.path().join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
        pack(source.path(), &out.path().join("a"), &everything()).unwrap();
        let bytes = zstd::decode_all(File::open(out.path().join("a")).unwrap()).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o755);
        assert_eq!(entry.header().uid().unwrap(), 2000);

        let _socket = std::os::unix::net::UnixListener::bind(source.path().join("socket")).unwrap();
        let refused = pack(source.path(), &out.path().join("b"), &everything());
        assert!(matches!(refused, Err(MakeError::Special(path)) if path == Path::new("socket")));
        let skipping = PackOptions { skip_special: true, ..everything() };
        assert_eq!(pack(source.path(), &out.path().join("b"), &skipping).unwrap().paths, [Path::new("su")]);
    }

    #[test]
    fn an_excluded_directory_excludes_its_content() {
        let source = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        tree(source.path(), false);
        let options = PackOptions { take: &|path| path != Path::new("b"), ..everything() };
        let packed = pack(source.path(), &out.path().join("a"), &options).unwrap();
        assert_eq!(packed.paths, ["a", "hard", "link"].map(PathBuf::from));
    }
}
