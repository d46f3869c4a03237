//! The ring as writers and readers use it.

use std::io::Write as _;

use proptest::prelude::*;
use slipway_log_ring::{GAP, MAX_TEXT, Query, Reader, STDERR, Writer};

const ALL: Query = Query { start_ns: i64::MIN, end_ns: i64::MAX, descending: false, limit: usize::MAX };

fn size(directory: &std::path::Path) -> u64 {
    std::fs::read_dir(directory).expect("list").map(|entry| entry.expect("entry").metadata().expect("size").len()).sum()
}

#[test]
fn lines_come_back_in_both_directions() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(directory.path(), 1 << 20).expect("open");
    for number in 0..10_i64 {
        writer.append(number * 10, STDERR, format!("line {number}").as_bytes()).expect("append");
    }
    let reader = Reader::new(directory.path());
    let texts = |query| -> Vec<String> {
        let records = reader.range(query).expect("range");
        records.into_iter().map(|record| String::from_utf8(record.text).expect("utf8")).collect()
    };
    assert_eq!(texts(Query { start_ns: 20, end_ns: 50, ..ALL }), ["line 2", "line 3", "line 4"]);
    assert_eq!(texts(Query { descending: true, limit: 2, ..ALL }), ["line 9", "line 8"]);
    assert_eq!(reader.since(9, 10).expect("since").len(), 2);
}

#[test]
fn the_ring_stays_within_its_bound_and_numbers_go_on() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(directory.path(), 64 * 1024).expect("open");
    for number in 0..5_000_i64 {
        writer.append(number, 0, &[b'x'; 100]).expect("append");
    }
    assert!(size(directory.path()) <= 64 * 1024 + 200, "{}", size(directory.path()));
    let records = Reader::new(directory.path()).range(ALL).expect("range");
    assert_eq!(records.last().expect("some").seq, 5_000);
    assert!(records[1..].windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    drop(writer);
    let mut writer = Writer::open(directory.path(), 64 * 1024).expect("open again");
    assert_eq!(writer.append(0, 0, b"next").expect("append"), 5_001);
}

#[test]
fn many_lines_at_once_are_the_same_as_one_by_one() {
    let (one, other) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    let mut single = Writer::open(one.path(), 64 * 1024).expect("open");
    let mut batched = Writer::open(other.path(), 64 * 1024).expect("open");
    let texts: Vec<String> = (0..2_000).map(|number| format!("{number:0width$}", width = number % 90 + 1)).collect();
    for (number, text) in texts.iter().enumerate() {
        single.append(number as i64, 0, text.as_bytes()).expect("append");
    }
    for batch in texts.chunks(333).enumerate() {
        let first = batch.0 * 333;
        let lines = batch.1.iter().enumerate().map(|(place, text)| ((first + place) as i64, 0, text.as_bytes()));
        batched.append_all(lines).expect("append");
    }
    let read = |directory: &std::path::Path| Reader::new(directory).range(ALL).expect("range");
    assert_eq!(read(one.path()), read(other.path()));
    assert!(size(other.path()) <= 64 * 1024 + 200, "{}", size(other.path()));
}

#[test]
fn missing_lines_are_reported_at_their_position() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(directory.path(), 64 * 1024).expect("open");
    for number in 1..=5_000_i64 {
        writer.append(number, 0, &[b'x'; 100]).expect("append");
    }
    let reader = Reader::new(directory.path());
    let records = reader.range(ALL).expect("range");
    let (gap, oldest) = (&records[0], &records[1]);
    assert_eq!((gap.seq, gap.flags & GAP, gap.unix_ns), (0, GAP, oldest.unix_ns));
    let wanted = format!("{} lines are missing here", oldest.seq - 1);
    assert!(gap.text.starts_with(wanted.as_bytes()), "{}", String::from_utf8_lossy(&gap.text));
    assert_eq!(records.iter().filter(|record| record.flags & GAP != 0).count(), 1, "and nowhere else");
    let newest_first = reader.range(Query { descending: true, ..ALL }).expect("range");
    assert_eq!(newest_first.last(), Some(gap));
    // Who follows and saw the line before the gap hears of it, who saw the first one behind it does not.
    let first_from = |start_ns| reader.range(Query { start_ns, ..ALL }).expect("range").swap_remove(0).seq;
    assert_eq!(first_from(oldest.unix_ns), 0);
    assert_eq!(first_from(oldest.unix_ns + 1), oldest.seq + 1);
    assert!(reader.range(Query { descending: true, limit: 50, ..ALL }).expect("range").iter().all(|one| one.seq > 0));
}

#[test]
fn lines_that_the_disk_refused_are_reported_as_well() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(directory.path(), 1 << 20).expect("open");
    writer.append(1, 0, b"first").expect("append");
    let segment = std::fs::read_dir(directory.path()).expect("list").next().expect("one").expect("entry").path();
    let before = std::fs::read(&segment).expect("read");
    writer.append_all([(2, 0, b"refused".as_slice()), (3, 0, b"too")]).expect("append");
    // As if the disk had taken nothing.
    std::fs::write(&segment, before).expect("write");
    writer.append(4, 0, b"last").expect("append");
    let lines = |query| -> Vec<String> {
        let records = Reader::new(directory.path()).range(query).expect("range");
        records.into_iter().map(|record| String::from_utf8(record.text).expect("utf8")).collect()
    };
    let gap = "2 lines are missing here: the log could not hold them";
    assert_eq!(lines(ALL), ["first", gap, "last"]);
    assert_eq!(lines(Query { descending: true, ..ALL }), ["last", gap, "first"]);
    assert_eq!(lines(Query { end_ns: 4, ..ALL }), ["first"]);
}

#[test]
fn a_torn_tail_is_cut_off() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(directory.path(), 1 << 20).expect("open");
    writer.append(1, 0, b"good").expect("append");
    drop(writer);
    let segment = std::fs::read_dir(directory.path()).expect("list").next().expect("one").expect("entry").path();
    let mut file = std::fs::OpenOptions::new().append(true).open(&segment).expect("open");
    file.write_all(&[40, 0, 0, 0, 1, 2, 3]).expect("tear");
    assert_eq!(Reader::new(directory.path()).range(ALL).expect("range").len(), 1);
    let mut writer = Writer::open(directory.path(), 1 << 20).expect("open again");
    assert_eq!(writer.append(2, 0, b"after").expect("append"), 2);
    assert_eq!(Reader::new(directory.path()).range(ALL).expect("range").len(), 2);
}

#[test]
fn a_ring_that_does_not_exist_is_empty_and_long_lines_are_cut() {
    let directory = tempfile::tempdir().expect("tempdir");
    let inner = directory.path().join("ring");
    assert!(Reader::new(&inner).range(ALL).expect("range").is_empty());
    let mut writer = Writer::open(&inner, 1 << 20).expect("open");
    writer.append(1, 0, &vec![b'x'; MAX_TEXT * 2]).expect("append");
    assert_eq!(Reader::new(&inner).range(ALL).expect("range")[0].text.len(), MAX_TEXT);
}

proptest! {
    /// Whatever a damaged segment holds, reading neither fails nor panics, and never yields what was not written.
    #[test]
    fn damage_is_survived(place in 0_usize..400, value: u8) {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut writer = Writer::open(directory.path(), 1 << 20).expect("open");
        for number in 0..10_i64 {
            writer.append(number, 0, format!("line {number}").as_bytes()).expect("append");
        }
        let segment = std::fs::read_dir(directory.path()).expect("list").next().expect("one").expect("entry").path();
        let mut bytes = std::fs::read(&segment).expect("read");
        let place = place % bytes.len();
        bytes[place] = value;
        std::fs::write(&segment, &bytes).expect("write");
        for record in Reader::new(directory.path()).range(ALL).expect("range") {
            prop_assert_eq!(record.flags & GAP, 0, "damage cuts off what follows it");
            let text = String::from_utf8(record.text).expect("utf8");
            prop_assert_eq!(text, format!("line {}", record.seq - 1));
        }
    }
}
