//! Memory for large heads. One head may be as large as `max_header_bytes`, but there is not enough memory for that many on
//! all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A head up to this needs no room here.
pub(crate) const SMALL: usize = 64 << 10;
/// What the larger ones may take together.
const MOST: usize = 64 << 20;

/// The room of a router.
#[derive(Debug)]
pub(crate) struct Heads {
    used: AtomicUsize,
    most: usize,
}

impl Default for Heads {
    fn default() -> Self {
        Self::with_most(MOST)
    }
}

impl Heads {
    fn with_most(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }
}

/// What one connection, or one request, has of it.
#[derive(Debug)]
pub(crate) struct HeadRoom {
    heads: Arc<Heads>,
    held: AtomicUsize,
}

impl HeadRoom {
    pub(crate) fn new(heads: &Arc<Heads>) -> Self {
        Self { heads: Arc::clone(heads), held: AtomicUsize::new(0) }
    }

    /// Whether there is room for a head of so many bytes; it is held then.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        if bytes <= SMALL || bytes <= held {
            return true;
        }
        let more = bytes.next_multiple_of(SMALL) - held;
        if self.heads.used.fetch_add(more, Ordering::Relaxed) + more > self.heads.most {
            self.heads.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.held.fetch_add(more, Ordering::Relaxed);
        true
    }

    pub(crate) fn give_back(&self) {
        if self.held.load(Ordering::Relaxed) > 0 {
            self.heads.used.fetch_sub(self.held.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Drop for HeadRoom {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_large_heads_is_limited() {
        let heads = Arc::new(Heads::with_most(4 * SMALL));
        let (one, other) = (HeadRoom::new(&heads), HeadRoom::new(&heads));
        assert!(one.grow(SMALL) && other.grow(SMALL));
        assert_eq!(heads.used.load(Ordering::Relaxed), 0, "small ones need none");
        assert!(one.grow(SMALL + 1) && one.grow(2 * SMALL) && one.grow(3 * SMALL));
        assert_eq!(heads.used.load(Ordering::Relaxed), 3 * SMALL);
        assert!(!other.grow(2 * SMALL));
        one.give_back();
        assert!(other.grow(4 * SMALL) && !one.grow(2 * SMALL));
        drop(other);
        assert!(one.grow(4 * SMALL));
        drop(one);
        assert_eq!(heads.used.load(Ordering::Relaxed), 0);
    }
}
