//! The embedded static program, written out once per agent start under its digest.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{SandboxError, host};

static HELPER: &[u8] = include_bytes!(env!("SLIPWAY_HELPER_FILE"));

/// Writes it below `state` unless it is there, and returns its path. Older ones stay for the sandboxes that use them.
pub(super) fn write_out(state: &Path) -> Result<PathBuf, SandboxError> {
    let digest = hex::encode(&Sha256::digest(HELPER)[..12]);
    let directory = state.join("helper");
    std::fs::create_dir_all(&directory).map_err(host(format!("make {}", directory.display())))?;
    let path = directory.join(&digest);
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == HELPER.len() as u64) {
        return Ok(path);
    }
    let draft = directory.join(format!("{digest}.{}", std::process::id()));
    let write = || {
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o755).open(&draft)?;
        file.write_all(HELPER)?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    };
    write().map_err(host(format!("write {}", path.display())))?;
    Ok(path)
}
