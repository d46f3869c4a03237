//! Lines of one core that wait to be written, by app. Pure.

use std::collections::HashMap;
use std::sync::Arc;

/// Lines of one app, in their order.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// Time of each line, and where its text ends.
    ends: Vec<(i64, usize)>,
    /// Lines that found no room.
    pub(super) dropped: u64,
}

impl Lines {
    /// Time and text of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &[u8])> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (unix_ns, end))| (*unix_ns, &self.text[start..*end]))
    }

    fn give_up_newest(&mut self) {
        self.ends.pop();
        self.text.truncate(self.ends.last().map_or(0, |(_, end)| *end));
        self.dropped += 1;
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    apps: HashMap<Arc<str>, Lines>,
    bytes: usize,
    most: usize,
}

impl Waiting {
    /// Holds about `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { apps: HashMap::new(), bytes: 0, most }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// Bytes of all lines.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the line that `write` appends. Where there is no room, the app that takes most of it gives up its newest line,
    /// so that one app's flood costs that app. Returns how many lines were given up.
    pub(super) fn add(&mut self, app: &Arc<str>, unix_ns: i64, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let lines = match self.apps.get_mut(app) {
            Some(lines) => lines,
            None => self.apps.entry(Arc::clone(app)).or_default(),
        };
        let before = lines.text.len();
        write(&mut lines.text);
        lines.ends.push((unix_ns, lines.text.len()));
        self.bytes += lines.text.len() - before;
        let mut dropped = 0;
        while self.bytes > self.most {
            let Some(largest) = self.apps.values_mut().max_by_key(|lines| lines.text.len()) else { break };
            let before = largest.text.len();
            largest.give_up_newest();
            self.bytes -= before - largest.text.len();
            dropped += 1;
        }
        dropped
    }

    /// All that waits; nothing does afterwards.
    pub(super) fn take(&mut self) -> HashMap<Arc<str>, Lines> {
        self.bytes = 0;
        std::mem::take(&mut self.apps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(waiting: &mut Waiting, app: &str, unix_ns: i64, text: &str) -> u64 {
        waiting.add(&app.into(), unix_ns, |bytes| bytes.extend_from_slice(text.as_bytes()))
    }

    fn texts(lines: &Lines) -> Vec<(i64, String)> {
        lines.iter().map(|(at, text)| (at, String::from_utf8_lossy(text).into_owned())).collect()
    }

    #[test]
    fn lines_come_back_by_app_in_their_order() {
        let mut waiting = Waiting::new(1000);
        assert!(waiting.is_empty());
        for (app, at, text) in [("a", 1, "one"), ("b", 2, "two"), ("a", 3, ""), ("a", 4, "four")] {
            assert_eq!(add(&mut waiting, app, at, text), 0);
        }
        assert_eq!(waiting.bytes(), 10);
        let taken = waiting.take();
        assert_eq!(texts(&taken["a"]), [(1, "one".into()), (3, String::new()), (4, "four".into())]);
        assert_eq!(texts(&taken["b"]), [(2, "two".into())]);
        assert!(waiting.is_empty() && waiting.bytes() == 0);
    }

    #[test]
    fn a_flood_takes_no_room_from_neighbours() {
        let mut waiting = Waiting::new(1000);
        let mut dropped = 0;
        for number in 0..100 {
            dropped += add(&mut waiting, "flood", number, &"x".repeat(50));
            if number % 10 == 0 {
                assert!(add(&mut waiting, "quiet", number, "a line of ten") <= 1, "the flood makes room");
            }
            assert!(waiting.bytes() <= 1000);
        }
        assert!(dropped >= 80);
        let taken = waiting.take();
        assert_eq!((taken["quiet"].iter().count(), taken["quiet"].dropped), (10, 0));
        let flood = &taken["flood"];
        assert_eq!(flood.iter().count() as u64 + flood.dropped, 100, "each is there or counted");
        assert_eq!(texts(flood)[0].0, 0, "those that came first stay");
    }

    #[test]
    fn a_line_that_is_larger_than_the_room_is_counted() {
        let mut waiting = Waiting::new(10);
        assert_eq!(add(&mut waiting, "a", 1, &"x".repeat(11)), 1);
        assert_eq!((waiting.bytes(), waiting.is_empty()), (0, false), "what was dropped is still to be told");
        assert_eq!(waiting.take()["a"].dropped, 1);
    }
}
