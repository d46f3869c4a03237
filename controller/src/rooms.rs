//! Which room of the controller may use which. They lie in one crate, so the compiler does not say it.
//!
//! `api` parses, authorises and presents; `domain` has the rules and the transactions; `store` has SQL; `values` knows
//! nobody. The pure part of placement is a crate of its own, where a wrong import does not compile.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// A room, what its files must not contain, and what to do instead.
const RULES: [(&str, &[&str], &str); 5] = [
    (
        "api",
        &["store.begin(", "store.commit(", "_tx(", "_tx,", "change_log", "event_record", "sqlx::query"],
        "put the transaction into `domain`, and call that",
    ),
    (
        "domain",
        &["crate::api", "crate::jobs", "crate::tasks", "crate::cells", "crate::routers", "crate::drains", "axum::"],
        "give it as an argument, or move what is shared into `domain` or `values`",
    ),
    (
        "store",
        &[
            "crate::api",
            "crate::domain",
            "crate::jobs",
            "crate::tasks",
            "crate::cells",
            "crate::routers",
            "axum::",
            "\"audit.",
        ],
        "values that SQL shares with rules, and what events say, lie in `values`",
    ),
    ("values", &["crate::api", "crate::domain", "crate::store", "sqlx::", "axum::"], "values know nobody"),
    ("jobs", &["crate::api", "crate::tasks", "axum::"], "what a job does is a rule of `domain`"),
];

fn sources(room: &str) -> Vec<PathBuf> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let files = WalkDir::new(&room).into_iter().map(|entry| entry.expect("a room that can be read").into_path());
    files.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// What stands in a file without its comments and without its tests, which may look at everything.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(at, line)| (at + 1, line))
}

#[test]
fn no_room_uses_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (room, forbidden, instead) in RULES {
        let files = sources(room);
        assert!(!files.is_empty(), "there is no room {room:?}");
        for path in files {
            let text = fs::read_to_string(&path).expect("a source");
            let name = path.strip_prefix(&root).expect("below src").display().to_string();
            for (line, code) in code(&text) {
                let wrong = forbidden.iter().filter(|word| code.contains(**word));
                found.extend(wrong.map(|word| format!("{name}:{line}: {word:?}: {instead}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
