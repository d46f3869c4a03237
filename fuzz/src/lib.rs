//! One function for each kind of bytes that strangers send. Each takes what comes and must return: no panic, no endless loop, no
//! memory that the input did not pay for. Where two readings must agree, they are compared.
//!
//! `tools/fuzz` searches with coverage; `cargo test -p slipway-fuzz` runs what is kept in `corpus/` again.

use std::path::Path;

use prost::Message;
use slipway_buildpacks::contract::BuildPlan;
use slipway_buildpacks::procfile;
use slipway_buildpacks::source::Listing;
use slipway_controller::api::label_selector;
use slipway_controller::api::list::{ListQuery, ListSpec};
use slipway_controller::cells::observation;
use slipway_controller::domain::manifest::{parse, yaml};
use slipway_layers::{Limits, LinkPolicy, elf, unpack_droplet, unpack_zip};
use slipway_log_ring::{Query, Reader, Writer};
use slipway_protocol::{PeerIdentity, v1};
use slipway_router::table::{Table, normal_host};

/// Small, so that a run is quick; the code that holds them is the same for any.
const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_entries: 100 };

/// Takes one input.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("tar", tar),
    ("zip", zip),
    ("elf", elf),
    ("manifest", manifest),
    ("query", query),
    ("host", host),
    ("ring", ring),
    ("cluster", cluster),
    ("answers", answers),
];

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for one input")
}

/// Nothing may lie outside of the tree, and no more in it than was allowed.
fn check(parent: &Path) {
    let names: Vec<_> =
        std::fs::read_dir(parent).expect("readable").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 2, "something was written beside the tree: {names:?}");
}

/// Droplets and build caches: a tar, compressed here, so that the search is spent on the tar.
pub fn tar(data: &[u8]) {
    let parent = directory();
    let (file, tree) = (parent.path().join("archive"), parent.path().join("tree"));
    std::fs::create_dir(&tree).expect("made");
    std::fs::write(&file, zstd::encode_all(data, 1).expect("compressed")).expect("written");
    if let Ok(made) = unpack_droplet(&file, "tar.zst", &tree, LIMITS, None) {
        assert!(made.bytes <= LIMITS.max_bytes, "{} bytes were unpacked", made.bytes);
    }
    check(parent.path());
}

/// Packages.
pub fn zip(data: &[u8]) {
    let parent = directory();
    let (file, tree) = (parent.path().join("archive"), parent.path().join("tree"));
    std::fs::create_dir(&tree).expect("made");
    std::fs::write(&file, data).expect("written");
    if let Ok(made) = unpack_zip(&file, &tree, LIMITS, LinkPolicy::Inside, None) {
        assert!(made.bytes <= LIMITS.max_bytes, "{} bytes were unpacked", made.bytes);
    }
    check(parent.path());
}

/// Programs and libraries of a droplet, read for the names of the libraries that they need.
pub fn elf(data: &[u8]) {
    let parent = directory();
    let file = parent.path().join("program");
    std::fs::write(&file, data).expect("written");
    drop(elf::dynamic(&file));
}

/// Manifests.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(document) = yaml::parse(text) {
        drop(parse::manifest(&document));
    }
}

/// Queries of lists, and label selectors.
pub fn query(data: &[u8]) {
    const SPEC: ListSpec = ListSpec {
        filters: &["names", "space_guids"],
        order: &["name"],
        include: &["space", "space.organization"],
        other: &["fields[space]"],
        labels: true,
    };
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(label_selector::parse(text));
    if let Ok(query) = ListQuery::parse(Some(text), &SPEC) {
        assert!((1..=5000).contains(&query.options.per_page) && query.options.page >= 1);
    }
}

/// Host names of requests.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = normal_host(text) {
        let again = normal_host(&name).map(|again| again.into_owned());
        // An IPv6 address needs its brackets.
        assert!(name.contains(':') || again.as_deref() == Ok(&*name), "{name:?} becomes {again:?}");
    }
}

/// Log rings, whose lines apps write and whose files a crash may cut anywhere.
pub fn ring(data: &[u8]) {
    let parent = directory();
    std::fs::write(parent.path().join("1.log"), data).expect("written");
    let lines = Reader::new(parent.path()).since(0, 1_000).unwrap_or_default();
    drop(Reader::new(parent.path()).range(Query { start_ns: 0, end_ns: i64::MAX, descending: true, limit: 1_000 }));
    // Whoever goes on writing there keeps what can be read.
    if let Ok(mut writer) = Writer::open(parent.path(), 1 << 20) {
        drop(writer.append(1, 0, b"the next line"));
        let after = Reader::new(parent.path()).since(0, 2_000).unwrap_or_default();
        assert!(after.len() >= lines.len().min(1), "lines were lost: {} of {}", after.len(), lines.len());
    }
}

/// Messages between controllers, cells and routers.
pub fn cluster(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 6 {
        0 => {
            if let Ok(v1::CellMessage { message: Some(v1::cell_message::Message::Observations(all)) }) =
                v1::CellMessage::decode(body)
            {
                for one in &all.observations {
                    drop(observation::check(one));
                }
            }
        }
        1 => drop(v1::CellCommand::decode(body)),
        2 => {
            if let Ok(snapshot) = v1::TableSnapshot::decode(body) {
                drop(Table::default().with_snapshot(&snapshot));
            }
        }
        3 => drop(v1::WorkloadSpec::decode(body)),
        4 => drop(v1::RouterMessage::decode(body)),
        _ => {
            drop(PeerIdentity::from_der(body));
            drop(PeerIdentity::addresses(body));
        }
    }
}

/// What a build leaves for the cell, and the files of the app that say what to run.
pub fn answers(data: &[u8]) {
    drop(serde_json::from_slice::<BuildPlan>(data));
    if let Ok(text) = std::str::from_utf8(data) {
        drop(procfile::read(&Listing::of(&[("Procfile", text)])));
    }
}
