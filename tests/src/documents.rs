//! Documents that name tests as their proof.

use std::path::{Path, PathBuf};

use crate::Platform;

const DOCUMENTS: [&str; 2] = ["docs/BAD-INPUT.md", "docs/threat-model.md"];

/// Files with this ending, below a directory.
fn files_below(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            files_below(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

/// `place/file.rs::name`, in backquotes.
fn named(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|words| words.split_once(".rs::").filter(|(_, name)| !name.contains(' '))).collect()
}

#[test]
fn tests_that_documents_name_are_there() {
    let mut files = Vec::new();
    files_below(Platform::repository(), "rs", &mut files);
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(Platform::repository().join(document)).expect("a document");
        let named = named(&text);
        assert!(named.len() > 20, "{document} names {} tests", named.len());
        for (place, name) in named {
            // The beginning of a long path may be left out.
            let file = format!("{}.rs", place.rsplit("…/").next().unwrap_or(place));
            let name = name.rsplit("::").next().unwrap_or(name);
            let there = files.iter().filter(|path| path.ends_with(&file)).any(|path| {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                text.contains(&format!("fn {name}("))
            });
            if !there {
                wrong.push(format!("{document}: {file} has no {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_found_in_text() {
    assert_eq!(named("by `a/b.rs::c`, `x.rs` and `d.rs::e::f`"), [("a/b", "c"), ("d", "e::f")]);
}

/// The places in the repository that a page links to, without the part behind `#`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let places = targets.filter(|target| !target.contains("://")).filter_map(|target| target.split('#').next());
    places.filter(|place| !place.is_empty())
}

#[test]
fn links_of_pages_lead_to_files() {
    let root = Platform::repository();
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    files_below(&root.join("docs"), "md", &mut pages);
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page");
        let directory = page.parent().expect("a directory");
        for place in links(&text) {
            count += 1;
            if !directory.join(place).exists() {
                wrong.push(format!("{}: {place}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 30, "{count} links");
}
