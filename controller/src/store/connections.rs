//! How a controller connects to Postgres, and what Postgres does when it hears no more of it.
//!
//! Each transaction that changes what is placed or routed holds the lock of the change log for some round trips. A
//! controller that is stopped in between, or cut off without a word, would hold up every write of the platform until
//! the kernel of the database's machine notices: after two hours. So a transaction in which nothing happens is ended by
//! Postgres, and a connection whose other end does not answer as well. A statement that takes too long, or waits too long
//! for a lock, is ended, so that it does not keep its connection from others.
//!
//! There are two pools: placement, routing and the planner's lease have one of their own, so that slow lists of the API
//! never cost the lease.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// Connections for the API and for what works for it in the background.
pub const API_CONNECTIONS: u32 = 24;

/// Connections for placement, routing and the lease.
pub const PLACEMENT_CONNECTIONS: u32 = 8;

/// What Postgres ends by itself.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// A transaction that waits for its controller. Transactions hold no work but their queries.
    pub idle_in_transaction: Duration,
    /// A statement.
    pub statement: Duration,
    /// A statement that waits for a lock. More than the first, so that who holds the lock is ended before who waits for it.
    pub lock: Duration,
}

/// For the API: its lists may be long.
pub const API_LIMITS: TimeLimits = TimeLimits {
    idle_in_transaction: Duration::from_secs(10),
    statement: Duration::from_secs(60),
    lock: Duration::from_secs(15),
};

/// For placement: the whole of it is read in seconds.
pub const PLACEMENT_LIMITS: TimeLimits = TimeLimits { statement: Duration::from_secs(30), ..API_LIMITS };

/// A pool of connections that are guarded so, and made when they are needed.
#[must_use]
pub fn pool(options: PgConnectOptions, most: u32, wait: Duration, limits: TimeLimits) -> PgPool {
    PgPoolOptions::new().max_connections(most).acquire_timeout(wait).connect_lazy_with(guarded(options, limits))
}

/// The same connection with these manners. By a socket of the same machine the settings of TCP have no effect.
#[must_use]
pub fn guarded(options: PgConnectOptions, limits: TimeLimits) -> PgConnectOptions {
    let ms = |limit: Duration| limit.as_millis().to_string();
    options.options([
        ("idle_in_transaction_session_timeout", ms(limits.idle_in_transaction).as_str()),
        ("statement_timeout", ms(limits.statement).as_str()),
        ("lock_timeout", ms(limits.lock).as_str()),
        // Seconds: asked after five, again each two, given up after the third.
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        // Milliseconds in which what was sent must be confirmed.
        ("tcp_user_timeout", "10000"),
    ])
}
