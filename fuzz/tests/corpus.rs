//! Runs what is kept in `corpus/` through each target: inputs that once found something, and ones that reach far.

use slipway_fuzz::TARGETS;

#[test]
fn the_corpus_breaks_no_target() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let mut seen = 0;
        for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus/{name}: {error}")) {
            let path = entry.expect("entry").path();
            target(&std::fs::read(&path).expect("readable"));
            seen += 1;
        }
        assert!(seen > 0, "corpus/{name} is empty");
    }
}

#[test]
fn every_target_has_a_program() {
    let targets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let programs = std::fs::read_dir(targets).expect("readable").count();
    assert_eq!(programs, TARGETS.len());
}
