//! npm's registries: which one a package is of, where its archives are, and the document of its versions with addresses that lead
//! back here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use super::digests::Expected;
use super::order::Order;
use super::paths::{Package, is_plain, mark};
use super::store::Label;
use super::upstream::Registry;

/// The document that an installation needs.
pub(super) const SHORT: &str = "application/vnd.npm.install-v1+json";
const LONG: &str = "application/json";
/// The longest of them have some tens of megabytes, with a thousand versions.
const MAX_DOCUMENT: u64 = 96 << 20;
/// Of an archive.
const MAX_ARCHIVE: u64 = 4 << 30;

/// All registries of npm.
#[derive(Debug)]
pub(super) struct Npm {
    pub(super) usual: Arc<Registry>,
    pub(super) scopes: BTreeMap<String, Arc<Registry>>,
    /// Where builds find them, with a slash at its end.
    pub(super) door: String,
}

/// An archive, as the document of its package names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) address: String,
    pub(super) expected: Option<Expected>,
}

impl Npm {
    pub(super) fn registry(&self, package: &Package) -> &Arc<Registry> {
        package.scope.as_ref().and_then(|scope| self.scopes.get(scope)).unwrap_or(&self.usual)
    }

    /// Paths of the registries themselves.
    pub(super) fn roots(&self) -> Vec<String> {
        self.scopes.values().chain([&self.usual]).map(|registry| registry.base.path().to_owned()).collect()
    }

    fn below(&self, package: &Package, path: &str) -> Option<Url> {
        let base = &self.registry(package).base;
        // What is put together of plain names stays below the registry.
        Url::parse(&format!("{base}{path}")).ok().filter(|url| url.as_str().starts_with(base.as_str()))
    }

    /// The document of a package's versions.
    pub(super) fn document(&self, package: &Package, long: bool) -> Option<Order> {
        let url = self.below(package, &package.encoded())?;
        Some(Order {
            key: format!("npm {} {url}", if long { "long" } else { "short" }),
            what: format!("npm package {}", package.path()),
            registry: Arc::clone(self.registry(package)),
            url,
            accept: if long { LONG } else { SHORT },
            most: MAX_DOCUMENT,
            expected: None,
            document: None,
            check: Some(check),
        })
    }

    /// An archive at an address that comes from a document, or follows from plain names.
    pub(super) fn archive(&self, package: &Package, archive: Archive) -> Option<Order> {
        let url = Url::parse(&archive.address).ok()?;
        let name = archive.expected.as_ref().map_or_else(|| url.to_string(), Expected::text);
        Some(Order {
            // A version that its registry has replaced is another file.
            key: format!("npm archive {} {name}", self.registry(package).base),
            what: format!("an archive of npm package {}", package.path()),
            registry: Arc::clone(self.registry(package)),
            url,
            accept: "*/*",
            most: MAX_ARCHIVE,
            expected: archive.expected,
            document: Some(self.document(package, false)?.url),
            check: None,
        })
    }

    /// Where an archive of this name usually is.
    pub(super) fn usual_place(&self, package: &Package, file: &str) -> Option<Url> {
        self.below(package, &format!("{}/-/{file}", package.path()))
    }

    /// Where a build finds an archive that a document names.
    fn address(&self, package: &Package, tarball: &str) -> String {
        let file =
            tarball.split(['?', '#']).next().and_then(|path| path.rsplit('/').next()).filter(|file| is_plain(file));
        let usual = file.and_then(|file| Some((file, self.usual_place(package, file)?)));
        match usual {
            Some((file, usual)) if usual.as_str() == tarball && file.ends_with(".tgz") => {
                format!("{}{}/-/{file}", self.door, package.path())
            }
            _ => {
                let file = file.unwrap_or("package.tgz");
                format!("{}{}/-/elsewhere/{}/{file}", self.door, package.path(), mark(tarball))
            }
        }
    }

    /// The document with addresses that lead back here.
    pub(super) fn rewritten(&self, package: &Package, document: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        // What follows knows that the text is one.
        serde_json::from_slice::<IgnoredAny>(document)?;
        replace_tarballs(document, |tarball| self.address(package, tarball))
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    dist: Option<Dist>,
}

#[derive(Deserialize)]
struct Dist {
    tarball: Option<String>,
    integrity: Option<String>,
    shasum: Option<String>,
}

/// Whether this is a document of a package. A page to log in at is none, nor is a document that ends in the middle.
fn check(_: &Label, document: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Outline {
        name: Option<IgnoredAny>,
        versions: Option<IgnoredAny>,
    }
    match serde_json::from_slice(document) {
        Ok(Outline { name: None, versions: None }) => Err("it names neither a package nor versions".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether an address of a document is that of a usual place, `path` below its registry. The hosts may differ: not all registries know
/// by which name they are reached.
pub(super) fn is_at(address: &str, path: &str) -> bool {
    let address = address.split(['?', '#']).next().unwrap_or_default().replace("%2f", "/").replace("%2F", "/");
    address.strip_suffix(path).is_some_and(|before| before.ends_with('/'))
}

/// The archive of a document whose address fits.
pub(super) fn archive_of(document: &[u8], fits: impl Fn(&str) -> bool) -> Option<Archive> {
    let document: Document = serde_json::from_slice(document).ok()?;
    document.versions.into_values().filter_map(|version| version.dist).find_map(|dist| {
        let address = dist.tarball.filter(|address| fits(address))?;
        let expected = dist.integrity.as_deref().and_then(Expected::of_integrity);
        let expected = expected.or_else(|| Expected::of_digits("sha1", dist.shasum.as_deref()?));
        Some(Archive { address, expected })
    })
}

/// Puts another text in the place of each `versions.*.dist.tarball` of a valid document. The rest stays as it is, byte for byte,
/// and no tree of it is made: in memory it would be ten times as large.
fn replace_tarballs(document: &[u8], replace: impl Fn(&str) -> String) -> Result<Vec<u8>, serde_json::Error> {
    const PLACE: [Option<&[u8]>; 4] = [Some(b"\"versions\""), None, Some(b"\"dist\""), Some(b"\"tarball\"")];
    let mut out = Vec::with_capacity(document.len() + document.len() / 8);
    // The key at which each open object or array stands; those of arrays stay empty.
    let mut keys: Vec<&[u8]> = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while at < document.len() {
        match document[at] {
            b'{' | b'[' => keys.push(b""),
            b'}' | b']' => drop(keys.pop()),
            b'"' => {
                let end = string_end(document, at);
                let text = &document[at..end];
                let is_key = document[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if is_key {
                    if let Some(key) = keys.last_mut() {
                        *key = text;
                    }
                } else if keys.len() == PLACE.len()
                    && keys.iter().zip(PLACE).all(|(key, wanted)| wanted.is_none_or(|wanted| *key == wanted))
                {
                    let tarball: String = serde_json::from_slice(text)?;
                    out.extend_from_slice(&document[copied..at]);
                    out.extend(serde_json::to_vec(&replace(&tarball))?);
                    copied = end;
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(&document[copied..]);
    Ok(out)
}

/// Behind the quote that ends the string which begins here.
fn string_end(text: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::credential::Credential;
    use super::*;

    fn registry(base: &str) -> Arc<Registry> {
        let base = Url::parse(base).expect("an address");
        Arc::new(Registry { name: "npm".to_owned(), base, credential: Credential::None, file_hosts: Vec::new() })
    }

    fn npm() -> Npm {
        Npm {
            usual: registry("https://npm.example/root/"),
            scopes: BTreeMap::from([("@corp".to_owned(), registry("https://corp.example/"))]),
            door: "http://10.62.0.1:4873/npm/".to_owned(),
        }
    }

    fn package(scope: Option<&str>, name: &str) -> Package {
        Package { scope: scope.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn a_package_is_of_its_scope_s_registry() {
        let npm = npm();
        let document = |package: &Package| npm.document(package, false).expect("an order").url.to_string();
        assert_eq!(document(&package(None, "six")), "https://npm.example/root/six");
        assert_eq!(document(&package(Some("@other"), "six")), "https://npm.example/root/@other%2fsix");
        assert_eq!(document(&package(Some("@corp"), "six")), "https://corp.example/@corp%2fsix");
        let place = npm.usual_place(&package(Some("@corp"), "six"), "six-1.0.0.tgz").expect("a place");
        assert_eq!(place.as_str(), "https://corp.example/@corp/six/-/six-1.0.0.tgz");
    }

    #[test]
    fn archives_lead_back_and_the_rest_stays() {
        let npm = npm();
        let elsewhere = "https://files.example/a/b.tgz?sig=1";
        let document = json!({
            "name": "six", "tarball": "https://npm.example/root/six/-/top.tgz",
            "dist-tags": { "latest": "1.0.0" },
            "versions": {
                "1.0.0": {
                    "name": "six", "description": "a \"tarball\": \"https://x/y.tgz\" \\",
                    "dist": { "tarball": "https://npm.example/root/six/-/six-1.0.0.tgz", "shasum": "x", "signatures": [{ "tarball": "z" }] },
                    "other": { "tarball": "https://stays.example/" },
                    "list": ["}", { "dist": { "tarball": "stays too" } }],
                },
                "2.0.0": { "dist": { "integrity": "sha512-", "tarball": elsewhere } },
            },
            "versions2": { "1.0.0": { "dist": { "tarball": "stays" } } },
        });
        let mut expected = document.clone();
        expected["versions"]["1.0.0"]["dist"]["tarball"] = "http://10.62.0.1:4873/npm/six/-/six-1.0.0.tgz".into();
        expected["versions"]["2.0.0"]["dist"]["tarball"] =
            format!("http://10.62.0.1:4873/npm/six/-/elsewhere/{}/b.tgz", mark(elsewhere)).into();
        for text in [serde_json::to_vec(&document), serde_json::to_vec_pretty(&document)] {
            let text = text.expect("a document");
            let rewritten = npm.rewritten(&package(None, "six"), &text).expect("rewritten");
            assert_eq!(serde_json::from_slice::<Value>(&rewritten).expect("a document"), expected);
            let found = archive_of(&text, |address| mark(address) == mark(elsewhere)).expect("an archive");
            assert_eq!(found, Archive { address: elsewhere.to_owned(), expected: None });
        }
        for broken in ["", "{", "{\"versions\": {\"1\": {\"dist\": {\"tarball\": \"\\", "not json"] {
            assert!(npm.rewritten(&package(None, "six"), broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_document_is_of_a_package_and_whole() {
        let label = Label {
            key: String::new(),
            length: 0,
            from: String::new(),
            etag: None,
            content_type: "application/json".to_owned(),
            digests: Default::default(),
            fetched: 0,
        };
        for (text, is_one) in [
            (r#"{"name": "six", "versions": {"1.0.0": {"dist": 5}}}"#, true),
            (r#"{"name": "six", "time": {"unpublished": {}}}"#, true),
            (r#"{"versions": {}}"#, true),
            (r#"{"error": "log in"}"#, false),
            (r#"{"name": "six", "versions": {"1.0.0": {"#, false),
            ("<!DOCTYPE html><a href=\"/login\">log in</a>", false),
            ("", false),
        ] {
            assert_eq!(check(&label, text.as_bytes()).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn a_usual_place_is_found_by_whatever_name_its_registry_has() {
        let path = "@corp/six/-/six-1.0.0.tgz";
        for (address, is_there) in [
            ("https://npm.example/@corp/six/-/six-1.0.0.tgz", true),
            ("http://10.0.0.7:8081/root/@corp%2fsix/-/six-1.0.0.tgz?x=1", true),
            ("https://npm.example/x@corp/six/-/six-1.0.0.tgz", false),
            ("https://npm.example/six/-/six-1.0.0.tgz", false),
            ("https://npm.example/x?/@corp/six/-/six-1.0.0.tgz", false),
        ] {
            assert_eq!(is_at(address, path), is_there, "{address}");
        }
    }

    #[test]
    fn an_archive_is_cached_by_its_registry_and_digest() {
        let npm = npm();
        let order = |scope: Option<&str>, expected| {
            let archive = Archive { address: "https://files.example/six.tgz".to_owned(), expected };
            npm.archive(&package(scope, "six"), archive).expect("an order")
        };
        let sha1 = |digit: &str| Some(Expected::Sha1(digit.repeat(40)));
        let key = order(None, sha1("1")).key;
        assert!(
            key.contains("https://npm.example/root/") && key.ends_with(&format!("sha1:{}", "1".repeat(40))),
            "{key}"
        );
        assert_ne!(key, order(None, sha1("2")).key);
        assert_ne!(key, order(Some("@corp"), sha1("1")).key);
        assert_eq!(order(None, None).document.map(String::from).as_deref(), Some("https://npm.example/root/six"));
    }

    #[test]
    fn an_archive_has_the_digest_of_its_document() {
        let document = json!({ "versions": {
            "1": { "dist": { "tarball": "a", "integrity": format!("sha1-{}", "A".repeat(27) + "="), "shasum": "1".repeat(40) } },
            "2": { "dist": { "tarball": "b", "shasum": "2".repeat(40) } },
            "3": { "dist": { "tarball": "c" } },
            "4": {},
        } });
        let text = document.to_string();
        let expected = |name: &str| archive_of(text.as_bytes(), |address| address == name).expect("one").expected;
        assert_eq!(expected("a"), Some(Expected::Sha1("0".repeat(40))));
        assert_eq!(expected("b"), Some(Expected::Sha1("2".repeat(40))));
        assert_eq!(expected("c"), None);
        assert_eq!(archive_of(text.as_bytes(), |address| address == "d"), None);
    }

    proptest::proptest! {
        #[test]
        fn rewriting_changes_nothing_else(keys in proptest::collection::vec("(versions|dist|tarball|[a\"\\\\{}:,]{0,3})", 1..6), text in "\\PC{0,12}") {
            let mut value = Value::String(text);
            for key in keys.iter().rev() {
                value = json!({ key.as_str(): value, "list": [1, "x", { "tarball": "y" }] });
            }
            let document = serde_json::to_vec(&value).expect("a document");
            let same = replace_tarballs(&document, str::to_owned).expect("rewritten");
            assert_eq!(serde_json::from_slice::<Value>(&same).expect("a document"), value);
        }
    }
}
