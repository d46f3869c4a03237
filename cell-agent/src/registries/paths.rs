//! Parses the path of a build's request. Foreign code writes the path, so only the few forms below are accepted, and only
//! with plain names: no name can climb out of a directory, name another host or carry a query.

/// Longer paths name no package.
const MAX_PATH: usize = 2048;

/// What a build may request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PackageRequest {
    /// Versions of an npm package.
    NpmPackage(Package),
    /// An archive at its usual place below the package.
    NpmArchive { package: Package, file: String },
    /// An archive that the package's versions name at another place, by the mark of its address.
    NpmElsewhere { package: Package, mark: String },
    /// An archive that a lock file names as its registry does; `path` is below the registry's host.
    NpmLocked { package: Package, path: String },
    /// Files of a Python project.
    PypiProject(String),
    /// One of them, by the mark of its address; `metadata`: what the project says of the file.
    PypiFile { project: String, mark: String, metadata: bool },
}

/// Name of an npm package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// With its `@`.
    pub(super) scope: Option<String>,
    pub(super) name: String,
}

impl Package {
    /// As it stands in an address of the registry's.
    pub(super) fn encoded(&self) -> String {
        self.scope.as_ref().map_or_else(|| self.name.clone(), |scope| format!("{scope}%2f{}", self.name))
    }

    /// With a plain slash.
    pub(super) fn path(&self) -> String {
        self.scope.as_ref().map_or_else(|| self.name.clone(), |scope| format!("{scope}/{}", self.name))
    }
}

/// A segment of a path that can be nothing but a name.
pub(super) fn is_plain(segment: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._~!'()*+-".contains(c);
    !segment.is_empty() && segment.len() <= 512 && !segment.starts_with('.') && segment.chars().all(plain)
}

fn is_scope(segment: &str) -> bool {
    segment.strip_prefix('@').is_some_and(is_plain)
}

/// The short form of an address in the proxy's own addresses.
pub(super) fn mark(address: &str) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(address)[..16])
}

fn is_mark(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a path asks for. `roots`: paths of the npm registries themselves, which npm puts before a package when a lock file names
/// their hosts.
pub(super) fn parse(path: &str, roots: &[String]) -> Option<PackageRequest> {
    if path.len() > MAX_PATH {
        return None;
    }
    let mut segments = Vec::new();
    for segment in path.strip_prefix('/')?.split('/') {
        segments.push(decoded(segment)?);
    }
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["npm", rest @ ..] => {
            // `@corp%2fname` is one segment.
            let rest: Vec<&str> = rest.iter().flat_map(|segment| segment.split('/')).collect();
            npm(&rest)
                .or_else(|| {
                    roots.iter().find_map(|root| {
                        let root: Vec<&str> = root.split('/').filter(|part| !part.is_empty()).collect();
                        rest.strip_prefix(root.as_slice()).filter(|_| !root.is_empty()).and_then(npm)
                    })
                })
                .or_else(|| locked(&rest))
        }
        ["pypi", "simple", project] | ["pypi", "simple", project, ""] => {
            Some(PackageRequest::PypiProject(normal(project)?))
        }
        ["pypi", "files", project, mark, file] if is_mark(mark) && is_plain(file) => Some(PackageRequest::PypiFile {
            project: normal(project).filter(|normal| normal == project)?,
            mark: (*mark).to_owned(),
            metadata: file.ends_with(".metadata"),
        }),
        _ => None,
    }
}

fn npm(segments: &[&str]) -> Option<PackageRequest> {
    let (scope, rest) = match segments {
        [scope, rest @ ..] if is_scope(scope) => (Some((*scope).to_owned()), rest),
        rest => (None, rest),
    };
    let (name, rest) = rest.split_first().filter(|(name, _)| is_plain(name) && **name != "-")?;
    let package = Package { scope, name: (*name).to_owned() };
    match rest {
        [] => Some(PackageRequest::NpmPackage(package)),
        ["-", file] if is_plain(file) && file.ends_with(".tgz") => {
            Some(PackageRequest::NpmArchive { package, file: (*file).to_owned() })
        }
        ["-", "elsewhere", mark, file] if is_mark(mark) && is_plain(file) => {
            Some(PackageRequest::NpmElsewhere { package, mark: (*mark).to_owned() })
        }
        _ => None,
    }
}

/// Some registries have archives at places that begin with other words than the package, such as `download/@corp/name/1.0.0/DIGEST`.
/// Only where a scope tells which segment is the package.
fn locked(segments: &[&str]) -> Option<PackageRequest> {
    let at = segments.iter().position(|segment| is_scope(segment))?;
    let name = segments.get(at + 1).filter(|name| is_plain(name) && **name != "-")?;
    let all_plain = segments.iter().all(|segment| is_plain(segment) || is_scope(segment));
    (at > 0 && segments.len() > at + 2 && all_plain).then(|| PackageRequest::NpmLocked {
        package: Package { scope: Some(segments[at].to_owned()), name: (*name).to_owned() },
        path: format!("/{}", segments.join("/")),
    })
}

/// A segment without its escapes. They are taken out once: what is an escape after that is no name.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            text.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits =
            std::str::from_utf8(&digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        text.push(u8::from_str_radix(digits, 16).ok()?);
    }
    let text = String::from_utf8(text).ok()?;
    // A slash that was escaped stands between a scope and its name, and nowhere else.
    match text.split_once('/') {
        Some((scope, name)) if is_scope(scope) && is_plain(name) => Some(text),
        Some(_) => None,
        None => Some(text),
    }
}

/// The name of a Python project as indexes write it (PEP 503).
fn normal(project: &str) -> Option<String> {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || "._-".contains(c);
    if project.len() > 256 || !project.starts_with(edge) || !project.ends_with(edge) || !project.chars().all(inner) {
        return None;
    }
    let words = project.split(['.', '_', '-']).filter(|word| !word.is_empty());
    Some(words.collect::<Vec<_>>().join("-").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(scope: Option<&str>, name: &str) -> Package {
        Package { scope: scope.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn requests_of_package_managers_are_parsed() {
        let roots = ["/".to_owned(), "/artifactory/api/npm/main/".to_owned()];
        let left_pad = || package(None, "left-pad");
        let thing = || package(Some("@corp"), "thing");
        let archive = |package, file: &str| PackageRequest::NpmArchive { package, file: file.to_owned() };
        let mark = "0123456789abcdef0123456789abcdef";
        for (path, wanted) in [
            ("/npm/left-pad", PackageRequest::NpmPackage(left_pad())),
            ("/npm/@corp%2fthing", PackageRequest::NpmPackage(thing())),
            ("/npm/@corp%2Fthing", PackageRequest::NpmPackage(thing())),
            ("/npm/@corp/thing", PackageRequest::NpmPackage(thing())),
            ("/npm/%40corp%2fthing", PackageRequest::NpmPackage(thing())),
            ("/npm/left-pad/-/left-pad-1.0.0.tgz", archive(left_pad(), "left-pad-1.0.0.tgz")),
            ("/npm/@corp/thing/-/thing-1.0.0-rc.1+x.tgz", archive(thing(), "thing-1.0.0-rc.1+x.tgz")),
            ("/npm/artifactory/api/npm/main/left-pad/-/left-pad-1.0.0.tgz", archive(left_pad(), "left-pad-1.0.0.tgz")),
            ("/npm/npm", PackageRequest::NpmPackage(package(None, "npm"))),
            (
                &format!("/npm/left-pad/-/elsewhere/{mark}/x.tgz"),
                PackageRequest::NpmElsewhere { package: left_pad(), mark: mark.to_owned() },
            ),
            (
                "/npm/download/@corp/thing/1.0.0/abc",
                PackageRequest::NpmLocked { package: thing(), path: "/download/@corp/thing/1.0.0/abc".to_owned() },
            ),
            ("/pypi/simple/Foo.Bar_baz/", PackageRequest::PypiProject("foo-bar-baz".to_owned())),
            ("/pypi/simple/six", PackageRequest::PypiProject("six".to_owned())),
            (
                &format!("/pypi/files/six/{mark}/six-1.0-py3-none-any.whl"),
                PackageRequest::PypiFile { project: "six".to_owned(), mark: mark.to_owned(), metadata: false },
            ),
            (
                &format!("/pypi/files/six/{mark}/six-1.0-py3-none-any.whl.metadata"),
                PackageRequest::PypiFile { project: "six".to_owned(), mark: mark.to_owned(), metadata: true },
            ),
        ] {
            assert_eq!(parse(path, &roots), Some(wanted), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let roots = ["/root/".to_owned()];
        let mark = "0123456789abcdef0123456789abcdef";
        for path in [
            "",
            "/",
            "npm/left-pad",
            "//npm/left-pad",
            "/npm",
            "/npm/",
            "/npm//left-pad",
            "/npm/..",
            "/npm/../pypi/simple/six/",
            "/npm/%2e%2e",
            "/npm/%2e%2e/x",
            "/npm/%252e%252e",
            "/npm/a%2fb",
            "/npm/a%2f..%2fb",
            "/npm/@corp%2f..",
            "/npm/@corp%2f%2e%2e",
            "/npm/@..%2fx",
            "/npm/@corp%2fx%2fy",
            "/npm/@corp%5cx",
            "/npm/a%",
            "/npm/a%2",
            "/npm/a%zz",
            "/npm/a%+1",
            "/npm/a%00b",
            "/npm/a%0d%0ab",
            "/npm/a%3fb",
            "/npm/a%23b",
            "/npm/a b",
            "/npm/a\\b",
            "/npm/-/whoami",
            "/npm/-/npm/v1/security/advisories/bulk",
            "/npm/-/all",
            "/npm/-/v1/search",
            "/npm/-/user/org.couchdb.user:x",
            "/npm/left-pad/1.0.0",
            "/npm/left-pad/-/x.json",
            "/npm/left-pad/-/../x.tgz",
            "/npm/left-pad/-/elsewhere/short/x.tgz",
            "/npm/left-pad/-rev/1",
            "/npm/http://other.example/x",
            "/npm/root/../x",
            "/npm/.npmrc",
            "/npm/download/@corp/../thing/x",
            "/npm/download/@corp/thing",
            "/pypi/simple/",
            "/pypi/simple/..",
            "/pypi/simple/-x/",
            "/pypi/simple/six/../x/",
            "/pypi/simple/six/x",
            "/pypi/simple/%2e%2e/",
            &format!("/pypi/files/Six/{mark}/x.whl"),
            &format!("/pypi/files/six/{}/x.whl", mark.to_uppercase()),
            &format!("/pypi/files/six/{mark}/.."),
            &format!("/pypi/files/six/{mark}/"),
            "http://other.example/npm/left-pad",
            "/other",
            &format!("/npm/{}", "a".repeat(4096)),
        ] {
            assert_eq!(parse(path, &roots), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_through_is_plain(path in "(/npm|/pypi/simple|/pypi/files)(/[@%.a2eF/ -]{0,6}){1,5}") {
            let plain = |package: &Package| {
                is_plain(&package.name) && package.scope.as_deref().is_none_or(is_scope)
            };
            match parse(&path, &["/a/".to_owned()]) {
                Some(PackageRequest::NpmPackage(package) | PackageRequest::NpmElsewhere { package, .. }) => assert!(plain(&package)),
                Some(PackageRequest::NpmArchive { package, file }) => assert!(plain(&package) && is_plain(&file)),
                Some(PackageRequest::NpmLocked { package, path }) => {
                    assert!(plain(&package) && path.split('/').skip(1).all(|part| is_plain(part) || is_scope(part)));
                }
                Some(PackageRequest::PypiProject(project) | PackageRequest::PypiFile { project, .. }) => {
                    assert_eq!(normal(&project).as_deref(), Some(project.as_str()));
                }
                None => {}
            }
        }
    }
}
