//! The time of day, as numbers that go over the wire and into files. A clock before 1970 reads as 1970, and one beyond
//! what a number holds as its largest: neither is worth an error.

use std::time::{Duration, SystemTime};

/// Time since 1970.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> i64 {
    number(since_1970().as_millis())
}

/// Nanoseconds since 1970.
#[must_use]
pub fn unix_ns() -> i64 {
    number(since_1970().as_nanos())
}

fn number(units: u128) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_numbers_is_the_largest() {
        assert_eq!(number(1_700_000_000_000), 1_700_000_000_000);
        assert_eq!(number(Duration::MAX.as_nanos()), i64::MAX);
    }
}
