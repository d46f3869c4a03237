//! What is known about a layer beside its bytes. None of it is part of the layer's identity.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Name of the index inside a directory of layers.
pub const INDEX_FILE: &str = "index.json";

/// One layer's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Identity: SHA-256 of the uncompressed canonical tar.
    pub digest: Digest,
    /// SHA-256 of the compressed blob.
    pub blob: Digest,
    /// Bytes of the blob.
    pub blob_size: u64,
    /// Bytes of the files once unpacked.
    pub size: u64,
    /// `stack`, `compat`, `runtime`, `build`.
    pub kind: String,
    /// `node`, `python`, `debian12`.
    pub name: String,
    /// What an app is bound to: a layer may be replaced by another of its line without staging.
    pub line: String,
    /// `22.11.0`.
    pub version: String,
    /// `x86_64`.
    pub architecture: String,
    /// Layers it was made over, lowest first.
    #[serde(default)]
    pub built_over: Vec<Digest>,
    /// For a stack that is made of several layers: the lines below this one, lowest first.
    #[serde(default)]
    pub over_lines: Vec<String>,
    /// What is inside, for the bill of materials.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// File with the list of its paths, beside the blob.
    #[serde(default)]
    pub paths_file: String,
    /// Shared libraries it has (sonames), sorted.
    #[serde(default)]
    pub provides: Vec<String>,
    /// Shared libraries it needs and does not have, sorted.
    #[serde(default)]
    pub needs: Vec<String>,
}

/// A package inside a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// `libssl3`.
    pub name: String,
    /// `3.0.17-1~deb12u3`.
    pub version: String,
    /// `deb`, `npm`.
    pub source: String,
    /// Digest of the fetched file where the source gives one, as `sha512-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<String>,
}

/// `index.json` of a directory of layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerIndex {
    /// In the order in which they were made.
    pub layers: Vec<LayerEntry>,
}

/// One layer of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// Description.
    #[serde(flatten)]
    pub meta: LayerMeta,
    /// The blob's file name in the directory, `node-22.tar.zst`.
    pub file: String,
    /// What it was made from: equal means that making it again gives nothing new.
    #[serde(default)]
    pub recipe: String,
    /// When it was made, unix seconds.
    #[serde(default)]
    pub made_at: i64,
}

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It cannot be read or written.
    #[error("the layer index {path} cannot be read or written")]
    Io {
        /// Of the index.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is not what this version writes.
    #[error("the layer index {path} is damaged; delete it and run `slipway stack build`")]
    Damaged {
        /// Of the index.
        path: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl LayerIndex {
    /// Reads `index.json` of a directory; empty when there is none.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub fn read(directory: &Path) -> Result<Self, IndexError> {
        let path = directory.join(INDEX_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| IndexError::Damaged { path: path.display().to_string(), source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(IndexError::Io { path: path.display().to_string(), source }),
        }
    }

    /// Writes `index.json`: whole or not at all.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), IndexError> {
        let path = directory.join(INDEX_FILE);
        let io = |source| IndexError::Io { path: path.display().to_string(), source };
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| IndexError::Damaged { path: path.display().to_string(), source })?;
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)
            .map_err(io)?;
        std::io::Write::write_all(&mut file, &bytes).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(&path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// The newest layer of a line.
    #[must_use]
    pub fn line(&self, line: &str) -> Option<&LayerEntry> {
        self.layers.iter().rev().find(|entry| entry.meta.line == line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_back_and_damage_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(LayerIndex::read(directory.path()).unwrap(), LayerIndex::default());
        let meta = LayerMeta {
            digest: Digest::of(b"tar"),
            blob: Digest::of(b"zst"),
            blob_size: 3,
            size: 9,
            kind: "runtime".into(),
            name: "node".into(),
            line: "node-22".into(),
            version: "22.1.0".into(),
            architecture: "x86_64".into(),
            built_over: vec![],
            over_lines: vec![],
            packages: vec![],
            paths_file: String::new(),
            provides: vec![],
            needs: vec![],
        };
        let index = LayerIndex {
            layers: vec![LayerEntry { meta, file: "node-22.tar.zst".into(), recipe: "r".into(), made_at: 1 }],
        };
        index.write(directory.path()).unwrap();
        let read = LayerIndex::read(directory.path()).unwrap();
        assert_eq!(read, index);
        assert_eq!(read.line("node-22").unwrap().file, "node-22.tar.zst");
        assert!(read.line("node-20").is_none());
        std::fs::write(directory.path().join(INDEX_FILE), "{").unwrap();
        assert!(matches!(LayerIndex::read(directory.path()), Err(IndexError::Damaged { .. })));
    }
}
