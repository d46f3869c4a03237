//! When an instance that crashed is started again: three times at once, then after 30 s doubling to 16 min, and not at
//! all after 200 crashes. Five minutes of good running forget what was before.

use crate::sandbox::Exit;

/// Good running after which earlier crashes are forgotten.
pub const GOOD_RUN_MS: i64 = 5 * 60 * 1000;
/// Restarts without a pause. More would let a broken app take a core; fewer would punish a hiccup.
const AT_ONCE: u32 = 3;
const FIRST_DELAY_MS: i64 = 30_000;
const MAX_DELAY_MS: i64 = 16 * 60 * 1000;
/// Crashes after which the cell gives up.
pub const GIVE_UP_AT: u32 = 200;

/// Pause before the next start after the `crashes`-th crash in a row; `None` = give up. Up to a tenth is added by
/// `random` (`0.0..1.0`), so that instances that fell together do not come back in step.
#[must_use]
pub fn delay_ms(crashes: u32, random: f64) -> Option<i64> {
    if crashes >= GIVE_UP_AT {
        return None;
    }
    if crashes <= AT_ONCE {
        return Some(0);
    }
    let doublings = (crashes - AT_ONCE - 1).min(16);
    let delay = (FIRST_DELAY_MS << doublings).min(MAX_DELAY_MS);
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most 16 minutes")]
    let jitter = (delay as f64 * 0.1 * random.clamp(0.0, 1.0)) as i64;
    Some(delay + jitter)
}

/// Pause after the `faults`-th fault of this cell in a row: 1 s doubling to 1 min.
#[must_use]
pub fn cell_fault_delay_ms(faults: u32) -> i64 {
    (1000_i64 << faults.saturating_sub(1).min(6)).min(60_000)
}

/// The exit with a reason for people where it had none.
#[must_use]
pub fn explained(exit: Exit) -> Exit {
    if !exit.reason.is_empty() {
        return exit;
    }
    let reason = match exit.signal {
        Some(signal) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("killed by signal {signal} ({name})"),
            Err(_) => format!("killed by signal {signal}"),
        },
        None => format!("exited with status {}", exit.code),
    };
    Exit { reason, ..exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy() {
        let table = [
            (1, Some(0)),
            (3, Some(0)),
            (4, Some(30_000)),
            (5, Some(60_000)),
            (8, Some(480_000)),
            (9, Some(960_000)),
            (150, Some(960_000)),
            (199, Some(960_000)),
            (200, None),
        ];
        for (crashes, wanted) in table {
            assert_eq!(delay_ms(crashes, 0.0), wanted, "after {crashes} crashes");
        }
        assert_eq!(delay_ms(4, 0.99), Some(32_970));
    }
}
