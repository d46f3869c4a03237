//! Specs by digest: from memory, from the journal, or from a controller. Whoever needs one waits here; one task asks
//! for all that are lacking at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slipway_chassis::{Backoff, Shutdown, chain};
use slipway_protocol::digest::sha256;
use slipway_protocol::v1::WorkloadSpec;
use tokio::sync::{Notify, watch};

use crate::controllers::Controllers;
use crate::store::Journal;

/// Specs asked for in one request.
const BATCH: usize = 64;

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecBookError {
    /// Its digest is no SHA-256.
    #[error("invalid spec digest of the assignment: expected 32 bytes, got {0}")]
    NoDigest(usize),
    /// The bytes are the right ones and mean nothing.
    #[error("the spec cannot be decoded")]
    Undecodable(#[source] prost::DecodeError),
}

/// See the module.
#[derive(Debug)]
pub struct SpecBook {
    journal: Arc<Journal>,
    known: Mutex<BTreeMap<Bytes, Bytes>>,
    wanted: Mutex<BTreeSet<Bytes>>,
    poke: Notify,
    arrived: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SpecBook {
    /// A book over the journal's kept bodies.
    #[must_use]
    pub fn new(journal: Arc<Journal>) -> Self {
        Self {
            journal,
            known: Mutex::default(),
            wanted: Mutex::default(),
            poke: Notify::new(),
            arrived: watch::Sender::new(0),
        }
    }

    /// A spec that is here; `None` when a controller must be asked.
    ///
    /// # Errors
    /// When it is here and cannot be used.
    pub fn here(&self, digest: &Bytes) -> Result<Option<WorkloadSpec>, SpecBookError> {
        if digest.len() != 32 {
            return Err(SpecBookError::NoDigest(digest.len()));
        }
        let known = lock(&self.known).get(digest).cloned();
        let body = known.or_else(|| self.journal.spec(digest).filter(|body| sha256(body)[..] == digest[..]));
        let Some(body) = body else { return Ok(None) };
        let spec = WorkloadSpec::decode(body.clone()).map_err(SpecBookError::Undecodable)?;
        lock(&self.known).insert(digest.clone(), body);
        Ok(Some(spec))
    }

    /// A spec, waiting for as long as no controller has it.
    ///
    /// # Errors
    /// When it can never be used.
    pub async fn get(&self, digest: &Bytes) -> Result<WorkloadSpec, SpecBookError> {
        let mut arrived = self.arrived.subscribe();
        loop {
            if let Some(spec) = self.here(digest)? {
                return Ok(spec);
            }
            lock(&self.wanted).insert(digest.clone());
            self.poke.notify_one();
            // The sender lives as long as `self`.
            arrived.changed().await.ok();
        }
    }

    /// Forgets bodies that no assignment names.
    pub fn retain(&self, wanted: &BTreeSet<Vec<u8>>) {
        lock(&self.known).retain(|digest, _| wanted.contains(&digest[..]));
        // Nor is asked for any more: one that no controller has would be asked for for ever, and before others.
        lock(&self.wanted).retain(|digest| wanted.contains(&digest[..]));
        if let Err(error) = self.journal.retain_specs(wanted) {
            tracing::warn!(error = %chain(&error), "specs that are no longer needed were not removed");
        }
    }

    /// Asks controllers for what is lacking, until shutdown.
    pub async fn fetch(self: Arc<Self>, controllers: Arc<Controllers>, shutdown: Shutdown) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let lacking: Vec<Bytes> = lock(&self.wanted).iter().take(BATCH).cloned().collect();
            if lacking.is_empty() {
                // Both arms may be dropped: neither holds anything.
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = self.poke.notified() => continue,
                }
            }
            let answer = tokio::select! {
                () = shutdown.requested() => return,
                answer = controllers.specs(&lacking) => answer,
            };
            let got = match answer {
                Ok(bodies) => self.keep(bodies).await,
                Err(error) => {
                    tracing::debug!(error = %chain(&error), lacking = lacking.len(), "specs were not sent");
                    0
                }
            };
            if got == lacking.len() {
                backoff.reset();
                continue;
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    /// Keeps bodies whose digest is right. Returns how many came.
    async fn keep(&self, bodies: BTreeMap<Bytes, Bytes>) -> usize {
        let mut count = 0;
        for (digest, body) in bodies {
            if sha256(&body)[..] != digest[..] {
                tracing::error!(spec.digest = hex::encode(&digest), "a controller sent a spec with another content");
                continue;
            }
            let journal = Arc::clone(&self.journal);
            let (key, bytes) = (digest.clone(), body.clone());
            let stored = tokio::task::spawn_blocking(move || journal.put_spec(&key, &bytes)).await;
            if let Ok(Err(error)) = stored {
                // It runs from memory; after a restart it is asked for again.
                tracing::error!(error = %chain(&error), "a spec could not be written to the journal");
            }
            lock(&self.wanted).remove(&digest);
            lock(&self.known).insert(digest, body);
            count += 1;
        }
        self.arrived.send_modify(|version| *version += 1);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn specs_that_no_assignment_names_are_not_requested_any_more() {
        let state = tempfile::tempdir().expect("directory");
        let book = SpecBook::new(Arc::new(Journal::open(state.path()).expect("journal")));
        let (lost, needed) = (Bytes::from(vec![1; 32]), Bytes::from(vec![2; 32]));
        for digest in [&lost, &needed] {
            let waits = tokio::time::timeout(Duration::from_millis(10), book.get(digest)).await;
            assert!(waits.is_err(), "nobody has it");
        }
        book.retain(&BTreeSet::from([needed.to_vec()]));
        assert_eq!(*lock(&book.wanted), BTreeSet::from([needed]));
    }
}
