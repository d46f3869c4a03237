//! Passwords and secrets as argon2id, computed off the async threads, a few at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::guesses::{LoginAttempt, Network};
use crate::domain::{DomainError, DomainResult};

/// Hashes computed at a time: each takes 19 MiB and about 20 ms of a core. More would let a flood of logins use up the host.
const AT_ONCE: usize = 2;
/// Requests that wait for a hash: about two seconds of work. More would wait longer than their clients do.
const MAX_WAITING: usize = 256;
/// Requests that wait in one lane, so that a client with many connections does not fill the queue.
const MAX_IN_LANE: usize = 32;

/// Shortest password and secret, in characters.
pub const MIN_PASSWORD: usize = 8;
/// Longest password, in bytes: hashing longer ones would let a client use up processor time.
pub const MAX_PASSWORD: usize = 1024;

/// Compared with when there is no such user, so that the answer takes as long as for one that exists.
static NOBODY: LazyLock<Option<String>> =
    LazyLock::new(|| Argon2::default().hash_password(b"nobody").map(|hash| hash.to_string()).ok());

/// A queue of its own for each group of clients. Lanes take turns, so that many requests in one do not delay another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Clients of a network from which nobody has logged in lately.
    Network(Network),
    /// A user who has logged in from this network lately.
    KnownUser(LoginAttempt),
    /// Somebody who is logged in and sets a password.
    Inside,
}

/// Hands out permits to compute a hash.
#[derive(Debug)]
pub struct HashQueue(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    free: usize,
    most_waiting: usize,
    lanes: HashMap<Lane, VecDeque<oneshot::Sender<HashPermit>>>,
    /// The lanes in which somebody waits, the next one first.
    order: VecDeque<Lane>,
}

impl Default for HashQueue {
    fn default() -> Self {
        Self::new(AT_ONCE, MAX_WAITING)
    }
}

impl HashQueue {
    fn new(at_once: usize, most_waiting: usize) -> Self {
        Self(Mutex::new(Queue { free: at_once, most_waiting, lanes: HashMap::new(), order: VecDeque::new() }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to hash.
    ///
    /// # Errors
    /// [`DomainError::Unavailable`] when too many wait already.
    pub async fn turn(self: &Arc<Self>, lane: Lane) -> DomainResult<HashPermit> {
        let too_many =
            || DomainError::Unavailable("Too many logins at this moment. Try again in a few seconds.".to_owned());
        let waits = {
            let mut queue = self.queue();
            if queue.free > 0 {
                queue.free -= 1;
                return Ok(HashPermit(Some(Arc::clone(self))));
            }
            queue.enter(lane).ok_or_else(too_many)?
        };
        // Somebody with fewer before it may have got the place.
        waits.await.map_err(|_| too_many())
    }

    /// Gives a turn to whoever waits longest in the next lane.
    fn pass_on(self: Arc<Self>) {
        let mut turn = HashPermit(Some(Arc::clone(&self)));
        loop {
            let next = {
                let mut queue = self.queue();
                let Some(next) = queue.leave() else {
                    queue.free += 1;
                    turn.0 = None;
                    return;
                };
                next
            };
            match next.send(turn) {
                Ok(()) => return,
                // It has given up waiting.
                Err(back) => turn = back,
            }
        }
    }
}

impl Queue {
    fn waiting(&self) -> usize {
        self.lanes.values().map(VecDeque::len).sum()
    }

    fn enter(&mut self, lane: Lane) -> Option<oneshot::Receiver<HashPermit>> {
        let mut own = self.lanes.get(&lane).map_or(0, VecDeque::len);
        if own >= MAX_IN_LANE || self.waiting() >= self.most_waiting {
            self.forget_those_who_left();
            own = self.lanes.get(&lane).map_or(0, VecDeque::len);
        }
        if own >= MAX_IN_LANE {
            return None;
        }
        if self.waiting() >= self.most_waiting {
            // The longest lane gives a place, unless that is this one.
            let longest = self.lanes.values_mut().max_by_key(|waiting| waiting.len())?;
            if longest.len() <= own + 1 {
                return None;
            }
            longest.pop_back();
        }
        let (place, waits) = oneshot::channel();
        let waiting = self.lanes.entry(lane).or_default();
        if waiting.is_empty() {
            self.order.push_back(lane);
        }
        waiting.push_back(place);
        Some(waits)
    }

    fn forget_those_who_left(&mut self) {
        for waiting in self.lanes.values_mut() {
            waiting.retain(|place| !place.is_closed());
        }
        self.lanes.retain(|_, waiting| !waiting.is_empty());
        self.order.retain(|lane| self.lanes.contains_key(lane));
    }

    fn leave(&mut self) -> Option<oneshot::Sender<HashPermit>> {
        let lane = self.order.pop_front()?;
        let waiting = self.lanes.get_mut(&lane)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.order.push_back(lane);
        }
        first
    }
}

/// The right to hash one password. Given back when it is dropped, or when the work with it is over: what was begun goes
/// on when nobody waits for it any more, and counts until its end.
#[derive(Debug)]
pub struct HashPermit(Option<Arc<HashQueue>>);

impl Drop for HashPermit {
    fn drop(&mut self) {
        if let Some(hash_queue) = self.0.take() {
            hash_queue.pass_on();
        }
    }
}

impl HashPermit {
    async fn off_thread<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> DomainResult<T> {
        let counted = move || {
            let done = work();
            drop(self);
            done
        };
        tokio::task::spawn_blocking(counted)
            .await
            .map_err(|error| DomainError::internal("checking a password failed", error))
    }

    /// Whether the password is the one that was hashed; never true without a hash.
    ///
    /// # Errors
    /// When the work could not be done at all.
    pub async fn verify(self, password: &str, stored: Option<&str>) -> DomainResult<bool> {
        if password.len() > MAX_PASSWORD {
            return Ok(false);
        }
        let (password, stored) = (Zeroizing::new(password.to_owned()), stored.map(ToOwned::to_owned));
        self.off_thread(move || {
            let known = stored.is_some();
            let Some(stored) = stored.or_else(|| NOBODY.clone()) else { return false };
            let Ok(parsed) = PasswordHash::new(&stored) else { return false };
            Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && known
        })
        .await
    }
}

/// Hashes a password with a fresh salt.
///
/// # Errors
/// [`DomainError::Unavailable`] when too many wait already; when the operating system has no randomness.
pub async fn hash(hash_queue: &Arc<HashQueue>, password: &str) -> DomainResult<String> {
    let password = Zeroizing::new(password.to_owned());
    hash_queue
        .turn(Lane::Inside)
        .await?
        .off_thread(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
        .await?
        .map_err(|error| DomainError::internal("a password cannot be hashed", error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    #[tokio::test]
    async fn only_the_right_password_passes() {
        let hash_queue = Arc::<HashQueue>::default();
        let verify = async |password: &str, stored: Option<&str>| {
            hash_queue.turn(Lane::Inside).await.expect("a turn").verify(password, stored).await.expect("verified")
        };
        let stored = hash(&hash_queue, "correct horse").await.expect("hash");
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("correct horse", Some(&stored)).await);
        assert!(!verify("wrong", Some(&stored)).await);
        assert!(!verify("nobody", None).await);
        assert!(!verify("x", Some("not a hash")).await);
        assert_eq!(hash_queue.queue().free, AT_ONCE);
    }

    fn lane(n: u8) -> Lane {
        Lane::Network(std::net::IpAddr::from([10, n, 0, 1]).into())
    }

    /// Waits in a lane, and tells when it has its turn.
    fn wait(hash_queue: &Arc<HashQueue>, lane: Lane, name: String, done: &UnboundedSender<String>) {
        let (hash_queue, done) = (Arc::clone(hash_queue), done.clone());
        tokio::spawn(async move {
            let came_to = if hash_queue.turn(lane).await.is_ok() { name } else { format!("no {name}") };
            done.send(came_to).expect("heard");
        });
    }

    async fn until_waiting(hash_queue: &HashQueue, count: usize) {
        while hash_queue.queue().waiting() != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn many_requests_in_one_lane_do_not_delay_another() {
        let hash_queue = Arc::new(HashQueue::new(1, 40));
        let held = hash_queue.turn(lane(0)).await.expect("free");
        #[expect(clippy::disallowed_methods, reason = "a test's few messages")]
        let (done, mut heard) = unbounded_channel();
        for n in 0..MAX_IN_LANE + 3 {
            wait(&hash_queue, lane(1), format!("crowd {n}"), &done);
            until_waiting(&hash_queue, (n + 1).min(MAX_IN_LANE)).await;
        }
        for n in 0..3 {
            assert_eq!(heard.recv().await.expect("told"), format!("no crowd {}", MAX_IN_LANE + n), "its lane is full");
        }
        wait(&hash_queue, lane(2), "one".to_owned(), &done);
        until_waiting(&hash_queue, MAX_IN_LANE + 1).await;
        drop(held);
        let mut next = Vec::new();
        for _ in 0..3 {
            next.push(heard.recv().await.expect("told"));
        }
        assert_eq!(next, ["crowd 0", "one", "crowd 1"]);
    }

    #[tokio::test]
    async fn when_the_queue_is_full_the_longest_lane_loses_an_entry() {
        let hash_queue = Arc::new(HashQueue::new(1, 10));
        let held = hash_queue.turn(lane(0)).await.expect("free");
        #[expect(clippy::disallowed_methods, reason = "a test's few messages")]
        let (done, mut heard) = unbounded_channel();
        for n in 0..10 {
            wait(&hash_queue, lane(1), format!("crowd {n}"), &done);
            until_waiting(&hash_queue, n + 1).await;
        }
        wait(&hash_queue, lane(2), "one".to_owned(), &done);
        tokio::task::yield_now().await;
        until_waiting(&hash_queue, 10).await;
        while hash_queue.queue().lanes.len() < 2 {
            tokio::task::yield_now().await;
        }
        drop(held);
        let mut all = Vec::new();
        for _ in 0..11 {
            all.push(heard.recv().await.expect("told"));
        }
        assert!(all.contains(&"one".to_owned()) && all.contains(&"no crowd 9".to_owned()), "{all:?}");
        assert_eq!(hash_queue.queue().free, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hash_that_nobody_waits_for_counts_until_its_end() {
        let hash_queue = Arc::new(HashQueue::new(1, 1));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let turn = hash_queue.turn(lane(0)).await.expect("a turn");
        let work = tokio::spawn(turn.off_thread(move || {
            let _ = begun.send(());
            let _ = finished.recv();
        }));
        has_begun.await.expect("begun");
        work.abort();
        assert!(work.await.expect_err("aborted").is_cancelled());
        assert_eq!(hash_queue.queue().free, 0, "the work still runs");

        // One waits, the next is sent away; who gives up waiting makes room.
        let waiting = tokio::spawn({
            let hash_queue = Arc::clone(&hash_queue);
            async move { hash_queue.turn(lane(1)).await.map(drop) }
        });
        until_waiting(&hash_queue, 1).await;
        let refused = hash_queue.turn(lane(1)).await.expect_err("too many");
        assert!(matches!(&refused, DomainError::Unavailable(text) if text.contains("Try again")), "{refused}");
        waiting.abort();
        let _ = waiting.await;
        let again = tokio::spawn({
            let hash_queue = Arc::clone(&hash_queue);
            async move { hash_queue.turn(lane(1)).await.map(drop) }
        });
        until_waiting(&hash_queue, 1).await;

        finish.send(()).expect("still there");
        again.await.expect("joins").expect("the work is over");
        hash_queue.turn(lane(2)).await.expect("free");
    }
}
