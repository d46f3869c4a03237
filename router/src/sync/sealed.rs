//! The records of the journal on disk. A table holds secrets of route services, so each record is sealed with a key of
//! this router's own, `table.key` beside the journal: who has the journal alone learns how many records there are and
//! how long. Who has the whole directory, or is root on the host, has the key too.

use std::io::ErrorKind;
use std::path::Path;

use slipway_chassis::files::{self, Durability};
use slipway_seal::SealKey;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Length, checksum and kind.
const HEAD_BYTES: usize = 9;

/// The key, and the cluster that each record is bound to. Refuses to print.
#[derive(Clone, Debug)]
pub(super) struct Sealer {
    key: SealKey,
    cluster: Uuid,
}

impl Sealer {
    /// Reads the key, or makes one. One that is damaged is replaced: it only ever opened a copy of what the controllers
    /// have, and a router that refused to start would serve nobody.
    pub(super) fn load_or_make(path: &Path, cluster: Uuid) -> std::io::Result<Self> {
        let stored = match std::fs::read(path) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(bytes) = stored {
            if let Ok(key) = SealKey::try_from(bytes.as_slice()) {
                return Ok(Self { key, cluster });
            }
            tracing::warn!(
                path = %path.display(),
                "the key of the routing table on disk is damaged; a new one is made, and the table comes anew from a controller"
            );
        }
        let key = SealKey::generate();
        replace(path, key.as_slice())?;
        Ok(Self { key: SealKey::from(&*key), cluster })
    }

    /// Appends `len u32 | crc32 u32 | kind u8 | body`, where the length is the body's and the checksum that of kind and
    /// body.
    pub(super) fn record(&self, bytes: &mut Vec<u8>, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; HEAD_BYTES - 1]);
        bytes.push(kind);
        let sealed = self.key.seal_onto(bytes, &self.bound(kind), payload);
        let length = u32::try_from(bytes.len() - start - HEAD_BYTES);
        let (Ok(()), Ok(length)) = (sealed, length) else {
            bytes.truncate(start);
            return Err(std::io::Error::other("a record is too large to be sealed"));
        };
        let crc = crc32fast::hash(&bytes[start + HEAD_BYTES - 1..]);
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }

    /// What a record holds; `None` when it was sealed with another key, for another cluster or as another kind.
    pub(super) fn open(&self, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        self.key.open(&self.bound(kind), body).ok()
    }

    fn bound(&self, kind: u8) -> Vec<u8> {
        [self.cluster.as_bytes(), &[kind][..]].concat()
    }
}

/// The kind and body of the next record, and what is behind it; `None` at the end and at a torn or damaged one.
pub(super) fn next_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let content = bytes.get(HEAD_BYTES - 1..HEAD_BYTES + length)?;
    (crc32fast::hash(content) == crc).then(|| (content[0], &content[1..], &bytes[HEAD_BYTES + length..]))
}

/// Puts a file in place as a whole or not at all, for its owner alone.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    files::write(path, bytes, 0o600, Durability::Lasting)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by a version that had a cipher of its own.
    #[test]
    fn records_of_earlier_versions_open() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        std::fs::write(&path, [7; 32]).expect("write");
        let sealer = Sealer::load_or_make(&path, Uuid::from_bytes([9; 16])).expect("a key");
        let record =
            concat!("23000000ef51e6bb02462182e8cc467bb2f9b925436a615a", "182ebce161e5286e2092f44ff7836f79b2ecaf2a",);
        let record = hex::decode(record).expect("hex");
        let (kind, body, rest) = next_record(&record).expect("a record");
        assert_eq!((kind, rest), (2, &[][..]));
        assert_eq!(sealer.open(kind, body).expect("opened"), b"a table");
        let mut own = Vec::new();
        sealer.record(&mut own, kind, b"a table").expect("sealed");
        assert_eq!((own.len(), &own[..4]), (record.len(), &record[..4]));
        let (kind, body, _) = next_record(&own).expect("a record");
        assert_eq!(sealer.open(kind, body).expect("opened"), b"a table");
    }
}
