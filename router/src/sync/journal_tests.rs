use slipway_protocol::digest::SetDigest;
use slipway_protocol::v1::Route;

use super::*;
use crate::sync::TableStore;

fn route(number: u64) -> Route {
    Route { id: format!("r{number}"), host: format!("h{number}.test"), ..Route::default() }
}

/// A store at version 1.`seq`, with `seq` routes: one snapshot, then deltas.
async fn grow(directory: &Path, cluster: Uuid, seq: u64) {
    let store = TableStore::open(directory, cluster).expect("open");
    let mut digest = SetDigest::default();
    let version = |seq| Some(Version::new(1, seq));
    digest.toggle_route(&route(1));
    let first = TableSnapshot {
        version: version(1),
        digest: digest.to_bytes(),
        routes: vec![route(1)],
        ..TableSnapshot::default()
    };
    store.apply_snapshot(&first).expect("snapshot");
    let mut durable = store.durable();
    durable.wait_for(|at| *at == version(1)).await.expect("durable");
    for number in 2..=seq {
        digest.toggle_route(&route(number));
        let delta = TableDelta {
            from: version(number - 1),
            to: version(number),
            digest: digest.to_bytes(),
            upsert_routes: vec![route(number)],
            ..TableDelta::default()
        };
        store.apply_delta(&delta).expect("delta");
        durable.wait_for(|at| *at == version(number)).await.expect("durable");
    }
    store.close();
}

fn held(directory: &Path, cluster: Uuid) -> Option<u64> {
    let store = TableStore::open(directory, cluster).expect("open");
    let table = store.current().load();
    assert_eq!(table.digest(), table.digest_anew());
    table.version().map(|version| version.seq)
}

#[tokio::test]
async fn a_table_survives_a_restart_and_a_torn_tail_loses_only_the_tail() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, file) = (Uuid::new_v4(), directory.path().join("table.journal"));
    assert_eq!(held(directory.path(), cluster), None);
    grow(directory.path(), cluster, 4).await;
    assert_eq!(held(directory.path(), cluster), Some(4));

    let good = std::fs::read(&file).expect("read");
    std::fs::write(&file, &good[..good.len() - 3]).expect("tear");
    assert_eq!(held(directory.path(), cluster), Some(3));

    let mut flipped = good.clone();
    let last = flipped.len() - 10;
    flipped[last] ^= 1;
    std::fs::write(&file, flipped).expect("flip");
    assert_eq!(held(directory.path(), cluster), Some(3));

    let sealer = Sealer::load_or_make(&directory.path().join("table.key"), cluster).expect("key");
    for cut in 0..good.len() {
        std::fs::write(&file, &good[..cut]).expect("cut");
        let bytes = std::fs::read(&file).expect("read");
        let seq = load(&bytes, cluster, &sealer).0.version().map_or(0, |version| version.seq);
        assert!(seq < 4, "{cut} bytes gave {seq}");
    }
}

#[tokio::test]
async fn another_clusters_table_is_not_used() {
    let directory = tempfile::tempdir().expect("directory");
    grow(directory.path(), Uuid::new_v4(), 1).await;
    assert_eq!(held(directory.path(), Uuid::new_v4()), None);
}

#[tokio::test]
async fn goes_on_after_a_restart() {
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Uuid::new_v4();
    grow(directory.path(), cluster, 2).await;
    let store = TableStore::open(directory.path(), cluster).expect("open");
    let mut digest = store.current().load().digest();
    digest.toggle_route(&route(3));
    let delta = TableDelta {
        from: Some(Version::new(1, 2)),
        to: Some(Version::new(1, 3)),
        digest: digest.to_bytes(),
        upsert_routes: vec![route(3)],
        ..TableDelta::default()
    };
    store.apply_delta(&delta).expect("delta");
    store.close();
    assert_eq!(held(directory.path(), cluster), Some(3));
}

#[tokio::test]
async fn nothing_of_the_table_is_readable_without_the_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Uuid::new_v4();
    let (file, key) = (directory.path().join("table.journal"), directory.path().join("table.key"));
    grow(directory.path(), cluster, 3).await;
    let raw = std::fs::read(&file).expect("read");
    for number in 1..=3 {
        let host = format!("h{number}.test");
        assert!(!raw.windows(host.len()).any(|window| window == host.as_bytes()), "{host} is in clear");
    }
    for path in [&file, &key] {
        let mode = std::fs::metadata(path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    // Another key, or none, opens nothing; the router starts all the same.
    for other in [Some(vec![7; 32]), Some(vec![7; 5]), None] {
        match other {
            Some(bytes) => std::fs::write(&key, bytes).expect("write"),
            None => std::fs::remove_file(&key).expect("remove"),
        }
        assert_eq!(held(directory.path(), cluster), None);
    }
    grow(directory.path(), cluster, 2).await;
    assert_eq!(held(directory.path(), cluster), Some(2));
}

#[tokio::test]
async fn a_table_that_an_older_version_left_in_clear_is_read_and_sealed() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, file) = (Uuid::new_v4(), directory.path().join("table.journal"));
    let mut digest = SetDigest::default();
    digest.toggle_route(&route(1));
    let snapshot = TableSnapshot {
        version: Some(Version::new(1, 1)),
        digest: digest.to_bytes(),
        routes: vec![route(1)],
        ..TableSnapshot::default()
    };
    let payload = snapshot.encode_to_vec();
    let mut old = [CLEAR.as_slice(), cluster.as_bytes()].concat();
    old.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    old.extend_from_slice(&crc32fast::hash(&[&[SNAPSHOT][..], payload.as_slice()].concat()).to_le_bytes());
    old.push(SNAPSHOT);
    old.extend_from_slice(&payload);
    for tail in [&b""[..], b"torn"] {
        std::fs::write(&file, [&old, tail].concat()).expect("write");
        assert_eq!(held(directory.path(), cluster), Some(1));
        // Nothing changed, and still what was in clear is gone.
        let now = std::fs::read(&file).expect("read");
        assert!(now.starts_with(MAGIC) && !now.windows(7).any(|window| window == b"h1.test"));
        assert_eq!(held(directory.path(), cluster), Some(1));
    }
}
