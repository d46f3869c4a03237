//! What is to be fetched from a registry, and how it is checked.

use std::sync::Arc;

use url::Url;

use super::digests::Expected;
use super::store::Label;
use super::upstream::Registry;

/// Whether something is a document; if not, why.
pub(super) type Check = fn(&Label, &[u8]) -> Result<(), String>;

/// What to get.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// What it is kept as.
    pub(super) key: String,
    /// For people.
    pub(super) what: String,
    pub(super) registry: Arc<Registry>,
    pub(super) url: Url,
    pub(super) accept: &'static str,
    /// Bytes that it may have.
    pub(super) most: u64,
    pub(super) expected: Option<Expected>,
    /// Where the document is that says what to expect.
    pub(super) document: Option<Url>,
    /// Of a document, which may change, so that its registry is asked again. What is none does not take the place of the last one.
    pub(super) check: Option<Check>,
}

impl Order {
    pub(super) fn is_document(&self) -> bool {
        self.check.is_some()
    }

    /// Who joins a fetch wants the same by the same way: at another address another one may keep it waiting.
    pub(super) fn flight(&self) -> String {
        format!("{} {}", self.key, self.url)
    }
}
