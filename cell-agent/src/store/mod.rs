//! What survives the agent: a file per assignment (what is wanted, where it is, observations that nobody has
//! acknowledged), a small header, and sealed spec bodies. A damaged or missing file never means "not desired".

pub mod outbox;
pub mod sealed;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use slipway_chassis::files;
use slipway_protocol::v1::{Assignment, Observation, Refusal, Version};
use slipway_seal::SealKey;
use uuid::Uuid;

use crate::instance::state::Life;
use sealed::FileError;

/// What the cell holds as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster that this state belongs to.
    pub cluster: Uuid,
    /// Version of the set that is in force.
    pub epoch: u64,
    /// See `epoch`.
    pub seq: u64,
    /// Digest of that set.
    pub digest: Vec<u8>,
    /// Boot of the host on which it was written.
    pub boot_id: String,
    /// Highest observation counter ever given out, at the time of writing.
    pub counter: u64,
}

impl Header {
    /// The version of the set in force.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::new(self.epoch, self.seq)
    }
}

/// What the cell holds of one assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As last received.
    pub assignment: Assignment,
    /// Where it is.
    pub life: Life,
    /// Observations that no controller has acknowledged, oldest first.
    pub unacked: Vec<Observation>,
}

impl Entry {
    /// Adds the newest observation. Returns the numbers of those that it makes superfluous: while no controller
    /// acknowledges, an app whose readiness flaps would otherwise fill memory, and the disk with each rewriting.
    pub fn push(&mut self, observation: Observation) -> Vec<u64> {
        let (retained, superfluous) = std::mem::take(&mut self.unacked).into_iter().partition(tells_an_end);
        self.unacked = retained;
        self.unacked.push(observation);
        superfluous.iter().map(|observation: &Observation| observation.counter).collect()
    }
}

/// Whether an observation says what no later one repeats.
fn tells_an_end(observation: &Observation) -> bool {
    observation.exit.is_some()
        || observation.build.is_some()
        || observation.crash_event
        || observation.refusal() != Refusal::Unspecified
}

#[derive(Serialize, Deserialize)]
struct EntryFile {
    assignment: String,
    life: Life,
    unacked: Vec<String>,
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// `None` on the first start, and when it is damaged.
    pub header: Option<Header>,
    /// Readable entries.
    pub entries: Vec<Entry>,
    /// Assignments whose file is damaged. What they were is not known; that they were is.
    pub damaged: Vec<Uuid>,
    /// In words, for the log.
    pub problems: Vec<String>,
}

/// The journal's directory.
#[derive(Debug)]
pub struct Journal {
    assignments: PathBuf,
    specs: PathBuf,
    policies: PathBuf,
    members: PathBuf,
    header: PathBuf,
    key: SealKey,
}

impl Journal {
    /// Opens the journal below the state directory, or makes it.
    ///
    /// # Errors
    /// When a directory or the key cannot be made or read.
    pub fn open(state: &Path) -> Result<Self, FileError> {
        let root = state.join("journal");
        let (assignments, specs, policies) = (root.join("assignments"), root.join("specs"), root.join("policies"));
        for directory in [&assignments, &specs, &policies] {
            private_directory(directory)?;
        }
        // A kill may have cut a write off; without this its drafts would stay for good.
        for directory in [&root, &assignments, &specs, &policies] {
            files::remove_drafts(directory).map_err(|source| FileError::Io {
                action: "clean",
                path: directory.clone(),
                source,
            })?;
        }
        let key = sealed::load_or_make_key(&root.join("key"))?;
        let (members, header) = (root.join("members"), root.join("header"));
        Ok(Self { assignments, specs, policies, members, header, key })
    }

    /// Reads everything that can be read.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn load(&self) -> Result<Loaded, FileError> {
        let mut loaded = Loaded::default();
        match self.read_header() {
            Ok(header) => loaded.header = header,
            Err(error) => loaded.problems.push(slipway_chassis::chain(&error).to_string()),
        }
        for (name, path) in list(&self.assignments)? {
            let Ok(id) = name.parse::<Uuid>() else { continue };
            match read_entry(&path) {
                Ok(Some(entry)) => loaded.entries.push(entry),
                Ok(None) => {}
                Err(error) => {
                    loaded.damaged.push(id);
                    loaded.problems.push(slipway_chassis::chain(&error).to_string());
                }
            }
        }
        Ok(loaded)
    }

    fn read_header(&self) -> Result<Option<Header>, FileError> {
        let Some(bytes) = sealed::read(&self.header, None)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&self.header, &error))
    }

    /// Writes the header.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_header(&self, header: &Header) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(header).map_err(|error| damaged(&self.header, &error))?;
        sealed::write(&self.header, &bytes, None)
    }

    /// Writes one assignment's file.
    ///
    /// # Errors
    /// When the disk refuses; the earlier file is then still there.
    pub fn write_entry(&self, id: Uuid, entry: &Entry) -> Result<(), FileError> {
        let path = self.assignments.join(id.to_string());
        let file = EntryFile {
            assignment: hex::encode(entry.assignment.encode_to_vec()),
            life: entry.life.clone(),
            unacked: entry.unacked.iter().map(|observation| hex::encode(observation.encode_to_vec())).collect(),
        };
        let bytes = serde_json::to_vec(&file).map_err(|error| damaged(&path, &error))?;
        sealed::write(&path, &bytes, None)
    }

    /// Removes one assignment's file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_entry(&self, id: Uuid) -> Result<(), FileError> {
        sealed::remove(&self.assignments.join(id.to_string()))
    }

    /// Keeps a spec's body, sealed: it holds credentials.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_spec(&self, digest: &[u8], body: &[u8]) -> Result<(), FileError> {
        sealed::write(&self.specs.join(hex::encode(digest)), body, Some(&self.key))
    }

    /// A kept spec's body. A damaged one is as good as none: it is asked for again.
    #[must_use]
    pub fn spec(&self, digest: &[u8]) -> Option<Bytes> {
        match sealed::read(&self.specs.join(hex::encode(digest)), Some(&self.key)) {
            Ok(body) => body.map(Bytes::from),
            Err(error) => {
                tracing::warn!(error = %slipway_chassis::chain(&error), "a kept spec cannot be read; asking for it again");
                None
            }
        }
    }

    /// Removes the bodies of specs that no assignment names.
    ///
    /// # Errors
    /// When the directory cannot be listed or a file not removed.
    pub fn retain_specs(&self, wanted: &BTreeSet<Vec<u8>>) -> Result<(), FileError> {
        retain(&self.specs, wanted)
    }

    /// Keeps an egress policy. It is no secret: addresses and ports.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_policy(&self, id: &[u8], body: &[u8]) -> Result<(), FileError> {
        sealed::write(&self.policies.join(hex::encode(id)), body, None)
    }

    /// A kept egress policy. A damaged one is as good as none: the next set brings it.
    #[must_use]
    pub fn policy(&self, id: &[u8]) -> Option<Bytes> {
        match sealed::read(&self.policies.join(hex::encode(id)), None) {
            Ok(body) => body.map(Bytes::from),
            Err(error) => {
                tracing::warn!(error = %slipway_chassis::chain(&error), "a kept egress policy cannot be read");
                None
            }
        }
    }

    /// Keeps the list of members. It is no secret: addresses and ports.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_members(&self, body: &[u8]) -> Result<(), FileError> {
        sealed::write(&self.members, body, None)
    }

    /// Removes the kept list of members.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_members(&self) -> Result<(), FileError> {
        sealed::remove(&self.members)
    }

    /// The kept list of members. A damaged one is as good as none: the next session brings it.
    #[must_use]
    pub fn members(&self) -> Option<Bytes> {
        match sealed::read(&self.members, None) {
            Ok(body) => body.map(Bytes::from),
            Err(error) => {
                tracing::warn!(error = %slipway_chassis::chain(&error), "the kept list of members cannot be read");
                None
            }
        }
    }

    /// Removes the egress policies that no assignment names.
    ///
    /// # Errors
    /// When the directory cannot be listed or a file not removed.
    pub fn retain_policies(&self, wanted: &BTreeSet<Vec<u8>>) -> Result<(), FileError> {
        retain(&self.policies, wanted)
    }
}

/// Removes the files whose names are not among these.
fn retain(directory: &Path, wanted: &BTreeSet<Vec<u8>>) -> Result<(), FileError> {
    for (name, path) in list(directory)? {
        if hex::decode(&name).is_ok_and(|digest| !wanted.contains(&digest)) {
            sealed::remove(&path)?;
        }
    }
    Ok(())
}

/// Makes a directory that only its owner may enter.
fn private_directory(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FileError::Io {
        action: "make",
        path: path.to_owned(),
        source,
    })
}

fn read_entry(path: &Path) -> Result<Option<Entry>, FileError> {
    let Some(bytes) = sealed::read(path, None)? else { return Ok(None) };
    let file: EntryFile = serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error))?;
    let bytes = |text: &str| hex::decode(text).map_err(|error| damaged(path, &error));
    let assignment = Assignment::decode(bytes(&file.assignment)?.as_slice()).map_err(|error| damaged(path, &error))?;
    let mut unacked = Vec::new();
    for text in &file.unacked {
        unacked.push(Observation::decode(bytes(text)?.as_slice()).map_err(|error| damaged(path, &error))?);
    }
    Ok(Some(Entry { assignment, life: file.life, unacked }))
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> FileError {
    FileError::Damaged { path: path.to_owned(), what: error.to_string() }
}

fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, FileError> {
    let io = |source| FileError::Io { action: "list", path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use slipway_protocol::v1::{Intent, WorkloadKind};

    use super::*;
    use crate::instance::state::DesiredState;

    fn entry(id: Uuid) -> Entry {
        let wanted = DesiredState {
            kind: WorkloadKind::Lrp,
            intent: Intent::Run,
            attempt: 0,
            nonce: 0,
            crashes: 2,
            incarnation: 5,
        };
        Entry {
            assignment: Assignment { id: id.to_string(), slot: 7, ..Assignment::default() },
            life: Life::new(wanted),
            unacked: vec![Observation { counter: 9, ..Observation::default() }],
        }
    }

    #[test]
    fn entries_come_back_and_damage_is_named() {
        let state = tempfile::tempdir().expect("directory");
        let journal = Journal::open(state.path()).expect("journal");
        let (good, bad) = (Uuid::new_v4(), Uuid::new_v4());
        journal.write_entry(good, &entry(good)).expect("write");
        journal.write_entry(bad, &entry(bad)).expect("write");
        let path = state.path().join("journal/assignments").join(bad.to_string());
        std::fs::write(&path, b"SLWJ rubbish").expect("damage");
        std::fs::write(state.path().join("journal/header"), b"").expect("damage");
        let loaded = Journal::open(state.path()).expect("again").load().expect("load");
        assert_eq!(loaded.entries, [entry(good)]);
        assert_eq!(loaded.damaged, [bad]);
        assert!(loaded.header.is_none());
        assert_eq!(loaded.problems.len(), 2, "{:?}", loaded.problems);
    }

    #[test]
    fn the_newest_observation_replaces_earlier_ones_that_report_no_end() {
        let mut entry = entry(Uuid::new_v4());
        let plain = |counter| Observation { counter, ..Observation::default() };
        assert_eq!(entry.push(plain(10)), [9]);
        assert_eq!(entry.push(Observation { crash_event: true, ..plain(11) }), [10]);
        for counter in 12..1000 {
            assert_eq!(entry.push(plain(counter)), if counter == 12 { vec![] } else { vec![counter - 1] });
        }
        assert_eq!(entry.push(Observation { refusal: Refusal::NoSpace.into(), ..plain(1000) }), [999]);
        assert!(entry.push(plain(1001)).is_empty());
        let counters: Vec<u64> = entry.unacked.iter().map(|observation| observation.counter).collect();
        assert_eq!(counters, [11, 1000, 1001]);
    }

    #[test]
    fn specs_are_sealed_and_pruned() {
        let state = tempfile::tempdir().expect("directory");
        let journal = Journal::open(state.path()).expect("journal");
        journal.put_spec(b"aa", b"password").expect("put");
        journal.put_spec(b"bb", b"other").expect("put");
        assert_eq!(journal.spec(b"aa").as_deref(), Some(&b"password"[..]));
        journal.retain_specs(&BTreeSet::from([b"bb".to_vec()])).expect("retain");
        assert!(journal.spec(b"aa").is_none());
        assert!(journal.spec(b"bb").is_some());
    }
}
