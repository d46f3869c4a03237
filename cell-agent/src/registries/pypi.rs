//! The index of Python projects: its pages as HTML (PEP 503) or JSON (PEP 691), with addresses that lead back here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::digests::Expected;
use super::html::{anchors, escaped};
use super::order::Order;
use super::paths::{is_plain, mark};
use super::store::Label;
use super::upstream::Registry;

pub(super) const JSON: &str = "application/vnd.pypi.simple.v1+json";
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";
const MAX_PAGE: u64 = 64 << 20;
const MAX_FILE: u64 = 4 << 30;
const MAX_METADATA: u64 = 16 << 20;

/// The index.
#[derive(Debug)]
pub(super) struct Pypi {
    pub(super) registry: Arc<Registry>,
    /// Where builds find files, with a slash at its end.
    pub(super) door: String,
}

/// A project's files.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    project: String,
    files: Vec<ProjectFile>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ProjectFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requires_python: Option<String>,
    /// Why it was taken back, or whether.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    yanked: Option<Value>,
    /// Digests of the metadata beside the file, or whether there is some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    core_metadata: Option<Value>,
    /// The same by its older name. Indexes say both (PEP 714).
    #[serde(default, skip_serializing)]
    dist_info_metadata: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upload_time: Option<String>,
}

/// Names of packages' files, as pip and older programs know them.
const PACKAGES: [&str; 8] = [".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".egg", ".exe"];

/// Whether this is a page of a project. A page to log in at has links, too, but none to a package.
fn check(label: &Label, content: &[u8]) -> Result<(), String> {
    let page = Page::read("", &label.content_type, &label.from, content)?;
    let is_package = |file: &ProjectFile| PACKAGES.iter().any(|end| file.filename.ends_with(end));
    let says_so = || String::from_utf8_lossy(content).contains("pypi:repository-version");
    if label.content_type.contains("json") || page.files.iter().any(is_package) || says_so() {
        return Ok(());
    }
    Err("it has no link to a package".to_owned())
}

#[derive(Deserialize)]
struct JsonPage {
    files: Vec<Value>,
}

impl Page {
    /// Reads a page that came from an address. Files whose names no path can hold are left out.
    pub(super) fn read(project: &str, content_type: &str, from: &str, content: &[u8]) -> Result<Self, String> {
        let from = Url::parse(from).map_err(|error| error.to_string())?;
        let found = if content_type.contains("json") {
            let page: JsonPage = serde_json::from_slice(content).map_err(|error| error.to_string())?;
            // An index may say of one file what nobody understands, and the others are good all the same.
            page.files.into_iter().filter_map(|file| serde_json::from_value(file).ok()).collect()
        } else {
            let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
            anchors(text).iter().filter_map(|anchor| of_html(&anchor.attributes)).collect::<Vec<ProjectFile>>()
        };
        let absolute = |mut file: ProjectFile| {
            let mut url = from.join(&file.url).ok()?;
            url.set_fragment(None);
            file.url = url.into();
            file.core_metadata = file.core_metadata.or(file.dist_info_metadata.take());
            is_plain(&file.filename).then_some(file)
        };
        Ok(Self { project: project.to_owned(), files: found.into_iter().filter_map(absolute).collect() })
    }

    pub(super) fn file(&self, mark_of_file: &str) -> Option<&ProjectFile> {
        self.files.iter().find(|file| mark(&file.url) == mark_of_file)
    }

    /// Announces metadata of those files alone that this holds for: pip does not go on to a file whose metadata is not there.
    pub(super) fn keep_metadata(&mut self, is_there: impl Fn(&ProjectFile) -> bool) {
        for file in &mut self.files {
            if file.core_metadata.is_some() && !is_there(file) {
                file.core_metadata = None;
            }
        }
    }

    fn moved(&self, door: &str) -> impl Iterator<Item = ProjectFile> {
        self.files.iter().map(move |file| ProjectFile {
            url: format!("{door}{}/{}/{}", self.project, mark(&file.url), file.filename),
            ..file.clone()
        })
    }

    /// With addresses that lead back here.
    pub(super) fn as_json(&self, door: &str) -> Vec<u8> {
        let files: Vec<ProjectFile> = self.moved(door).collect();
        json!({ "meta": { "api-version": "1.0" }, "name": self.project, "files": files }).to_string().into_bytes()
    }

    /// The same for older clients.
    pub(super) fn as_html(&self, door: &str) -> Vec<u8> {
        let mut page = format!(
            "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>{0}</title></head>\n<body>\n",
            escaped(&self.project)
        );
        for file in self.moved(door) {
            let digest =
                ["sha256", "sha512", "sha384", "sha1", "md5"].iter().find_map(|name| file.hashes.get_key_value(*name));
            let digest = digest.map(|(name, digits)| format!("#{name}={digits}")).unwrap_or_default();
            _ = write!(page, "<a href=\"{}\"", escaped(&format!("{}{digest}", file.url)));
            if let Some(wanted) = &file.requires_python {
                _ = write!(page, " data-requires-python=\"{}\"", escaped(wanted));
            }
            match &file.yanked {
                Some(Value::String(why)) => _ = write!(page, " data-yanked=\"{}\"", escaped(why)),
                Some(Value::Bool(true)) => page += " data-yanked=\"\"",
                _ => {}
            }
            if let Some(value) = file.metadata_text() {
                _ = write!(page, " data-core-metadata=\"{0}\" data-dist-info-metadata=\"{0}\"", escaped(&value));
            }
            _ = writeln!(page, ">{}</a><br>", escaped(&file.filename));
        }
        (page + "</body></html>\n").into_bytes()
    }
}

fn of_html(attributes: &BTreeMap<String, String>) -> Option<ProjectFile> {
    let url = attributes.get("href")?.clone();
    let (place, fragment) = url.split_once('#').unwrap_or((&url, ""));
    let path = place.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    // What is escaped in a file's name is the plus of local versions, in practice.
    let filename = name.replace("%2B", "+").replace("%2b", "+").replace("%21", "!");
    let hashes = fragment.split('&').filter_map(|part| part.split_once('='));
    let hashes = hashes.filter(|(name, _)| ["sha256", "sha512", "sha384", "sha1", "md5"].contains(name));
    let metadata = attributes.get("data-core-metadata").or_else(|| attributes.get("data-dist-info-metadata"));
    let core_metadata = metadata.map(|text| match text.split_once('=') {
        Some((name, digits)) => json!({ name: digits }),
        None => Value::Bool(text != "false"),
    });
    Some(ProjectFile {
        filename,
        hashes: hashes.map(|(name, digits)| (name.to_owned(), digits.to_owned())).collect(),
        requires_python: attributes.get("data-requires-python").cloned(),
        yanked: attributes.get("data-yanked").cloned().map(Value::String),
        core_metadata,
        dist_info_metadata: None,
        size: None,
        upload_time: None,
        url,
    })
}

impl ProjectFile {
    fn has_metadata(&self) -> bool {
        matches!(self.core_metadata, Some(Value::Bool(true) | Value::Object(_)))
    }

    fn metadata_text(&self) -> Option<String> {
        let digest = self.core_metadata.as_ref()?.get("sha256").and_then(Value::as_str);
        self.has_metadata().then(|| digest.map_or_else(|| "true".to_owned(), |digits| format!("sha256={digits}")))
    }

    fn expected(&self) -> Option<Expected> {
        let strongest = ["sha512", "sha384", "sha256", "sha1"];
        strongest.iter().find_map(|name| Expected::of_digits(name, self.hashes.get(*name)?))
    }
}

impl Pypi {
    /// The page of a project.
    pub(super) fn page(&self, project: &str) -> Option<Order> {
        let url = Url::parse(&format!("{}{project}/", self.registry.base)).ok()?;
        Some(Order {
            key: format!("pypi page {url}"),
            what: format!("Python project {project}"),
            registry: Arc::clone(&self.registry),
            url,
            accept: ACCEPT,
            most: MAX_PAGE,
            expected: None,
            document: None,
            check: Some(check),
        })
    }

    /// A file of a project, or what its index says of it.
    pub(super) fn file(&self, page: &Order, file: &ProjectFile, metadata: bool) -> Option<Order> {
        let mut url = Url::parse(&file.url).ok()?;
        let mut expected = file.expected();
        if metadata {
            let digits = file.core_metadata.as_ref().filter(|_| file.has_metadata())?.get("sha256");
            expected = digits.and_then(Value::as_str).and_then(|digits| Expected::of_digits("sha256", digits));
            url.set_path(&format!("{}.metadata", url.path()));
        }
        // The same file of two addresses is kept once.
        let name = expected.as_ref().map_or_else(|| url.to_string(), Expected::text);
        Some(Order {
            key: format!("pypi file {} {name}", self.registry.base),
            what: format!("the file {}{}", file.filename, if metadata { ".metadata" } else { "" }),
            registry: Arc::clone(&self.registry),
            url,
            accept: "*/*",
            most: if metadata { MAX_METADATA } else { MAX_FILE },
            expected,
            document: Some(page.url.clone()),
            check: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::Credential;
    use super::*;

    const FROM: &str = "https://pypi.example/simple/six/";
    const DOOR: &str = "http://10.62.0.1:4873/pypi/files/";

    fn pypi() -> Pypi {
        let registry = Registry {
            name: "pypi".to_owned(),
            base: Url::parse("https://pypi.example/simple/").expect("an address"),
            credential: Credential::None,
            file_hosts: Vec::new(),
        };
        Pypi { registry: Arc::new(registry), door: DOOR.to_owned() }
    }

    fn html() -> String {
        format!(
            "<a href=\"https://files.example/six-1.0-py3-none-any.whl#sha256={0}\" data-requires-python=\"&gt;=3\" \
             data-core-metadata=\"sha256={1}\">six</a>\
             <a href=\"../../files/six-2.0%2Blocal.tar.gz#md5=1\" data-yanked=\"it&#39;s bad\">six</a>\
             <a href=\"https://files.example/a%20b.whl\">no plain name</a>",
            "a".repeat(64),
            "b".repeat(64)
        )
    }

    #[test]
    fn both_forms_of_a_page_say_the_same() {
        let of_html = Page::read("six", "text/html; charset=utf-8", FROM, html().as_bytes()).expect("a page");
        assert_eq!(of_html.files.len(), 2);
        assert_eq!(of_html.files[1].url, "https://pypi.example/files/six-2.0%2Blocal.tar.gz");
        assert_eq!(of_html.files[1].filename, "six-2.0+local.tar.gz");
        // What builds get leads back here, in both forms.
        let json = of_html.as_json(DOOR);
        let moved = Page::read("six", JSON, FROM, &json).expect("a page");
        assert_eq!(moved.files, Page::read("six", "text/html", FROM, &of_html.as_html(DOOR)).expect("a page").files);
        for (file, before) in moved.files.iter().zip(&of_html.files) {
            assert_eq!(file.url, format!("{DOOR}six/{}/{}", mark(&before.url), before.filename));
            assert_eq!((&file.hashes, &file.yanked), (&before.hashes, &before.yanked));
            assert_eq!((&file.requires_python, &file.core_metadata), (&before.requires_python, &before.core_metadata));
        }
        let text = String::from_utf8(of_html.as_html(DOOR)).expect("text");
        assert!(text.contains(&format!("six-1.0-py3-none-any.whl#sha256={}\"", "a".repeat(64))), "{text}");
        assert!(!text.contains("files.example") && text.contains("data-yanked=\"it&#39;s bad\""), "{text}");
    }

    #[test]
    fn a_page_of_pypi_is_read_with_what_is_new_and_what_is_odd() {
        let page = json!({ "meta": { "api-version": "1.4" }, "name": "six", "versions": ["1.0"], "files": [
            { "filename": "six-1.0.tar.gz", "url": "https://files.example/six-1.0.tar.gz", "hashes": { "sha256": "c".repeat(64) },
              "requires-python": null, "size": 7, "upload-time": "2020-01-01T00:00:00Z", "yanked": false, "core-metadata": false,
              "provenance": null },
            { "filename": 5 },
            { "filename": "six-1.0-py3-none-any.whl", "url": "six-1.0-py3-none-any.whl",
              "core-metadata": { "sha256": "d".repeat(64) }, "dist-info-metadata": true },
            { "filename": "six-0.9-py3-none-any.whl", "url": "six-0.9-py3-none-any.whl", "dist-info-metadata": true },
        ] });
        let read = Page::read("six", "application/vnd.pypi.simple.v1+json", FROM, page.to_string().as_bytes())
            .expect("a page");
        assert_eq!((read.files.len(), read.files[0].size), (3, Some(7)));
        let metadata = |number: usize| read.files[number].core_metadata.clone().expect("metadata");
        assert_eq!((metadata(1), metadata(2)), (json!({ "sha256": "d".repeat(64) }), Value::Bool(true)));
        assert!(
            Page::read("six", JSON, FROM, b"{}").is_err() && Page::read("six", "text/html", FROM, b"\xff").is_err()
        );
    }

    #[test]
    fn a_page_names_packages_or_says_that_it_is_one() {
        let is_one = |content_type: &str, content: &str| {
            let label = Label {
                key: String::new(),
                length: 0,
                from: FROM.to_owned(),
                etag: None,
                content_type: content_type.to_owned(),
                digests: Default::default(),
                fetched: 0,
            };
            check(&label, content.as_bytes()).is_ok()
        };
        assert!(is_one("text/html", &html()) && is_one("", &html()) && is_one(JSON, "{\"files\": []}"));
        assert!(is_one("text/html", "<meta name=\"pypi:repository-version\" content=\"1.0\">"));
        assert!(!is_one("text/html", "<form><a href=\"/forgotten\">forgotten</a></form>"));
        assert!(!is_one(JSON, &html()) && !is_one(JSON, "{\"message\": \"log in\"}"));
    }

    #[test]
    fn files_are_cached_by_their_digest_and_found_by_their_address() {
        let page = Page::read("six", "text/html", FROM, html().as_bytes()).expect("a page");
        let pypi = pypi();
        let page_order = pypi.page("six").expect("an order");
        let wheel = page.file(&mark("https://files.example/six-1.0-py3-none-any.whl")).expect("a file");
        let order = pypi.file(&page_order, wheel, false).expect("an order");
        assert!(order.key.ends_with(&format!(" sha256:{}", "a".repeat(64))), "{}", order.key);
        let metadata = pypi.file(&page_order, wheel, true).expect("an order");
        assert_eq!(metadata.url.as_str(), "https://files.example/six-1.0-py3-none-any.whl.metadata");
        assert_eq!(metadata.expected, Some(Expected::Sha256("b".repeat(64))));
        let archive = page.file(&mark("https://pypi.example/files/six-2.0%2Blocal.tar.gz")).expect("a file");
        assert!(pypi.file(&page_order, archive, true).is_none(), "no metadata was named");
        assert_eq!(pypi.file(&page_order, archive, false).expect("an order").expected, None);
        assert!(page.file(&mark("https://files.example/other.whl")).is_none());
    }
}
