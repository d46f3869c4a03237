//! Files of the state directory are for root alone, but for the two that say where the platform is and whom to trust.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::stat::{Mode, umask};

use crate::UpError;
use crate::layout::Layout;

/// Files that everybody may read: a developer's account on this machine uses the platform too.
pub(crate) const PUBLIC: [&str; 2] = ["public.json", WEB_AUTHORITY];
/// The certificate by which the platform's names are known.
pub(crate) const WEB_AUTHORITY: &str = "web-authority.pem";
/// What files are made without, by `slipway up` and by all parts but the cell: that one makes file systems for apps, to
/// which other rules apply, and its own directory is closed as a whole.
const MASK: u32 = 0o027;
/// What the cell makes files without.
pub(crate) const CELL_MASK: u32 = 0o022;

/// From now on this process makes no file that other accounts may read.
pub(crate) fn mask() {
    umask(Mode::from_bits_truncate(MASK));
}

/// Closes what lies in the state directory, also what an earlier version left open. Nobody needs to list it, and everybody
/// passes through: Postgres' account to its data, a developer's to what is public.
///
/// # Errors
/// When the directory cannot be read or changed.
pub(crate) fn tighten(layout: &Layout) -> Result<(), UpError> {
    let set = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(UpError::file(path))
    };
    // The cell would make it with its own mask.
    let cell = layout.state("cell");
    std::fs::create_dir_all(&cell).map_err(UpError::file(&cell))?;
    set(&layout.state, 0o711)?;
    for entry in std::fs::read_dir(&layout.state).map_err(UpError::file(&layout.state))? {
        let path = entry.map_err(UpError::file(&layout.state))?.path();
        let metadata = std::fs::symlink_metadata(&path).map_err(UpError::file(&path))?;
        let public = path.file_name().is_some_and(|name| PUBLIC.iter().any(|public| name == *public));
        let mode = metadata.permissions().mode() & 0o7777;
        // A link is not followed: what it leads to is not of this directory.
        if (metadata.is_dir() || metadata.is_file()) && !public && mode & MASK != 0 {
            set(&path, mode & !MASK)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};

    use super::*;

    #[test]
    fn files_that_an_earlier_version_left_readable_are_tightened() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout { state: directory.path().join("state"), run: directory.path().join("run") };
        create_dir(&layout.state).expect("made");
        let outside = directory.path().join("outside");
        let made = [("logs", 0o755), ("config", 0o777), ("blobs", 0o755), ("tls", 0o755), ("postgres", 0o700)];
        for (name, mode) in made {
            create_dir(layout.state(name)).expect(name);
            set_permissions(layout.state(name), Permissions::from_mode(mode)).expect(name);
        }
        for name in ["settings.json", "public.json", WEB_AUTHORITY] {
            write(layout.state(name), "x").expect(name);
            set_permissions(layout.state(name), Permissions::from_mode(0o644)).expect(name);
        }
        write(&outside, "x").expect("made");
        set_permissions(&outside, Permissions::from_mode(0o644)).expect("set");
        std::os::unix::fs::symlink(&outside, layout.state("link")).expect("a link");
        mask();
        tighten(&layout).expect("closed");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        for (name, wanted) in [
            ("", 0o711),
            ("logs", 0o750),
            ("config", 0o750),
            ("cell", 0o750),
            ("blobs", 0o750),
            ("tls", 0o750),
            ("postgres", 0o700),
            ("settings.json", 0o640),
            ("public.json", 0o644),
            (WEB_AUTHORITY, 0o644),
        ] {
            assert_eq!(mode(&layout.state(name)), wanted, "{name}");
        }
        assert_eq!(mode(&outside), 0o644);
    }
}
