//! Small files of the contract.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request or plan is a few kilobytes.
const LIMIT: u64 = 64 << 20;

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    fs::File::open(path).map_err(named)?.take(LIMIT).read_to_end(&mut bytes).map_err(named)?;
    serde_json::from_slice(&bytes).map_err(|error| named(error.into()))
}

/// Whole or not at all: whoever reads after a crash sees no half answer.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(value)?).map_err(named)?;
    fs::rename(&temporary, path).map_err(named)
}
