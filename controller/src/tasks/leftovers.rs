//! What an upload leaves on the disk of the blobs when the controller is killed in the middle of it: nobody knows of these
//! files, so only their age tells that they are over.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// No upload takes this long without a byte.
pub const AGE: Duration = Duration::from_secs(24 * 3600);

/// Removes what was not touched for `age`: directories of received bits (`incoming/`), of what cells send (`.tmp…`), and
/// the half-written files of the object store (`sha256/ab/…#1`). Gives their number. Blocking.
///
/// # Errors
/// When a directory cannot be read. What cannot be removed is left for the next time.
pub fn remove(blobs: &Path, age: Duration) -> std::io::Result<usize> {
    let mut found = entries(&blobs.join("incoming"))?;
    found.extend(entries(blobs)?.into_iter().filter(|path| name(path).starts_with(".tmp")));
    for directory in entries(&blobs.join("sha256"))? {
        found.extend(entries(&directory)?.into_iter().filter(|path| name(path).contains('#')));
    }
    let mut removed = 0;
    for path in found {
        if !is_older(&path, age) {
            continue;
        }
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match gone {
            Ok(()) => removed += 1,
            Err(error) => tracing::debug!(path = %path.display(), %error, "a leftover of an upload was not removed"),
        }
    }
    Ok(removed)
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Nothing when it is not there, or no directory.
fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A directory is as young as what is in it: bytes that arrive in a file do not touch the directory.
fn is_older(path: &Path, age: Duration) -> bool {
    let touched = |path: &Path| path.symlink_metadata().and_then(|meta| meta.modified()).ok();
    let mut times = vec![touched(path)];
    times.extend(entries(path).unwrap_or_default().iter().map(|path| touched(path)));
    let Some(limit) = SystemTime::now().checked_sub(age) else { return false };
    // One that cannot be judged goes on, or has just gone.
    times.into_iter().all(|time| time.is_some_and(|time| time < limit))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn old(path: &Path) {
        let then = SystemTime::now() - 2 * AGE;
        File::open(path).and_then(|file| file.set_modified(then)).expect("aged");
    }

    #[test]
    fn finished_resources_are_removed_and_running_ones_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = directory.path();
        assert_eq!(remove(blobs, AGE).expect("nothing there"), 0);
        let file = |name: &str| {
            let path = blobs.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            File::create(&path).expect("made");
            path
        };
        let dead = [file("incoming/dead/bits"), file(".tmpDead"), file("sha256/ab/abcd#1")];
        let young = [file("incoming/young/bits"), file(".tmpYoung"), file("sha256/ab/abcd#2")];
        // Bytes arrive in it, and its directory is as it was.
        let slow = file("incoming/slow/bits");
        let blob = file("sha256/ab/abcd");
        for path in dead.iter().chain([&blob]) {
            old(path);
        }
        for name in ["incoming/dead", "incoming/slow", "incoming", "sha256/ab", "sha256"] {
            old(&blobs.join(name));
        }
        assert_eq!(remove(blobs, AGE).expect("looked through"), dead.len());
        assert!(!blobs.join("incoming/dead").exists() && dead.iter().all(|path| !path.exists()));
        assert!(young.iter().chain([&slow, &blob]).all(|path| path.exists()));
        assert_eq!(remove(blobs, AGE).expect("looked through"), 0);
    }
}
