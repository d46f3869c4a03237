//! Passwords and secrets as argon2id, computed off the async threads, a few at a time.

use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::domain::{DomainError, DomainResult};

/// Hashings at a time: each takes 19 MiB and some 20 ms of a core, so a flood of logins must not take the machine.
const AT_ONCE: usize = 2;
/// Who waits for one: some two seconds of work. More would wait longer than their clients do.
const MOST_WAITING: usize = 256;

/// Longest password: longer ones are somebody's attempt to keep us busy.
pub const MAX_PASSWORD: usize = 1024;

static DESK: LazyLock<Desk> = LazyLock::new(|| Desk::new(AT_ONCE, MOST_WAITING));

/// Compared with when there is no such user, so that the answer takes as long as for one that exists.
static NOBODY: LazyLock<Option<String>> =
    LazyLock::new(|| Argon2::default().hash_password(b"nobody").map(|hash| hash.to_string()).ok());

/// Where turns are given out.
#[derive(Debug)]
struct Desk {
    at_once: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Desk {
    fn new(at_once: usize, waiting: usize) -> Self {
        Self { at_once: Arc::new(Semaphore::new(at_once)), waiting: Semaphore::new(waiting) }
    }

    async fn turn(&self) -> DomainResult<Turn> {
        let _waits = self.waiting.try_acquire().map_err(|_| {
            DomainError::Unavailable("Too many logins at this moment. Try again in a few seconds.".to_owned())
        })?;
        match Arc::clone(&self.at_once).acquire_owned().await {
            Ok(permit) => Ok(Turn(permit)),
            Err(error) => Err(DomainError::internal("no password can be checked", error)),
        }
    }
}

/// Waits for the turn to hash.
///
/// # Errors
/// [`DomainError::Unavailable`] when too many wait already.
pub async fn turn() -> DomainResult<Turn> {
    DESK.turn().await
}

/// The right to hash one password. Given back when it is dropped, or when the work with it is over: what was begun goes
/// on when nobody waits for it any more, and counts until its end.
#[derive(Debug)]
pub struct Turn(OwnedSemaphorePermit);

impl Turn {
    async fn off_thread<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> DomainResult<T> {
        let Self(permit) = self;
        let counted = move || {
            let done = work();
            drop(permit);
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
pub async fn hash(password: &str) -> DomainResult<String> {
    let password = Zeroizing::new(password.to_owned());
    turn()
        .await?
        .off_thread(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
        .await?
        .map_err(|error| DomainError::internal("a password cannot be hashed", error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn only_the_right_password_passes() {
        let verify = async |password: &str, stored: Option<&str>| {
            turn().await.expect("a turn").verify(password, stored).await.expect("verified")
        };
        let stored = hash("correct horse").await.expect("hash");
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("correct horse", Some(&stored)).await);
        assert!(!verify("wrong", Some(&stored)).await);
        assert!(!verify("nobody", None).await);
        assert!(!verify("x", Some("not a hash")).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_nobody_waits_for_counts_until_its_end() {
        let desk = Arc::new(Desk::new(1, 1));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let turn = desk.turn().await.expect("a turn");
        let work = tokio::spawn(turn.off_thread(move || {
            let _ = begun.send(());
            let _ = finished.recv();
        }));
        has_begun.await.expect("begun");
        work.abort();
        assert!(work.await.expect_err("aborted").is_cancelled());
        assert_eq!(desk.at_once.available_permits(), 0, "the work still runs");

        // One waits, the next is sent away; who gives up waiting makes room.
        let waiting = tokio::spawn({
            let desk = Arc::clone(&desk);
            async move { desk.turn().await.map(drop) }
        });
        while desk.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = desk.turn().await.expect_err("too many");
        assert!(matches!(&refused, DomainError::Unavailable(text) if text.contains("Try again")), "{refused}");
        waiting.abort();
        let _ = waiting.await;
        assert_eq!(desk.waiting.available_permits(), 1);

        finish.send(()).expect("still there");
        desk.turn().await.expect("the work is over");
    }
}
