//! Files of the state directory.

use std::path::Path;

use slipway_chassis::files::{self, Durability};

use crate::UpError;

/// Writes a file of the state directory; a power cut leaves the old or the new content.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), UpError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(UpError::file(directory))?;
    files::write(path, bytes, mode, Durability::Whole).map_err(UpError::file(path))
}
