//! Limits how many uploads are received and checked at a time.
//!
//! An upload costs disk while it is received, and a core and memory while it is checked. Both are limited for all together,
//! and fairly: an organization gets a share of the permits, and one that becomes free goes to whoever holds fewest.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

use crate::config::Limits;
use crate::domain::{DomainError, DomainResult};

/// Uploads that wait for a place, for each place there is. Each is a connection of which nothing is read.
const WAITING_PER_PLACE: usize = 8;
/// What a client is told to wait before it tries again, seconds.
const RETRY_AFTER_S: u32 = 10;

/// The places of one controller.
#[derive(Debug)]
pub struct Uploads {
    most: usize,
    most_of_one: usize,
    timeout: Duration,
    state: Mutex<State>,
    checking: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    held: HashMap<Uuid, usize>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    org: Uuid,
    turn: oneshot::Sender<UploadPermit>,
}

/// A permit to upload; given back when dropped.
#[derive(Debug)]
pub struct UploadPermit {
    uploads: Arc<Uploads>,
    org: Uuid,
}

/// A permit to check an upload; given back when dropped.
#[derive(Debug)]
pub struct CheckPermit {
    _permit: OwnedSemaphorePermit,
}

impl Uploads {
    /// As many places as the limits say.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let number = |value: u64| usize::try_from(value).unwrap_or(Semaphore::MAX_PERMITS).max(1);
        Arc::new(Self {
            most: number(limits.uploads_at_once),
            most_of_one: number(limits.uploads_at_once_per_organization),
            timeout: Duration::from_secs(limits.upload_wait_s),
            state: Mutex::default(),
            checking: Arc::new(Semaphore::new(number(limits.uploads_judged_at_once).min(Semaphore::MAX_PERMITS))),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an upload of this organization (nil = the platform's own), after some waiting if need be.
    ///
    /// # Errors
    /// [`DomainError::Busy`] when too many wait already, or none became free in time.
    pub async fn permit(self: &Arc<Self>, org: Uuid) -> DomainResult<UploadPermit> {
        let turn = {
            let mut state = self.state();
            let held = state.held.get(&org).copied().unwrap_or_default();
            if state.taken < self.most && held < self.most_of_one {
                // Whoever waits now could not take it: each of them is at its own bound.
                return Ok(self.take(&mut state, org));
            }
            // Who has hung up waits no longer.
            state.waiting.retain(|waiting| !waiting.turn.is_closed());
            let of_one = state.waiting.iter().filter(|waiting| waiting.org == org).count();
            if state.waiting.len() >= self.most.saturating_mul(WAITING_PER_PLACE)
                || of_one >= self.most_of_one.saturating_mul(WAITING_PER_PLACE)
            {
                return Err(self.busy(held));
            }
            let (turn, waiting) = oneshot::channel();
            state.waiting.push_back(Waiting { org, turn });
            waiting
        };
        match tokio::time::timeout(self.timeout, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let mut state = self.state();
                state.waiting.retain(|waiting| !waiting.turn.is_closed());
                let held = state.held.get(&org).copied().unwrap_or_default();
                drop(state);
                Err(self.busy(held))
            }
        }
    }

    /// A place for judging what was received. Only who has a [`UploadPermit`] waits here.
    ///
    /// # Errors
    /// Never in practice: nobody closes the semaphore.
    pub async fn checking(&self) -> DomainResult<CheckPermit> {
        let permit = Arc::clone(&self.checking).acquire_owned().await;
        permit
            .map(|permit| CheckPermit { _permit: permit })
            .map_err(|error| DomainError::internal("judging uploads", error))
    }

    fn busy(&self, held: usize) -> DomainError {
        let detail = match held >= self.most_of_one {
            true => format!("{held} uploads of this organization are under way, as many as it may have at a time."),
            false => format!("{} uploads are under way, as many as this controller takes at a time.", self.most),
        };
        DomainError::Busy { detail: format!("{detail} Try again in a moment."), retry_after_s: RETRY_AFTER_S }
    }

    fn take(self: &Arc<Self>, state: &mut State, org: Uuid) -> UploadPermit {
        state.taken += 1;
        *state.held.entry(org).or_default() += 1;
        UploadPermit { uploads: Arc::clone(self), org }
    }

    fn give_back(self: &Arc<Self>, org: Uuid) {
        let mut state = self.state();
        state.taken = state.taken.saturating_sub(1);
        if let Some(held) = state.held.get_mut(&org) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                state.held.remove(&org);
            }
        }
        // Places of those who went away meanwhile: given back when nothing is locked.
        let mut refused = Vec::new();
        while state.taken < self.most {
            let held = |waiting: &Waiting| state.held.get(&waiting.org).copied().unwrap_or_default();
            let next = state.waiting.iter().enumerate().map(|(index, waiting)| (held(waiting), index));
            let Some((_, next)) = next.filter(|(held, _)| *held < self.most_of_one).min() else { break };
            let Some(waiting) = state.waiting.remove(next) else { break };
            let permit = self.take(&mut state, waiting.org);
            refused.extend(waiting.turn.send(permit).err());
        }
        drop(state);
        drop(refused);
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        self.uploads.give_back(self.org);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads(at_once: u64, of_one: u64) -> Arc<Uploads> {
        Uploads::new(&Limits {
            uploads_at_once: at_once,
            uploads_at_once_per_organization: of_one,
            upload_wait_s: 3600,
            ..Limits::default()
        })
    }

    /// A waiter that has looked for a place and not found one.
    async fn waiter(uploads: &Arc<Uploads>, org: Uuid) -> tokio::task::JoinHandle<DomainResult<UploadPermit>> {
        let before = uploads.state().waiting.len();
        let task = tokio::spawn({
            let uploads = Arc::clone(uploads);
            async move { uploads.permit(org).await }
        });
        while uploads.state().waiting.len() == before {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn a_free_permit_goes_to_the_organization_that_holds_fewest() {
        let uploads = uploads(3, 3);
        let (greedy, modest) = (Uuid::new_v4(), Uuid::new_v4());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(uploads.permit(greedy).await.expect("a place"));
        }
        let first = waiter(&uploads, greedy).await;
        let second = waiter(&uploads, modest).await;
        held.pop();
        let permit = second.await.expect("joins").expect("the one who has none");
        assert!(!first.is_finished());
        drop(permit);
        first.await.expect("joins").expect("then the other");
        drop(held);
        let state = uploads.state();
        assert_eq!((state.taken, state.held.len()), (0, 0), "everything is free again");
    }

    #[tokio::test]
    async fn one_organization_cannot_take_all_permits() {
        let uploads = uploads(4, 2);
        let (greedy, other) = (Uuid::new_v4(), Uuid::new_v4());
        let held = [uploads.permit(greedy).await.expect("a place"), uploads.permit(greedy).await.expect("a place")];
        let third = waiter(&uploads, greedy).await;
        drop(uploads.permit(other).await.expect("there is room for others"));
        assert!(!third.is_finished(), "what another gave back is not for who has its part");
        // Who hangs up while waiting takes nothing with it.
        third.abort();
        assert!(third.await.is_err());
        drop(held);
        assert_eq!(uploads.state().taken, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_in_number_and_time() {
        let uploads = uploads(1, 1);
        let org = Uuid::new_v4();
        let held = uploads.permit(org).await.expect("a place");
        let mut waiting = Vec::new();
        for _ in 0..WAITING_PER_PLACE {
            waiting.push(waiter(&uploads, org).await);
        }
        let busy = |result: DomainResult<UploadPermit>| match result {
            Err(DomainError::Busy { detail, retry_after_s }) => (detail, retry_after_s),
            other => panic!("{other:?}"),
        };
        let (detail, retry) = busy(uploads.permit(org).await);
        assert!(detail.starts_with("1 uploads of this organization are under way") && retry > 0, "{detail}");
        let (detail, _) = busy(uploads.permit(Uuid::new_v4()).await);
        assert!(detail.starts_with("1 uploads are under way"), "{detail}");
        for task in waiting {
            busy(task.await.expect("joins"));
        }
        assert_eq!(uploads.state().waiting.len(), 0);
        drop(held);
        uploads.permit(org).await.expect("free again");
    }

    #[tokio::test]
    async fn few_uploads_are_checked_at_a_time() {
        let uploads = Uploads::new(&Limits { uploads_judged_at_once: 1, ..Limits::default() });
        let one = uploads.checking().await.expect("a place");
        let mut two = Box::pin(uploads.checking());
        assert!(futures::poll!(&mut two).is_pending());
        drop(one);
        two.await.expect("the next");
    }
}
