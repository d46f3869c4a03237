//! Limits that keep one caller from using up this controller. In memory, for this controller alone.

use std::sync::Arc;

use super::fair::{Rates, RequestQueues};
use super::guesses::Guesses;
use super::password::HashQueue;

/// Shared by all requests.
#[derive(Debug, Default)]
pub struct Guard {
    /// Failed logins.
    pub guesses: Guesses,
    /// Where passwords are hashed.
    pub hash_queue: Arc<HashQueue>,
    /// Requests that each user has made.
    pub rates: Rates,
    /// Requests of each user that are worked on.
    pub turns: RequestQueues,
    /// Questions of each user for logs: they may wait for cells, which must not hold up the user's other requests.
    pub log_turns: RequestQueues,
}
