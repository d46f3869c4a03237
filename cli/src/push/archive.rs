//! Packs the files that the platform lacks into a zip in the temporary directory; it goes when it is dropped.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::files::{Entry, FilesError, Kind, open};
use crate::error::CliError;

/// Compression costs more than it saves on the way to a platform nearby; 3 is where the curve bends.
const LEVEL: i64 = 3;
/// Beyond this a zip entry needs 64-bit sizes.
const LARGE: u64 = u32::MAX as u64;

/// Tells the packing thread to stop when the command that wants the archive is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Packs entries of the directory `root`.
pub(super) async fn pack(root: &Path, entries: Vec<Entry>) -> Result<NamedTempFile, CliError> {
    let stopped = Arc::new(AtomicBool::new(false));
    let _stop = Stop(Arc::clone(&stopped));
    let root = root.to_owned();
    let packed = tokio::task::spawn_blocking(move || write(&root, &entries, &stopped));
    Ok(packed.await.map_err(CliError::Panicked)??)
}

fn write(root: &Path, entries: &[Entry], stopped: &AtomicBool) -> Result<NamedTempFile, FilesError> {
    let pack = |source: std::io::Error| FilesError::Pack { source: source.into() };
    let file = tempfile::Builder::new().prefix("slipway-").suffix(".zip").tempfile().map_err(pack)?;
    let mut zip = ZipWriter::new(std::io::BufWriter::new(file));
    let zipped = |source: zip::result::ZipError| FilesError::Pack { source: source.into() };
    let mut buffer = vec![0; 128 << 10];
    for entry in entries {
        if stopped.load(Ordering::Relaxed) {
            return Err(FilesError::Cancelled);
        }
        // The same files give the same archive: no time of day in it.
        let options = SimpleFileOptions::default().last_modified_time(DateTime::default()).unix_permissions(entry.mode);
        match &entry.kind {
            Kind::EmptyDirectory => zip.add_directory(entry.path.as_str(), options).map_err(zipped)?,
            Kind::Link { target } => {
                zip.add_symlink(entry.path.as_str(), target.as_str(), options).map_err(zipped)?;
            }
            Kind::File { size, .. } => {
                let options = options
                    .compression_method(CompressionMethod::Deflated)
                    .compression_level(Some(LEVEL))
                    .large_file(*size >= LARGE);
                zip.start_file(entry.path.as_str(), options).map_err(zipped)?;
                let mut file = open(root, &entry.path)?;
                loop {
                    if stopped.load(Ordering::Relaxed) {
                        return Err(FilesError::Cancelled);
                    }
                    let count = file
                        .read(&mut buffer)
                        .map_err(|source| FilesError::Read { path: root.join(&entry.path), source })?;
                    if count == 0 {
                        break;
                    }
                    zip.write_all(&buffer[..count]).map_err(pack)?;
                }
            }
        }
    }
    zip.finish().map_err(zipped)?.into_inner().map_err(|error| pack(error.into_error()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::files::Source;
    use super::super::files::tests::tree;
    use super::*;
    use crate::args::GlobalOptions;
    use crate::printer::{Output, Printer};

    fn silent() -> Printer {
        let output =
            Output { out: Box::new(std::io::sink()), err: Box::new(std::io::sink()), terminal: false, screen: false };
        Printer::new(output, GlobalOptions::default())
    }

    async fn found(root: &Path) -> Vec<Entry> {
        match Source::find(root, &silent()).await.expect("found") {
            Source::Directory { entries, .. } => entries,
            Source::Archive { .. } => panic!("a directory"),
        }
    }

    #[tokio::test]
    async fn an_archive_keeps_content_modes_links_and_empty_directories() {
        let app =
            tree(&[("bin/run", "#!/bin/sh\nexit 0\n"), ("empty/", ""), ("nothing", ""), ("große datei.txt", "ä")]);
        std::fs::set_permissions(app.path().join("bin/run"), std::fs::Permissions::from_mode(0o755)).expect("mode");
        symlink("bin/run", app.path().join("start")).expect("link");
        let file = pack(app.path(), found(app.path()).await).await.expect("packed");
        let mut zip = zip::ZipArchive::new(file.reopen().expect("opened")).expect("a zip");
        let mut seen = Vec::new();
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).expect("entry");
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("content");
            seen.push((
                entry.name().expect("a name").into_owned(),
                entry.unix_mode().expect("mode") & 0o170_777,
                content,
            ));
        }
        seen.sort();
        let bits =
            |name: &str| seen.iter().find(|entry| entry.0 == name).unwrap_or_else(|| panic!("{name} in {seen:?}"));
        assert_eq!(bits("bin/run"), &("bin/run".to_owned(), 0o100_755, "#!/bin/sh\nexit 0\n".to_owned()));
        assert_eq!(bits("start").2, "bin/run");
        assert_eq!(bits("start").1 & 0o170_000, 0o120_000);
        assert_eq!(bits("empty/").1 & 0o170_000, 0o040_000);
        assert_eq!(bits("nothing").2, "");
        assert_eq!(bits("große datei.txt").2, "ä");
        assert_eq!(seen.len(), 5);
    }

    #[tokio::test]
    async fn equal_files_give_equal_archives_and_a_dropped_one_is_gone() {
        let app = tree(&[("a", "1"), ("b/c", "2")]);
        let one = pack(app.path(), found(app.path()).await).await.expect("packed");
        let two = pack(app.path(), found(app.path()).await).await.expect("packed");
        assert_eq!(std::fs::read(one.path()).expect("one"), std::fs::read(two.path()).expect("two"));
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_was_removed_meanwhile_is_named() {
        let app = tree(&[("a", "1"), ("gone", "2")]);
        let entries = found(app.path()).await;
        std::fs::remove_file(app.path().join("gone")).expect("removed");
        let error = pack(app.path(), entries).await.expect_err("incomplete");
        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_became_a_link_is_not_followed() {
        let outside = tree(&[("secret", "s")]);
        let app = tree(&[("a", "1")]);
        let entries = found(app.path()).await;
        std::fs::remove_file(app.path().join("a")).expect("removed");
        symlink(outside.path().join("secret"), app.path().join("a")).expect("link");
        assert!(pack(app.path(), entries).await.is_err());
    }
}
