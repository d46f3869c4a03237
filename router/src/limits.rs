//! File descriptors: a process that runs out of them fails in every place at once, so connections are refused before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Listeners, logs, journal, runtimes and the like.
const OWN_USE: usize = 64;
/// When the limit cannot be read.
const FALLBACK: usize = 1024;

/// Counts connections against the process's limit.
#[derive(Clone, Debug)]
pub(crate) struct Descriptors {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// One descriptor in use.
#[derive(Debug)]
pub(crate) struct Descriptor(Arc<AtomicUsize>);

impl Descriptors {
    /// Raises the soft limit to the hard one. The last tenth stays free.
    pub(crate) fn claim() -> Self {
        let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                Ok(()) => hard,
                Err(_) => soft,
            },
            Ok((soft, _)) => soft,
            Err(_) => FALLBACK as u64,
        };
        Self::with_limit(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    fn with_limit(limit: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(OWN_USE)), most: limit - limit / 10 }
    }

    pub(crate) fn take(&self) -> Descriptor {
        self.used.fetch_add(1, Ordering::Relaxed);
        Descriptor(Arc::clone(&self.used))
    }

    /// True when a new client is to be turned away. A request needs a second descriptor toward its endpoint.
    pub(crate) fn scarce(&self) -> bool {
        self.used() + 2 > self.most
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_away_before_the_limit() {
        let all = Descriptors::with_limit(100);
        let mut held = Vec::new();
        while !all.scarce() {
            held.push(all.take());
        }
        assert_eq!(all.used(), 89);
        held.clear();
        assert!(!all.scarce());
        assert_eq!(all.used(), OWN_USE);
    }
}
