//! One try to log in: is that the password, and may this account be tried at all.
//!
//! The lock holds although many try at once. What a guess came to is decided where it is counted, in the account's row,
//! one after the other: once a wrong one has locked the account, every later one is answered "locked", the right one
//! among them, so that nobody learns which it was. Counting before the check instead would lock out whoever logs in
//! five times at once with the right password.

use super::password;
use crate::context::Context;
use crate::domain::DomainResult;
use crate::store::users::AccountRow;

/// Wrong passwords in a row before an account is locked, and for how long (seconds): enough for a person, hopeless for a
/// guesser.
const MAX_FAILURES: i32 = 5;
const LOCK_S: f64 = 300.0;

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// It is the password.
    Good,
    /// It is not, or there is no such account.
    Wrong,
    /// The account is locked now; whether the password was right is not told.
    Locked,
}

/// Tries a password (or secret) of an account and counts the try. Without an account it takes as long and is wrong.
///
/// # Errors
/// [`crate::domain::DomainError::Unavailable`] when too many wait for their turn; when the database fails.
pub async fn attempt(context: &Context, account: Option<&AccountRow>, given: &str) -> DomainResult<Login> {
    if account.is_some_and(|account| account.locked) {
        return Ok(Login::Locked);
    }
    let turn = password::turn().await?;
    // Waiting takes long when many guess: a lock of meanwhile saves the rest of them their work.
    let account = match account {
        Some(account) => context.store.account_get(&account.guid).await?,
        None => None,
    };
    if account.as_ref().is_some_and(|account| account.locked) {
        return Ok(Login::Locked);
    }
    let good = turn.verify(given, account.as_ref().and_then(|account| account.password_hash.as_deref())).await?;
    let Some(account) = account else { return Ok(Login::Wrong) };
    let counted = if good {
        context.store.login_succeeded(&account.guid).await?
    } else {
        context.store.login_failed(&account.guid, MAX_FAILURES, LOCK_S).await?
    };
    Ok(match (counted, good) {
        (false, _) => Login::Locked,
        (true, true) => Login::Good,
        (true, false) => Login::Wrong,
    })
}
