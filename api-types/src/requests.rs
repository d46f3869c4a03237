//! What clients send, in the two shapes that both CLI and controller need as types; other bodies are parsed where
//! they are used.

use serde::{Deserialize, Serialize};

/// A file that a client is about to upload; it is left out when the platform has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceEntry {
    /// Path inside the package.
    #[serde(default)]
    pub path: String,
    /// Octal permission bits, `"644"`.
    #[serde(default)]
    pub mode: String,
    /// SHA-1 of the content.
    pub checksum: ResourceChecksum,
    /// Bytes.
    pub size_in_bytes: u64,
}

/// SHA-1 as lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceChecksum {
    /// 40 hex digits.
    pub value: String,
}

/// Body and answer of `POST /v3/resource_matches`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ResourceMatches {
    /// Files.
    pub resources: Vec<ResourceEntry>,
}
