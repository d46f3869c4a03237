//! How fast passwords may be guessed: failed logins are counted by account *and* network of the client, and what has
//! failed too often is made slow, never shut. Nobody can lock an account from elsewhere, whoever knows the password gets
//! in, and a guesser gets one try in 15 seconds.
//!
//! Three counters, each of which forgets as time passes:
//!
//! * a network's tries at one account: after five wrong ones they queue, further and further apart;
//! * a network's tries at all accounts: after a hundred they queue, two in a second;
//! * all tries at one account: after fifty each takes two seconds, side by side.
//!
//! The last two are for those who have not logged in from there lately: a guesser must not slow down the users of the
//! office around. A name that no account has is counted like any other, so that nothing tells one from the other.
//!
//! In memory, of this controller alone: a guess costs no write, and a start forgets. With several controllers a guesser
//! has as many tries as there are controllers times as many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipway_protocol::digest::sha256;
use tokio::time::Instant;

use super::password::Lane;

/// Who would wait longer is refused: its client would not wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long a network is known from which somebody has logged in.
const NETWORK_KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// What is counted, at most: some ten megabytes. Each entry costs who makes it the hashing of a password, so nobody gets rid
/// of its own by making others.
const MOST: usize = 65_536;

/// Failures beyond the free ones count no further: what is over is forgotten in minutes, however long it went on.
const MAX_BEYOND: u32 = 8;

/// When a counter begins to slow down, and how it forgets.
struct Rule {
    /// Failures that cost nothing.
    free: u32,
    /// One failure is forgotten in this time.
    forgets: Duration,
    /// Between two tries: the first time, doubled by each further failure,
    first: Duration,
    /// and at most.
    most: Duration,
}

const PAIR: Rule =
    Rule { free: 5, forgets: Duration::from_secs(60), first: Duration::from_secs(1), most: Duration::from_secs(15) };
const NETWORK: Rule = Rule {
    free: 100,
    forgets: Duration::from_secs(2),
    first: Duration::from_millis(500),
    most: Duration::from_millis(500),
};
const ACCOUNT: Rule =
    Rule { free: 50, forgets: Duration::from_secs(10), first: Duration::from_secs(2), most: Duration::from_secs(2) };

impl Rule {
    fn gap(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(beyond) => self.first.saturating_mul(1 << beyond.min(MAX_BEYOND)).min(self.most),
        }
    }
}

/// Where a client is: its address without the part that one customer of a provider may choose, a /24 or a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        })
    }
}

/// A name that somebody wants to log in with, and from where. Names of any length take the same room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginAttempt {
    name: [u8; 32],
    network: Network,
}

impl LoginAttempt {
    /// The name counts in any case of its letters, as it does when accounts are looked for.
    #[must_use]
    pub fn new(kind: &str, name: &str, from: IpAddr) -> Self {
        Self { name: sha256(format!("{kind}/{}", name.to_lowercase()).as_bytes()), network: from.into() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Pair(LoginAttempt),
    Network(Network),
    Account([u8; 32]),
}

#[derive(Clone, Copy)]
struct Count {
    failures: u32,
    /// Up to here the failures were forgotten.
    since: Instant,
    /// When the next try has its turn.
    next: Instant,
    /// Until when who comes from there is known.
    known_until: Instant,
}

impl Count {
    fn new(now: Instant) -> Self {
        Self { failures: 0, since: now, next: now, known_until: now }
    }

    fn forget(&mut self, rule: &Rule, now: Instant) {
        let gone = now.saturating_duration_since(self.since).as_nanos() / rule.forgets.as_nanos().max(1);
        let gone = u32::try_from(gone).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_sub(gone);
        self.since = if self.failures == 0 { now } else { self.since + rule.forgets * gone };
    }

    fn says_nothing(&self, now: Instant) -> bool {
        // Nobody forgets more slowly than a pair.
        let old = now.saturating_duration_since(self.since) > PAIR.forgets * self.failures;
        old && self.next <= now && self.known_until <= now
    }
}

/// Leave to try a password, after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptPermit {
    /// To wait before.
    pub wait: Duration,
    queued: bool,
}

/// See the module.
#[derive(Default)]
pub struct Guesses {
    counts: Mutex<HashMap<Key, Count>>,
}

impl std::fmt::Debug for Guesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guesses(…)")
    }
}

impl Guesses {
    fn counts(&self) -> MutexGuard<'_, HashMap<Key, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this may be tried; `None` when it would be too late for whoever waits.
    pub fn admit(&self, tried: LoginAttempt) -> Option<AttemptPermit> {
        let now = Instant::now();
        let mut counts = self.counts();
        let mut look = |key: Key, rule: &Rule| -> Option<(Count, Duration)> {
            let count = counts.get_mut(&key)?;
            count.forget(rule, now);
            Some((*count, rule.gap(count.failures)))
        };
        let pair = look(Key::Pair(tried), &PAIR);
        let known = pair.is_some_and(|(count, _)| count.known_until > now);
        let (network, account) = if known {
            (None, None)
        } else {
            (look(Key::Network(tried.network), &NETWORK), look(Key::Account(tried.name), &ACCOUNT))
        };
        // The two that queue; the account as a whole does not, or a stranger could keep its owner waiting for ever.
        let queues = [(Key::Pair(tried), pair), (Key::Network(tried.network), network)];
        let turn = queues
            .iter()
            .filter_map(|(_, found)| found.filter(|(_, gap)| !gap.is_zero()))
            .map(|(count, _)| count.next)
            .max()
            .unwrap_or(now)
            .max(now + account.map_or(Duration::ZERO, |(_, gap)| gap));
        let wait = turn.saturating_duration_since(now);
        if wait > MAX_WAIT {
            return None;
        }
        for (key, found) in queues {
            if let (Some((_, gap)), Some(count)) = (found, counts.get_mut(&key))
                && !gap.is_zero()
            {
                count.next = turn + gap;
            }
        }
        Some(AttemptPermit { wait, queued: pair.is_some_and(|(_, gap)| !gap.is_zero()) })
    }

    /// Whether the leave still holds. Many that come at once all get it before the first of them has failed.
    pub fn holds(&self, pass: AttemptPermit, tried: LoginAttempt) -> bool {
        pass.queued || self.counts().get(&Key::Pair(tried)).is_none_or(|count| count.failures < PAIR.free)
    }

    /// It was wrong.
    pub fn wrong(&self, tried: LoginAttempt) {
        let now = Instant::now();
        let mut counts = self.counts();
        make_room(&mut counts, now);
        for (key, rule) in
            [(Key::Pair(tried), &PAIR), (Key::Network(tried.network), &NETWORK), (Key::Account(tried.name), &ACCOUNT)]
        {
            let count = counts.entry(key).or_insert_with(|| Count::new(now));
            count.forget(rule, now);
            count.failures = (count.failures + 1).min(rule.free + MAX_BEYOND);
            count.next = count.next.max(now + rule.gap(count.failures));
        }
    }

    /// It was right: who comes from there is known now, and its slips are forgotten.
    pub fn right(&self, tried: LoginAttempt) {
        let now = Instant::now();
        let mut counts = self.counts();
        make_room(&mut counts, now);
        counts.insert(Key::Pair(tried), Count { known_until: now + NETWORK_KNOWN_FOR, ..Count::new(now) });
    }

    /// Where it waits for a password to be checked: who is known waits behind nobody else of its network.
    pub fn lane(&self, tried: LoginAttempt) -> Lane {
        let known = self.counts().get(&Key::Pair(tried)).is_some_and(|count| count.known_until > Instant::now());
        if known { Lane::KnownUser(tried) } else { Lane::Network(tried.network) }
    }
}

/// Room for three more.
fn make_room(counts: &mut HashMap<Key, Count>, now: Instant) {
    if counts.len() + 3 <= MOST {
        return;
    }
    counts.retain(|_, count| !count.says_nothing(now));
    if counts.len() + 3 > MOST {
        let mut ages: Vec<Instant> = counts.values().map(|count| count.since).collect();
        let middle = ages.len() / 2;
        let (_, &mut oldest, _) = ages.select_nth_unstable(middle);
        let mut older = middle;
        counts.retain(|_, count| {
            let goes = older > 0 && count.since <= oldest;
            older -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &str, from: &str) -> LoginAttempt {
        LoginAttempt::new("user", name, from.parse().expect(from))
    }

    /// Guesses wrong so often, each when it is let; gives how long that took.
    async fn guess(guesses: &Guesses, tried: LoginAttempt, times: u32) -> Duration {
        let began = Instant::now();
        for _ in 0..times {
            let pass = guesses.admit(tried).expect("let in");
            tokio::time::sleep(pass.wait).await;
            guesses.wrong(tried);
        }
        began.elapsed()
    }

    fn wait(guesses: &Guesses, tried: LoginAttempt) -> Option<Duration> {
        guesses.admit(tried).map(|pass| pass.wait)
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[tokio::test(start_paused = true)]
    async fn a_guesser_gets_slow_and_nobody_else_does() {
        let guesses = Guesses::default();
        let stranger = tried("ann", "192.0.2.7");
        assert_eq!(guess(&guesses, stranger, 5).await, S(0), "a person's slips cost nothing");
        assert_eq!(guess(&guesses, stranger, 5).await, S(1 + 2 + 4 + 8 + 15));
        assert_eq!(guess(&guesses, tried("ANN", "192.0.2.8"), 1).await, S(15), "the same account and network");
        assert_eq!(wait(&guesses, tried("ann", "192.0.3.7")), Some(S(0)), "its holder, elsewhere");
        assert_eq!(wait(&guesses, tried("bob", "192.0.2.7")), Some(S(0)), "another account");
        // An hour's guessing does not pass one in 15 seconds.
        let took = guess(&guesses, stranger, 240).await;
        assert!(took >= S(3540), "{took:?}");
        // After some quiet all is forgotten.
        tokio::time::advance(S(15 * 60)).await;
        assert_eq!(wait(&guesses, stranger), Some(S(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_password_gets_in_behind_wrong_ones_and_clears_them() {
        let guesses = Guesses::default();
        let ann = tried("ann", "192.0.2.7");
        guess(&guesses, ann, 5).await;
        assert_eq!(wait(&guesses, ann), Some(S(1)));
        guesses.right(ann);
        assert_eq!(wait(&guesses, ann), Some(S(0)));
        assert!(matches!(guesses.lane(ann), Lane::KnownUser(_)));
        assert!(matches!(guesses.lane(tried("bob", "192.0.2.7")), Lane::Network(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_get_no_further_than_one_after_the_other() {
        let guesses = Guesses::default();
        let ann = tried("ann", "192.0.2.7");
        let passes: Vec<_> = (0..50).map(|_| guesses.admit(ann).expect("nothing has failed yet")).collect();
        let mut tried_out = 0;
        for pass in passes {
            if guesses.holds(pass, ann) {
                tried_out += 1;
                guesses.wrong(ann);
            }
        }
        assert_eq!(tried_out, PAIR.free);
        // The others ask again: they queue, and the queue has an end.
        let waits: Vec<_> = (0..100).map_while(|_| wait(&guesses, ann)).collect();
        assert!(waits.len() < 100 && waits.is_sorted() && waits.iter().all(|wait| *wait <= MAX_WAIT), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_cannot_try_all_accounts_and_slows_no_one_who_is_known() {
        let guesses = Guesses::default();
        guesses.right(tried("ann", "192.0.2.9"));
        for n in 0..NETWORK.free {
            guess(&guesses, tried(&format!("user{n}"), "192.0.2.7"), 1).await;
        }
        let again: Vec<_> = (0..3).map(|n| wait(&guesses, tried(&format!("x{n}"), "192.0.2.7")).expect("in")).collect();
        assert!(again.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(500)), "{again:?}");
        assert_eq!(wait(&guesses, tried("ann", "192.0.2.9")), Some(S(0)));
        assert_eq!(wait(&guesses, tried("x", "192.0.3.7")), Some(S(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_networks_slow_an_account_down_and_never_shut_it() {
        let guesses = Guesses::default();
        guesses.right(tried("ann", "198.51.100.1"));
        for n in 0..200 {
            guess(&guesses, tried("ann", &format!("10.0.{n}.1")), 1).await;
        }
        for n in 200..250 {
            assert_eq!(wait(&guesses, tried("ann", &format!("10.0.{n}.1"))), Some(S(2)), "side by side");
        }
        assert_eq!(wait(&guesses, tried("ann", "198.51.100.200")), Some(S(0)), "known there");
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_attempts_are_limited_in_number() {
        let guesses = Guesses::default();
        for n in 0..40_000_u32 {
            guesses.wrong(LoginAttempt::new("user", "ann", Ipv6Addr::from_bits(u128::from(n) << 64).into()));
        }
        let left = guesses.counts().len();
        assert!(left <= MOST && left > MOST / 4, "{left}");
    }

    #[test]
    fn networks_are_as_large_as_one_customer_s() {
        let network = |text: &str| Network::from(text.parse::<IpAddr>().expect(text));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.250"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::1"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
    }
}
