//! Whose ring is whose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use slipway_chassis::files::{self, Durability};
use uuid::Uuid;

/// Where an owner is noted, in the directory of its rings.
const FILE: &str = "owner.json";

/// Whose ring it is. Noted beside the ring as well, so that it can be read when nothing else is left of the instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) source_id: String,
    pub(super) source_type: String,
    pub(super) instance_id: String,
    pub(super) tags: Vec<(String, String)>,
    /// Names of the programs beside the command, in their order.
    #[serde(default)]
    pub(super) sidecars: Vec<String>,
    pub(super) ended_ms: Option<i64>,
}

impl Owner {
    /// Notes it in the directory of its rings, whole or not at all.
    pub(super) fn write(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        files::write(&directory.join(FILE), bytes, 0o600, Durability::None)
    }
}

/// Whose ring each is, in memory as it is on disk: a question about one app must not cost a file of every other.
#[derive(Debug, Default)]
pub(super) struct Owners {
    all: BTreeMap<Uuid, Owner>,
    by_source: HashMap<String, BTreeSet<Uuid>>,
}

impl Owners {
    /// Those that are noted below a directory.
    pub(super) fn read(root: &Path) -> std::io::Result<Self> {
        let mut owners = Self::default();
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            let noted = std::fs::read(path.join(FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let (Some(id), Some(owner)) = (id_of(&path), noted) {
                owners.put(id, owner);
            }
        }
        Ok(owners)
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Owner> {
        self.all.get(&id)
    }

    pub(super) fn put(&mut self, id: Uuid, owner: Owner) {
        self.remove(id);
        self.by_source.entry(owner.source_id.clone()).or_default().insert(id);
        self.all.insert(id, owner);
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        let Some(owner) = self.all.remove(&id) else { return };
        if let Some(ids) = self.by_source.get_mut(&owner.source_id) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_source.remove(&owner.source_id);
            }
        }
    }

    /// All rings of a source.
    pub(super) fn of_source(&self, source: &str) -> Vec<(Uuid, Owner)> {
        let ids = self.by_source.get(source).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?.clone()))).collect()
    }
}

/// The instance whose directory this is.
pub(super) fn id_of(directory: &Path) -> Option<Uuid> {
    Uuid::parse_str(directory.file_name()?.to_str()?).ok()
}
