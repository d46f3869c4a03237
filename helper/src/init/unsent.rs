//! What the programs have written and their visitors have not taken yet. A program that has written the whole of an answer
//! may close and end; the kernel sends the rest from its buffers, megabytes with a slow visitor. Those buffers go with the
//! sandbox's network, which goes with this process: it stays until they are empty.

use std::time::Duration;

/// Between two looks, in milliseconds.
pub(super) const PAUSE: u16 = 20;
/// How long is waited when the programs ended by themselves: who reads as it comes needs milliseconds, and the next start
/// must not wait for who does not.
pub(super) const AFTER_AN_END: Duration = Duration::from_secs(1);
/// How long is waited in a stop. The agent ends it sooner, when the grace is over; this holds when there is no agent.
pub(super) const IN_A_STOP: Duration = Duration::from_secs(60);

/// States of a connection that its program has closed and whose last byte the other end has not confirmed, as
/// `/proc/net/tcp` has them: `FIN_WAIT1`, `LAST_ACK`, `CLOSING`.
const CLOSED_AND_UNCONFIRMED: [&str; 3] = ["04", "09", "0B"];

/// Whether there is any in this network. What cannot be read has none.
pub(super) fn is_there() -> bool {
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .iter()
        .any(|table| std::fs::read_to_string(table).is_ok_and(|text| is_in(&text)))
}

fn is_in(table: &str) -> bool {
    let states = table.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(3));
    states.into_iter().any(|state| CLOSED_AND_UNCONFIRMED.contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closed_and_unconfirmed_calls_count() {
        let table = |state: &str| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                 0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100\n   \
                 1: 0100007F:1F90 0100007F:C350 {state} 00001000:00000000 01:00000014 00000000     0        0 0 2 0 20\n"
            )
        };
        for state in CLOSED_AND_UNCONFIRMED {
            assert!(is_in(&table(state)), "{state}");
        }
        for state in ["01", "05", "06", "08", "0A"] {
            assert!(!is_in(&table(state)), "{state}");
        }
        assert!(!is_in(""));
    }
}
