//! When registries were asked for what may change, and which of their documents are in doubt.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::order::Order;

/// For so long what a registry says is not asked for again: the questions of one installation.
const FRESH: Duration = Duration::from_secs(10);
/// Of things whose last question is noted; they are forgotten all together, which costs a question each.
const MAX_TRACKED: usize = 16 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Freshness(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: HashMap<String, Instant>,
    /// Addresses of documents that named a file which is not what they say.
    doubted: HashSet<Url>,
}

impl Freshness {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it was asked for last.
    pub(super) fn last(&self, document: &Order) -> Option<Instant> {
        self.lock().last.get(&document.key).copied()
    }

    /// Whether it need not be asked for again.
    pub(super) fn is_fresh(&self, document: &Order) -> bool {
        self.last(document).is_some_and(|then| then.elapsed() < FRESH) && !self.is_doubted(document)
    }

    /// Its registry has been asked.
    pub(super) fn note(&self, document: &Order) {
        let mut inner = self.lock();
        if inner.last.len() >= MAX_TRACKED {
            inner.last.clear();
        }
        inner.last.insert(document.key.clone(), Instant::now());
        inner.doubted.remove(&document.url);
    }

    pub(super) fn is_doubted(&self, document: &Order) -> bool {
        self.lock().doubted.contains(&document.url)
    }

    /// The document of this file is asked for again before anybody believes it.
    pub(super) fn doubt(&self, file: &Order) {
        let mut inner = self.lock();
        if inner.doubted.len() >= MAX_TRACKED {
            inner.doubted.clear();
        }
        inner.doubted.extend(file.document.clone());
    }
}
