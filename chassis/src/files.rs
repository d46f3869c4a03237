//! Small files that are replaced as a whole: who reads one sees the old content or the new, never a part.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Result, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What a draft's name begins with. Hidden, and no name that a part gives to a file.
const DRAFT: &str = ".draft-";

/// What of a written file is there after a power cut. The end of a process costs nothing, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is promised: the file may be empty. For what is written anew at each start, and costs no wait for a disk.
    None,
    /// The old content or the new, whole. Which of them is open even after [`write`] has returned.
    Whole,
    /// The new content, once [`write`] has returned; before that the old or the new, whole.
    Lasting,
}

/// Replaces a file, or makes it. The content is written to a draft beside it, which gets the mode and then the name;
/// until then only its owner can read it. The mode is exact: the process's mask takes nothing from it.
///
/// # Errors
/// When the file system refuses. The old file is then as it was and the draft is gone; but when only the directory
/// could not be made durable, the new content is in place.
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32, durability: Durability) -> Result<()> {
    let directory = directory_of(path);
    let mut draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(directory)?;
    draft.write_all(content.as_ref())?;
    draft.as_file().set_permissions(Permissions::from_mode(mode))?;
    if durability != Durability::None {
        draft.as_file().sync_all()?;
    }
    draft.persist(path)?;
    if durability == Durability::Lasting {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Removes the drafts of writers that were killed. Only for a directory in which nobody else writes meanwhile.
///
/// # Errors
/// When the directory cannot be listed or a draft not removed.
pub fn remove_drafts(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A bare name is in the working directory.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const ALL: [Durability; 3] = [Durability::None, Durability::Whole, Durability::Lasting];

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("list");
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect()
    }

    #[test]
    fn a_file_is_made_and_replaced_with_its_mode() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        for (durability, mode) in ALL.into_iter().zip([0o600, 0o666, 0o440]) {
            let content = format!("{durability:?}");
            write(&path, &content, mode, durability).expect("write");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), content);
            assert_eq!(path.metadata().expect("metadata").permissions().mode() & 0o7777, mode);
            assert_eq!(names(directory.path()), ["file"]);
        }
    }

    #[test]
    fn a_reader_never_sees_half_a_file() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        let content = |letter: u8| vec![letter; 100_000];
        write(&path, content(b'a'), 0o600, Durability::None).expect("write");
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let seen = std::fs::read(&path).expect("read");
                    assert_eq!(seen, content(seen[0]));
                }
            });
            for letter in b'b'..=b'z' {
                write(&path, content(letter), 0o600, Durability::None).expect("write");
            }
            ended.store(true, Ordering::Relaxed);
            reader.join().expect("only whole files");
        });
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("directory");
        let taken = directory.path().join("taken");
        std::fs::create_dir(&taken).expect("a directory in the way");
        for durability in ALL {
            assert!(write(&taken, "x", 0o600, durability).is_err());
            assert_eq!(names(directory.path()), ["taken"]);
            assert!(write(&directory.path().join("absent/file"), "x", 0o600, durability).is_err());
        }
    }

    #[test]
    fn drafts_of_killed_writers_are_removed() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        write(&path, "x", 0o600, Durability::None).expect("write");
        std::fs::write(directory.path().join(format!("{DRAFT}x1y2z3")), "half").expect("a draft");
        remove_drafts(directory.path()).expect("remove");
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/file")), Path::new("a"));
        assert_eq!(directory_of(Path::new("/")), Path::new("."));
    }
}
