//! Limits and shares queries to cells.
//!
//! Clients follow a log by polling, some without a pause. So equal queries share one answer and go to the cells at most ten
//! times a second; each client has a few queries at a time, and all clients together a limited number, first come, first
//! served. An answer is always newer than its query: whoever knows that a line was written finds it.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Equal questions are asked this far apart.
const PACE: Duration = Duration::from_millis(100);
/// Questions of one asker at a time.
const MAX_PER_CALLER: usize = 4;
/// Questions of all at a time.
const MOST: usize = 64;
/// What is remembered of questions and askers is looked through when there is more of it.
const TIDY_FROM: usize = 128;

type Answering<A> = Shared<BoxFuture<'static, Arc<A>>>;

/// What is known of one question.
struct Lane<A> {
    /// When it was asked of the cells last.
    begun: Option<Instant>,
    /// The answer that whoever asks now will share. Weak: it is given up when all who wait for it have gone.
    next: Option<WeakShared<BoxFuture<'static, Arc<A>>>>,
}

impl<A> Lane<A> {
    fn waits(&self) -> Option<Answering<A>> {
        self.next.as_ref().and_then(WeakShared::upgrade)
    }
}

type Lanes<Q, A> = Arc<Mutex<HashMap<Q, Lane<A>>>>;

/// See the module.
pub(super) struct Asking<Q, A> {
    lanes: Lanes<Q, A>,
    all: Arc<Semaphore>,
    askers: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl<Q, A> Asking<Q, A>
where
    Q: Eq + Hash + Clone + Send + 'static,
    A: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self { lanes: Arc::default(), all: Arc::new(Semaphore::new(MOST)), askers: Mutex::default() }
    }

    /// The answer to a question of this asker; `read` gets it when nobody else is about to.
    pub(super) async fn ask<F, Fut>(&self, asker: &str, question: Q, read: F) -> A
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = A> + Send + 'static,
    {
        let own = self.own(asker);
        // Never closed; without a permit the question would be asked all the same.
        let _own = own.acquire().await;
        let answering = self.answering(question, read);
        Arc::unwrap_or_clone(answering.await)
    }

    fn answering<F, Fut>(&self, question: Q, read: F) -> Answering<A>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = A> + Send + 'static,
    {
        let mut lanes = lock(&self.lanes);
        if lanes.len() >= TIDY_FROM {
            lanes.retain(|_, lane| lane.waits().is_some() || lane.begun.is_some_and(|at| at.elapsed() < PACE));
        }
        let lane = lanes.entry(question.clone()).or_insert(Lane { begun: None, next: None });
        if let Some(answering) = lane.waits() {
            return answering;
        }
        let due = lane.begun.map(|at| at + PACE);
        let (all, later) = (Arc::clone(&self.all), Arc::clone(&self.lanes));
        let answering = async move {
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            let _one_of_all = all.acquire().await;
            // From here on who asks must have an answer of his own: this one may lack what was written before he asked.
            if let Some(lane) = lock(&later).get_mut(&question) {
                *lane = Lane { begun: Some(Instant::now()), next: None };
            }
            Arc::new(read().await)
        };
        let answering = answering.boxed().shared();
        lane.next = answering.downgrade();
        answering
    }

    fn own(&self, asker: &str) -> Arc<Semaphore> {
        let mut askers = lock(&self.askers);
        if let Some(own) = askers.get(asker).and_then(Weak::upgrade) {
            return own;
        }
        if askers.len() >= TIDY_FROM {
            askers.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(MAX_PER_CALLER));
        askers.insert(asker.to_owned(), Arc::downgrade(&own));
        own
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    /// Counts how often it is read, and how many reads there were at a time.
    #[derive(Clone, Default)]
    struct Cells {
        reads: Arc<AtomicUsize>,
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Cells {
        async fn read(self) -> usize {
            let number = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            number
        }

        fn count(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }
    }

    async fn ask(asking: &Asking<usize, usize>, cells: &Cells, asker: usize, question: usize) -> usize {
        let cells = cells.clone();
        asking.ask(&format!("asker {asker}"), question, move || cells.read()).await
    }

    #[tokio::test(start_paused = true)]
    async fn equal_questions_share_an_answer_and_keep_a_pace() {
        let (asking, cells) = (Asking::new(), Cells::default());
        let answers = join_all((0..100).map(|asker| ask(&asking, &cells, asker, 7))).await;
        assert_eq!(answers[0], 1);
        assert!(answers[1..].iter().all(|answer| *answer == 2), "one read for all who came meanwhile: {answers:?}");
        let begun = Instant::now();
        for _ in 0..10 {
            ask(&asking, &cells, 1, 7).await;
        }
        assert_eq!(cells.count(), 12);
        assert!(begun.elapsed() >= 9 * PACE, "without a pause of its own: {:?}", begun.elapsed());
        // The first one waits for nothing.
        let begun = Instant::now();
        ask(&asking, &cells, 1, 8).await;
        assert!(begun.elapsed() < PACE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_never_older_than_its_question() {
        let (asking, cells) = (Asking::new(), Cells::default());
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            ask(&asking, &cells, 2, 7).await
        };
        let (first, second) = tokio::join!(ask(&asking, &cells, 1, 7), late);
        assert_eq!((first, second), (1, 2), "the first read had begun when the second question came");
    }

    #[tokio::test(start_paused = true)]
    async fn one_asker_does_not_hold_up_the_others() {
        let (asking, cells) = (Asking::new(), Cells::default());
        let flood = join_all((0..1_000).map(|question| ask(&asking, &cells, 0, question)));
        let other = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let begun = Instant::now();
            ask(&asking, &cells, 1, 5_000).await;
            begun.elapsed()
        };
        let (_, took) = tokio::join!(flood, other);
        assert_eq!(cells.most.load(Ordering::Relaxed), MAX_PER_CALLER + 1);
        assert!(took < PACE / 2, "{took:?}");
        let many = (0..500).map(|asker| ask(&asking, &cells, asker, 10_000 + asker));
        assert_eq!(join_all(many).await.len(), 500);
        assert_eq!(cells.most.load(Ordering::Relaxed), MOST);
        assert!(lock(&asking.lanes).len() <= 500 + TIDY_FROM, "what is over is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_query_gives_back_its_permit() {
        let (asking, cells) = (Asking::new(), Cells::default());
        ask(&asking, &cells, 1, 7).await;
        // Gone while it waits for its turn, and while it is read.
        for wait in [1, 95] {
            let asked = tokio::time::timeout(Duration::from_millis(wait), ask(&asking, &cells, 1, 7)).await;
            assert!(asked.is_err());
        }
        assert_eq!(ask(&asking, &cells, 2, 7).await, cells.count());
        assert_eq!(asking.all.available_permits(), MOST);
    }
}
