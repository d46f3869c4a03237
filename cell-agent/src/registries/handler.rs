//! Handles a build's request: from its path to the response.

use std::sync::Arc;

use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::answers::{Body, Made, Source, document, is_known, streamed, tag_of, unchanged};
use super::fault::Fault;
use super::fetch::{Fetched, Fetcher};
use super::guests::Guest;
use super::npm::{self, Archive, Npm};
use super::order::Order;
use super::paths::{self, Package, PackageRequest, mark};
use super::pypi::{self, Page, Pypi};
use super::store::CachedFile;

/// See the module.
#[derive(Debug)]
pub(super) struct RequestHandler {
    fetcher: Arc<Fetcher>,
    npm: Option<Arc<Npm>>,
    pypi: Option<Arc<Pypi>>,
    roots: Vec<String>,
}

impl RequestHandler {
    pub(super) fn new(fetcher: Fetcher, npm: Option<Npm>, pypi: Option<Pypi>) -> Self {
        let roots = npm.as_ref().map(Npm::roots).unwrap_or_default();
        let (npm, pypi) = (npm.map(Arc::new), pypi.map(Arc::new));
        Self { fetcher: Arc::new(fetcher), npm, pypi, roots }
    }

    /// The answer to one request of a build.
    pub(super) async fn answer<T>(&self, request: &Request<T>, guest: &Arc<Guest>) -> Result<Response<Body>, Fault> {
        if request.method() != Method::GET {
            return Err(Fault::method());
        }
        let uri = request.uri();
        // With a host in it, it is meant for a proxy that goes anywhere.
        if uri.authority().is_some() || uri.query().is_some() {
            return Err(unknown());
        }
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let headers = request.headers();
        let wanted = paths::parse(uri.path(), &self.roots).ok_or_else(unknown)?;
        match (wanted, &self.npm, &self.pypi) {
            (PackageRequest::NpmPackage(package), Some(npm), _) => {
                self.package(npm, package, !accept.contains(npm::SHORT), headers, guest).await
            }
            (PackageRequest::PypiProject(project), _, Some(pypi)) => {
                self.project(pypi, project, accept.contains(pypi::JSON), headers, guest).await
            }
            (wanted, ..) => {
                let order = self.order(&wanted, guest).await?;
                let key = order.key.clone();
                match self.file(order, guest).await {
                    // The document was in doubt then. The registry's newest one may name another file.
                    Err(fault) if fault.is_mismatch => {
                        let order = self.order(&wanted, guest).await?;
                        if order.key == key { Err(fault) } else { self.file(order, guest).await }
                    }
                    found => found,
                }
            }
        }
    }

    /// Where a file is, and what it must be.
    async fn order(&self, wanted: &PackageRequest, guest: &Guest) -> Result<Order, Fault> {
        match (wanted, &self.npm, &self.pypi) {
            (PackageRequest::NpmArchive { package, file }, Some(npm), _) => {
                // A lock file names archives without asking for documents, and the document knows the digest.
                let path = format!("{}/-/{file}", package.path());
                let named = self.named(npm, package, move |address| npm::is_at(address, &path), guest).await;
                let expected = match named {
                    Ok(archive) => archive.expected,
                    // Some registries have archives that no document names.
                    Err(fault) if fault.status == StatusCode::NOT_FOUND => None,
                    Err(fault) => return Err(fault),
                };
                let address = npm.usual_place(package, file).ok_or_else(unknown)?.to_string();
                npm.archive(package, Archive { address, expected }).ok_or_else(unknown)
            }
            (PackageRequest::NpmElsewhere { package, mark: wanted }, Some(npm), _) => {
                let wanted = wanted.clone();
                let archive = self.named(npm, package, move |address| mark(address) == wanted, guest).await?;
                npm.archive(package, archive).ok_or_else(unknown)
            }
            (PackageRequest::NpmLocked { package, path }, Some(npm), _) => {
                let wanted = npm.registry(package).base.join(path).map_err(|_| unknown())?;
                let archive = self.named(npm, package, move |address| address == wanted.as_str(), guest).await?;
                npm.archive(package, archive).ok_or_else(unknown)
            }
            (PackageRequest::PypiFile { project, mark, metadata }, _, Some(pypi)) => {
                self.project_file(pypi, project, mark, *metadata, guest).await
            }
            _ => Err(unknown()),
        }
    }

    async fn package(
        &self,
        npm: &Arc<Npm>,
        package: Package,
        long: bool,
        headers: &HeaderMap,
        guest: &Guest,
    ) -> Result<Response<Body>, Fault> {
        let order = npm.document(&package, long).ok_or_else(Fault::busy)?;
        let registry = Arc::clone(&order.registry);
        let cached = match self.fetcher.whole(order, guest).await {
            // The other form says what an installation needs as well.
            Err(fault) if fault.status == StatusCode::GATEWAY_TIMEOUT => {
                let other = npm.document(&package, !long).and_then(|order| self.fetcher.cached(&order.key));
                other.ok_or(fault)?
            }
            found => found?,
        };
        let tag = tag_of(&cached, &npm.door);
        if is_known(headers, &tag) {
            return Ok(unchanged(tag));
        }
        let (npm, fetcher, name) = (Arc::clone(npm), Arc::clone(&self.fetcher), package.path());
        let share = Arc::clone(&guest.share);
        let made = self.read(&cached, move |content| {
            npm.rewritten(&package, &content).map(|rewritten| Made::of(rewritten, &fetcher, &share))
        });
        let made = made.await?.map_err(|error| {
            Fault::upstream(&registry, format!("sends no document of versions for {name}: {error}"))
        })?;
        Ok(document(made?, if long { "application/json" } else { npm::SHORT }, tag))
    }

    async fn project(
        &self,
        pypi: &Arc<Pypi>,
        project: String,
        as_json: bool,
        headers: &HeaderMap,
        guest: &Guest,
    ) -> Result<Response<Body>, Fault> {
        let order = pypi.page(&project).ok_or_else(Fault::busy)?;
        let cached = self.fetcher.whole(order.clone(), guest).await?;
        let form = if as_json { "json" } else { "html" };
        // Offline it depends on what else is kept.
        let tag = tag_of(&cached, &if self.fetcher.is_offline() { format!("{form} offline") } else { form.to_owned() });
        if is_known(headers, &tag) {
            return Ok(unchanged(tag));
        }
        let (index, fetcher, share) = (Arc::clone(pypi), Arc::clone(&self.fetcher), Arc::clone(&guest.share));
        let made = self.page(pypi, &project, &cached, move |mut page| {
            page.keep_metadata(|file| index.file(&order, file, true).is_some_and(|order| fetcher.can_have(&order)));
            let (door, fetcher, share) = (&index.door, &fetcher, &share);
            Made::of(if as_json { page.as_json(door) } else { page.as_html(door) }, fetcher, share)
        });
        Ok(document(made.await??, if as_json { pypi::JSON } else { "text/html; charset=utf-8" }, tag))
    }

    /// What `work` makes of a project's page.
    async fn page<T: Send + 'static>(
        &self,
        pypi: &Arc<Pypi>,
        project: &str,
        cached: &Arc<CachedFile>,
        work: impl FnOnce(Page) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let (name, label) = (project.to_owned(), cached.label.clone());
        let done =
            self.read(cached, move |content| Page::read(&name, &label.content_type, &label.from, &content).map(work));
        done.await?
            .map_err(|error| Fault::upstream(&pypi.registry, format!("sends no page of files for {project}: {error}")))
    }

    /// The archive that the document of its package names: of the one that is here, or else of the one that its registry has now.
    async fn named(
        &self,
        npm: &Arc<Npm>,
        package: &Package,
        fits: impl Fn(&str) -> bool + Clone + Send + 'static,
        guest: &Guest,
    ) -> Result<Archive, Fault> {
        let forms = [false, true].into_iter().filter_map(|long| npm.document(package, long));
        for cached in self.fetcher.newest(forms) {
            let fits = fits.clone();
            if let Some(archive) = self.read(&cached, move |content| npm::archive_of(&content, fits)).await? {
                return Ok(archive);
            }
        }
        let order = npm.document(package, false).ok_or_else(Fault::busy)?;
        let cached = self.fetcher.whole(order, guest).await?;
        let text = || format!("npm package {} has no archive of this address", package.path());
        let found = self.read(&cached, move |content| npm::archive_of(&content, fits)).await?;
        found.ok_or_else(|| Fault::not_found(text()))
    }

    async fn project_file(
        &self,
        pypi: &Arc<Pypi>,
        project: &str,
        mark: &str,
        metadata: bool,
        guest: &Guest,
    ) -> Result<Order, Fault> {
        let unknown = || Fault::not_found(format!("Python project {project} has no file of this address"));
        let order = pypi.page(project).ok_or_else(unknown)?;
        let named = async |cached: Arc<CachedFile>| {
            let mark = mark.to_owned();
            self.page(pypi, project, &cached, move |page| page.file(&mark).cloned()).await
        };
        if let Some(cached) = self.fetcher.known(&order)
            && let Some(file) = named(cached).await?
        {
            return pypi.file(&order, &file, metadata).ok_or_else(unknown);
        }
        let cached = self.fetcher.whole(order.clone(), guest).await?;
        named(cached).await?.and_then(|file| pypi.file(&order, &file, metadata)).ok_or_else(unknown)
    }

    async fn read<T: Send + 'static>(
        &self,
        cached: &CachedFile,
        work: impl FnOnce(Vec<u8>) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        self.fetcher.read(&cached.file, cached.label.length, work).await
    }

    async fn file(&self, order: Order, guest: &Arc<Guest>) -> Result<Response<Body>, Fault> {
        let found = self.fetcher.find(order, guest).await?;
        let length = match &found {
            Fetched::Whole(cached) => Some(cached.label.length),
            Fetched::Growing { length, .. } => *length,
        };
        let mut response = Response::new(streamed(Source::Fetched(found, Arc::clone(guest))));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(response)
    }
}

fn unknown() -> Fault {
    Fault::not_found("there is nothing of this name: only packages and their files are here")
}
