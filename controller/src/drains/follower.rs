//! Which lines of a read are new, and how many never came. Pure.

use std::collections::{HashMap, HashSet};

use slipway_protocol::v1::LogLine;

/// Where a drain is in the lines of its app.
#[derive(Debug)]
pub(super) struct Follower {
    /// Lines before this time were sent.
    position: i64,
    /// Lines at exactly this time that were sent already.
    at_position: HashSet<(String, u64)>,
    /// Last number seen of each ring.
    last: HashMap<String, u64>,
    lost: u64,
}

impl Follower {
    pub(super) fn new(position: i64) -> Self {
        Self { position, at_position: HashSet::new(), last: HashMap::new(), lost: 0 }
    }

    /// Time of the next line, at the earliest; Unix nanoseconds.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// Of a read, what is due and was not sent, oldest first. The words about a hole (they have no number) are left out where
    /// it is known how many are missing: the drain is told by [`Follower::missed`].
    pub(super) fn fresh(&self, mut lines: Vec<LogLine>, until: i64) -> Vec<LogLine> {
        lines.retain(|line| {
            (self.position..until).contains(&line.unix_ns)
                && !(line.unix_ns == self.position && self.at_position.contains(&(line.ring.clone(), line.seq)))
                && !(line.seq == 0 && self.last.contains_key(&line.ring))
        });
        lines.sort_by(|a, b| (a.unix_ns, &a.ring, a.seq).cmp(&(b.unix_ns, &b.ring, b.seq)));
        lines
    }

    /// How many lines of its ring are missing before this one.
    pub(super) fn missed(&self, line: &LogLine) -> u64 {
        self.last.get(&line.ring).map_or(0, |last| line.seq.saturating_sub(*last).saturating_sub(1))
    }

    /// A line is done, with this many lost on the way to it.
    pub(super) fn sent(&mut self, line: &LogLine, lost: u64) {
        if line.unix_ns > self.position {
            self.position = line.unix_ns;
            self.at_position.clear();
        }
        self.at_position.insert((line.ring.clone(), line.seq));
        if line.seq > 0 {
            let last = self.last.entry(line.ring.clone()).or_insert(line.seq);
            *last = line.seq.max(*last);
        }
        self.lost += lost;
    }

    /// Everything before `until` is done, unless the read was full: then there is more.
    pub(super) fn settled(&mut self, until: i64, full: bool) {
        if !full && until > self.position {
            self.position = until;
            self.at_position.clear();
        }
    }

    /// Lines lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(unix_ns: i64, ring: &str, seq: u64) -> LogLine {
        LogLine { unix_ns, ring: ring.into(), seq, ..LogLine::default() }
    }

    fn step(follower: &mut Follower, lines: Vec<LogLine>, until: i64, full: bool) -> Vec<(String, u64)> {
        let fresh = follower.fresh(lines, until);
        for line in &fresh {
            follower.sent(line, follower.missed(line));
        }
        follower.settled(until, full);
        fresh.into_iter().map(|line| (line.ring, line.seq)).collect()
    }

    #[test]
    fn every_line_comes_once_in_order() {
        let mut follower = Follower::new(10);
        let all = vec![line(9, "a", 1), line(30, "a", 4), line(10, "a", 2), line(20, "b", 1), line(20, "a", 3)];
        let sent = step(&mut follower, all.clone(), 25, false);
        assert_eq!(sent, [("a".into(), 2), ("a".into(), 3), ("b".into(), 1)]);
        assert_eq!(follower.position(), 25);
        assert_eq!(step(&mut follower, all.clone(), 40, false), [("a".into(), 4)]);
        assert_eq!(step(&mut follower, all, 50, false), []);
        assert_eq!(follower.take_lost(), 0);
    }

    #[test]
    fn a_full_read_goes_on_at_its_last_line() {
        let mut follower = Follower::new(0);
        assert_eq!(step(&mut follower, vec![line(5, "a", 1), line(5, "a", 2)], 100, true).len(), 2);
        assert_eq!(follower.position(), 5);
        // The next read begins at the same instant and holds what was sent.
        let again = vec![line(5, "a", 1), line(5, "a", 2), line(5, "a", 3), line(6, "a", 4)];
        assert_eq!(step(&mut follower, again, 100, false), [("a".into(), 3), ("a".into(), 4)]);
        assert_eq!(follower.position(), 100);
    }

    #[test]
    fn a_gap_before_the_first_line_of_a_ring_is_reported_by_the_cell_and_later_ones_by_the_drain() {
        let mut follower = Follower::new(0);
        assert_eq!(
            step(&mut follower, vec![line(5, "a", 0), line(5, "a", 30)], 10, false),
            [("a".into(), 0), ("a".into(), 30)]
        );
        assert_eq!(follower.take_lost(), 0);
        assert_eq!(step(&mut follower, vec![line(15, "a", 0), line(15, "a", 41)], 20, false), [("a".into(), 41)]);
        assert_eq!(follower.take_lost(), 10);
    }

    #[test]
    fn holes_are_counted_once() {
        let mut follower = Follower::new(0);
        step(&mut follower, vec![line(1, "a", 7)], 10, false);
        assert_eq!(follower.take_lost(), 0, "what was before the first is not known");
        step(&mut follower, vec![line(11, "a", 12), line(12, "b", 90)], 20, false);
        assert_eq!(follower.take_lost(), 4);
        assert_eq!(follower.take_lost(), 0);
    }
}
