//! Keeps one user from taking the API from the others: how many requests a user has made, and how many are handled at a
//! time.
//!
//! In memory, for this controller alone: with several controllers each has its own count, and a restart resets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Users that are remembered. Each has shown a token, so nobody can make them up.
const MANY: usize = 4096;
/// Requests of one user that wait for their turn, for each that is worked on.
const WAITING: usize = 32;

/// How one user stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStatus {
    /// Requests in an interval.
    pub limit: u64,
    /// What is left of them.
    pub remaining: u64,
    /// When the interval is over.
    pub reset: DateTime<Utc>,
    /// This request was one too many.
    pub exceeded: bool,
}

/// Requests of each user in the current interval, which begins with the first of them.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<String, (u64, DateTime<Utc>)>>);

impl Rates {
    /// Counts a request.
    pub fn count(&self, user: &str, limit: u64, interval: Duration, now: DateTime<Utc>) -> RateStatus {
        let mut users = lock(&self.0);
        if users.len() >= MANY {
            users.retain(|_, (_, reset)| *reset > now);
        }
        let entry = users.entry(user.to_owned()).or_insert((0, now));
        if entry.1 <= now {
            *entry = (0, now + interval);
        }
        entry.0 = entry.0.saturating_add(1);
        let (made, reset) = *entry;
        RateStatus { limit, remaining: limit.saturating_sub(made), reset, exceeded: made > limit }
    }
}

/// Turns of each user: some requests are worked on, some wait in the order in which they came, more are refused.
#[derive(Debug, Default)]
pub struct RequestQueues(Mutex<HashMap<String, Queue>>);

#[derive(Clone, Debug)]
struct Queue {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// A request that is worked on, until it is dropped.
#[derive(Debug)]
pub struct RequestPermit {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl RequestQueues {
    /// Waits for a turn; `None` when too many of this user wait already.
    pub async fn of(&self, user: &str, at_once: usize) -> Option<RequestPermit> {
        let queue = {
            let mut users = lock(&self.0);
            if users.len() >= MANY {
                users.retain(|_, queue| Arc::strong_count(&queue.places) > 1);
            }
            let most = Semaphore::MAX_PERMITS / WAITING;
            let new = || Queue {
                places: Arc::new(Semaphore::new(at_once.min(most).saturating_mul(WAITING))),
                turns: Arc::new(Semaphore::new(at_once.min(most))),
            };
            users.entry(user.to_owned()).or_insert_with(new).clone()
        };
        let place = queue.places.try_acquire_owned().ok()?;
        let turn = queue.turns.acquire_owned().await.ok()?;
        Some(RequestPermit { _turn: turn, _place: place })
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_so_many_requests_and_then_the_next_begins() {
        let (rates, hour) = (Rates::default(), Duration::from_secs(3600));
        let at = |s: u32| DateTime::from_timestamp(1_800_000_000 + i64::from(s), 0).expect("a time");
        let count = |user: &str, s: u32| rates.count(user, 2, hour, at(s));
        let standing = |remaining, reset: u32, exceeded| RateStatus { limit: 2, remaining, reset: at(reset), exceeded };
        assert_eq!(count("ann", 0), standing(1, 3600, false));
        assert_eq!(count("ann", 10), standing(0, 3600, false));
        assert_eq!(count("ann", 20), standing(0, 3600, true));
        assert_eq!(count("bob", 20), standing(1, 3620, false), "each user for itself");
        assert_eq!(count("ann", 3599), standing(0, 3600, true));
        assert_eq!(count("ann", 3600), standing(1, 7200, false));
    }

    #[tokio::test]
    async fn one_user_waits_for_itself_and_nobody_else_does() {
        let turns = Arc::new(RequestQueues::default());
        let held = [turns.of("ann", 2).await, turns.of("ann", 2).await];
        assert!(held.iter().all(Option::is_some));
        let waiting: Vec<_> = (0..2 * WAITING - 2)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { turns.of("ann", 2).await.is_some() })
            })
            .collect();
        while lock(&turns.0)["ann"].places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(turns.of("ann", 2).await.is_none(), "more do not wait");
        assert!(turns.of("bob", 2).await.is_some());
        assert!(waiting.iter().all(|task| !task.is_finished()));
        drop(held);
        for task in waiting {
            assert!(task.await.expect("joins"));
        }
    }
}
