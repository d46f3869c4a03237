use super::*;

fn build() -> Arc<Share> {
    Arc::new(Share::new())
}

fn put(store: &Arc<Store>, key: &str, content: &[u8]) -> io::Result<CachedFile> {
    let mut draft = store.draft(&build())?;
    draft.write(content)?;
    draft.keep(Label {
        key: key.to_owned(),
        length: content.len() as u64,
        from: "https://npm.example/x".to_owned(),
        etag: Some("\"1\"".to_owned()),
        content_type: "text/plain".to_owned(),
        digests: Digests::default(),
        fetched: 0,
    })
}

fn opened(root: &Path, limit: u64) -> Arc<Store> {
    Arc::new(Store::open(root, limit, false).expect("a store"))
}

#[test]
fn complete_files_survive_a_restart_and_partial_ones_are_removed() {
    let home = tempfile::tempdir().expect("directory");
    let root = home.path().join("registries");
    let store = opened(&root, 64 << 20);
    assert!(store.get("one").is_none());
    put(&store, "one", b"content").expect("kept");
    put(&store, "one", b"newer content").expect("kept");
    let mut half = store.draft(&build()).expect("a draft");
    half.write(b"half").expect("written");
    let half = half.file.take().expect("a file").keep().expect("left behind");
    let again = opened(&root, 64 << 20);
    let cached = again.get("one").expect("kept");
    assert_eq!(
        (content(&cached.file, cached.label.length).expect("read"), cached.label.etag.as_deref()),
        (b"newer content".to_vec(), Some("\"1\""))
    );
    assert!(!half.1.exists(), "a draft of an agent that was killed");
    again.remove("one");
    assert!(again.get("one").is_none() && opened(&root, 64 << 20).get("one").is_none());
    assert_eq!(content(&cached.file, 13).expect("held open"), b"newer content");
}

#[test]
fn the_least_recently_used_file_is_evicted_first() {
    let home = tempfile::tempdir().expect("directory");
    let store = opened(home.path(), 8 << 20);
    let large = vec![7; 3 << 20];
    put(&store, "a", &large).expect("kept");
    put(&store, "b", &large).expect("kept");
    assert!(store.get("a").is_some());
    put(&store, "c", &large).expect("kept");
    assert!(store.get("b").is_none(), "a was used later");
    assert!(store.get("a").is_some() && store.get("c").is_some());
    let error = put(&store, "d", &vec![7; 9 << 20]).expect_err("larger than everything");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(store.lock().reserved, 0);
    assert!(store.get("a").is_some() && store.get("c").is_some(), "what finds no room takes nothing with it");
    put(&store, "e", &large).expect("there is room again");
    assert!(store.lock().bytes <= store.limit());
    drop(store);
    assert!(opened(home.path(), 0).get("e").is_none(), "a smaller bound holds at once");
}

#[test]
fn a_damaged_file_is_dropped() {
    let home = tempfile::tempdir().expect("directory");
    let store = opened(home.path(), 64 << 20);
    put(&store, "one", b"content").expect("kept");
    let path = store.path(&name_of("one"));
    let whole = std::fs::read(&path).expect("read");
    for damaged in [&whole[..whole.len() - 1], &whole[1..], b"", b"SWR1", b"\xff\xff\xff\xffSWR1"] {
        put(&store, "one", b"content").expect("kept");
        std::fs::write(&path, damaged).expect("written");
        assert!(store.get("one").is_none());
        assert!(!path.exists());
    }
    put(&store, "two", b"content").expect("kept");
    put(&store, "one", b"content").expect("kept");
    std::fs::copy(store.path(&name_of("two")), &path).expect("copied");
    assert!(store.get("one").is_none(), "what lies under another's name is not it");
}

#[test]
fn answers_take_nothing_of_the_cache() {
    let home = tempfile::tempdir().expect("directory");
    let store = opened(home.path(), 8 << 20);
    put(&store, "a", &vec![7; 7 << 20]).expect("kept");
    let (share, piece) = (build(), vec![7; 64 << 20]);
    let mut answer = store.answer(&share).expect("a draft");
    answer.write(&piece).expect("written");
    assert!(store.get("a").is_some());
    let held: Vec<Draft> = (0..3)
        .map(|_| {
            let mut answer = store.answer(&share).expect("a draft");
            answer.reserve(64 << 20).expect("room");
            answer
        })
        .collect();
    let more = |share: &Arc<Share>| store.answer(share).expect("a draft").reserve(1);
    assert!(more(&share).expect_err("more than one build may have").to_string().contains("256 MiB of this build"));
    more(&build()).expect("another build's");
    drop((held, answer));
    more(&share).expect("there is room again");
    assert_eq!((store.lock().answers, share.answers.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn one_build_has_a_part_of_the_cache_under_way() {
    let home = tempfile::tempdir().expect("directory");
    let store = opened(home.path(), 16 << 20);
    put(&store, "a", b"content").expect("kept");
    let share = build();
    let mut drafts: Vec<Draft> = (0..2).map(|_| store.draft(&share).expect("a draft")).collect();
    for draft in &mut drafts {
        draft.reserve(4 << 20).expect("room");
    }
    assert_eq!(drafts[0].reserve(6 << 20).expect_err("more").kind(), io::ErrorKind::StorageFull);
    store.draft(&build()).expect("a draft").reserve(7 << 20).expect("another build's");
    drop(drafts);
    store.draft(&share).expect("a draft").reserve(9 << 20).expect("a single file");
    assert!(store.get("a").is_some());
}

#[test]
fn an_offline_store_evicts_nothing() {
    let home = tempfile::tempdir().expect("directory");
    put(&opened(home.path(), 8 << 20), "a", &vec![7; 7 << 20]).expect("kept");
    let store = Arc::new(Store::open(home.path(), 4 << 20, true).expect("a store"));
    assert_eq!(put(&store, "b", b"content").expect_err("no room").kind(), io::ErrorKind::StorageFull);
    store.remove("a");
    assert!(store.get("a").is_some());
    std::fs::write(store.path(&name_of("a")), "damaged").expect("written");
    assert!(store.get("a").is_none() && store.path(&name_of("a")).exists());
}

#[test]
fn uncached_downloads_keep_their_space_until_they_are_read() {
    let home = tempfile::tempdir().expect("directory");
    let store = opened(home.path(), 8 << 20);
    let label = put(&store, "a", b"content").expect("kept").label;
    let mut draft = store.draft(&build()).expect("a draft");
    draft.write(b"other").expect("written");
    let handed = draft.hand_on(Label { length: 5, ..label });
    assert_eq!((content(&handed.file, 5).expect("read"), store.lock().reserved), (b"other".to_vec(), PIECE));
    drop(handed);
    assert_eq!(store.lock().reserved, 0);
    assert_eq!(content(&store.get("a").expect("kept").file, 7).expect("read"), b"content");
}
