//! How a controller connects to Postgres, and what Postgres does when it hears no more of it.
//!
//! Each transaction that changes what is placed or routed holds the lock of the change log for some round trips. A
//! controller that is stopped in between, or cut off without a word, would hold up every write of the platform until
//! the kernel of the database's machine notices: after two hours. So a transaction in which nothing happens is ended by
//! Postgres, and a connection whose other end does not answer as well.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// How long a transaction may wait for its controller. Transactions hold no work but their queries.
pub const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// The same connection with these manners. By a socket of the same machine the settings of TCP have no effect.
#[must_use]
pub fn guarded(options: PgConnectOptions, idle_in_transaction: Duration) -> PgConnectOptions {
    let idle = idle_in_transaction.as_millis().to_string();
    options.options([
        ("idle_in_transaction_session_timeout", idle.as_str()),
        // Seconds: asked after five, again each two, given up after the third.
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        // Milliseconds in which what was sent must be confirmed.
        ("tcp_user_timeout", "10000"),
    ])
}
