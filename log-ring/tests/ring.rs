//! The ring as writers and readers use it.

use std::io::Write as _;

use proptest::prelude::*;
use slipway_log_ring::{MAX_TEXT, Query, Reader, STDERR, Writer};

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
    assert!(records.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    drop(writer);
    let mut writer = Writer::open(directory.path(), 64 * 1024).expect("open again");
    assert_eq!(writer.append(0, 0, b"next").expect("append"), 5_001);
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
            let text = String::from_utf8(record.text).expect("utf8");
            prop_assert_eq!(text, format!("line {}", record.seq - 1));
        }
    }
}
