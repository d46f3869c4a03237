//! Waiting for a condition on the state: short interval, generous limit, the last status in the failure.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for a state that is to come. Only a test that fails waits this long; shorter, and one fails when
/// the machine stands still for a while under the others.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks every 25 ms until `Ok`, or panics after `limit` with the last `Err`.
///
/// # Panics
/// When the condition does not hold within the limit.
pub async fn eventually<T, E, F, Fut>(what: &str, limit: Duration, mut ask: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(status) if start.elapsed() > limit => {
                panic!("{what}: not within {limit:?}; last status: {status:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}
