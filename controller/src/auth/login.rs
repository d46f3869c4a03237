//! One attempt to log in: when it may be made, and whether the password is right.
//!
//! The account is looked up last: a flood of guesses that have to wait costs the database little, and takes equally long
//! whether the account exists or not.

use std::net::IpAddr;

use super::guesses::LoginAttempt;
use crate::context::Context;
use crate::domain::DomainResult;
use crate::store::users::AccountRow;

/// Whom somebody says to be.
#[derive(Clone, Copy, Debug)]
pub enum ClaimedUser<'a> {
    /// A user of this platform's own, by name.
    User(&'a str),
    /// A client, by id.
    Client(&'a str),
}

/// Why nobody is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not the password, or there is no such account.
    Wrong,
    /// It was not looked at: too many wrong ones came from there, or too many at once.
    TooMany,
}

/// Tries a password (or secret) and counts the try: the account, if it is the right one. May wait, see
/// [`super::guesses`].
///
/// # Errors
/// [`crate::domain::DomainError::Unavailable`] when too many wait for their turn; when the database fails.
pub async fn attempt(
    context: &Context,
    who: ClaimedUser<'_>,
    given: &str,
    from: IpAddr,
) -> DomainResult<Result<AccountRow, Refusal>> {
    let guard = &context.guard;
    let tried = match who {
        ClaimedUser::User(name) => LoginAttempt::new("user", name, from),
        ClaimedUser::Client(id) => LoginAttempt::new("client", id, from),
    };
    let turn = loop {
        let Some(pass) = guard.guesses.admit(tried) else { return Ok(Err(Refusal::TooMany)) };
        if !pass.wait.is_zero() {
            tokio::time::sleep(pass.wait).await;
        }
        let turn = guard.hash_queue.turn(guard.guesses.lane(tried)).await?;
        if guard.guesses.holds(pass, tried) {
            break turn;
        }
    };
    let account = match who {
        ClaimedUser::User(name) => {
            let accounts = context.store.accounts_named(name, Some("uaa")).await?;
            accounts.into_iter().find(|account| !account.is_client)
        }
        ClaimedUser::Client(id) => context.store.account_get(id).await?.filter(|account| account.is_client),
    };
    let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
    if turn.verify(given, hash).await?
        && let Some(account) = account
    {
        guard.guesses.right(tried);
        return Ok(Ok(account));
    }
    guard.guesses.wrong(tried);
    Ok(Err(Refusal::Wrong))
}
