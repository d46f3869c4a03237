//! Answers a build's request: from its path to what it gets.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, watch};

use super::fault::Fault;
use super::fetch::{Fetcher, Found, Order, Progress};
use super::guests::Guest;
use super::npm::{self, Archive, Npm};
use super::paths::{self, Package, Wanted, mark};
use super::pypi::{self, Page, Pypi};
use super::store::Kept;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Documents that are read at a time: each may take some tens of megabytes of memory.
const READING: usize = 2;
/// Read from the disk at once.
const PIECE: u64 = 256 << 10;
/// So much of a file that is still coming is held back until it is known to be what it should be.
const HELD_BACK: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    fetcher: Arc<Fetcher>,
    npm: Option<Npm>,
    pypi: Option<Pypi>,
    roots: Vec<String>,
    reading: Semaphore,
}

impl Desk {
    pub(super) fn new(fetcher: Fetcher, npm: Option<Npm>, pypi: Option<Pypi>) -> Self {
        let roots = npm.as_ref().map(Npm::roots).unwrap_or_default();
        Self { fetcher: Arc::new(fetcher), npm, pypi, roots, reading: Semaphore::new(READING) }
    }

    /// The answer to one request of a build.
    pub(super) async fn answer<T>(&self, request: &Request<T>, guest: &Guest) -> Result<Response<Body>, Fault> {
        if request.method() != Method::GET {
            return Err(Fault::method());
        }
        let unknown = || Fault::not_found("there is nothing of this name: only packages and their files are here");
        let uri = request.uri();
        // With a host in it, it is meant for a proxy that goes anywhere.
        if uri.authority().is_some() || uri.query().is_some() {
            return Err(unknown());
        }
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let headers = request.headers();
        let wanted = paths::parse(uri.path(), &self.roots).ok_or_else(unknown)?;
        match (wanted, &self.npm, &self.pypi) {
            (Wanted::NpmPackage(package), Some(npm), _) => {
                self.package(npm, package, !accept.contains(npm::SHORT), headers, guest).await
            }
            (Wanted::NpmArchive { package, file }, Some(npm), _) => {
                let address = npm.usual_place(&package, &file).ok_or_else(unknown)?.to_string();
                let known = self.known(npm, &package, address).await?;
                self.file(npm.archive(&package, known).ok_or_else(unknown)?, guest).await
            }
            (Wanted::NpmElsewhere { package, mark: wanted }, Some(npm), _) => {
                let archive = self.named(npm, &package, move |address| mark(address) == wanted, guest).await?;
                self.file(npm.archive(&package, archive).ok_or_else(unknown)?, guest).await
            }
            (Wanted::NpmLocked { package, path }, Some(npm), _) => {
                let wanted = npm.registry(&package).base.join(&path).map_err(|_| unknown())?;
                let archive = self.named(npm, &package, move |address| address == wanted.as_str(), guest).await?;
                self.file(npm.archive(&package, archive).ok_or_else(unknown)?, guest).await
            }
            (Wanted::PypiProject(project), _, Some(pypi)) => {
                self.project(pypi, project, accept.contains(pypi::JSON), headers, guest).await
            }
            (Wanted::PypiFile { project, mark, metadata }, _, Some(pypi)) => {
                let order = self.project_file(pypi, &project, &mark, metadata, guest).await?;
                self.file(order, guest).await
            }
            _ => Err(unknown()),
        }
    }

    async fn package(
        &self,
        npm: &Npm,
        package: Package,
        long: bool,
        headers: &HeaderMap,
        guest: &Guest,
    ) -> Result<Response<Body>, Fault> {
        let order = npm.document(&package, long).ok_or_else(Fault::busy)?;
        let registry = Arc::clone(&order.registry);
        let kept = match self.fetcher.whole(order, guest).await {
            // The other form says what an installation needs as well.
            Err(fault) if fault.status == StatusCode::GATEWAY_TIMEOUT => {
                let other = npm.document(&package, !long).and_then(|order| self.fetcher.kept(&order.key));
                other.ok_or(fault)?
            }
            found => found?,
        };
        let tag = tag_of(&kept, &npm.door);
        if is_known(headers, &tag) {
            return Ok(unchanged(tag));
        }
        let content = self.read(&kept).await?;
        let rewritten = npm.rewritten(&package, &content).map_err(|error| {
            Fault::upstream(&registry, format!("sends no document of versions for {}: {error}", package.path()))
        })?;
        Ok(document(rewritten, if long { "application/json" } else { npm::SHORT }, tag))
    }

    async fn project(
        &self,
        pypi: &Pypi,
        project: String,
        as_json: bool,
        headers: &HeaderMap,
        guest: &Guest,
    ) -> Result<Response<Body>, Fault> {
        let order = pypi.page(&project).ok_or_else(Fault::busy)?;
        let kept = self.fetcher.whole(order, guest).await?;
        let tag = tag_of(&kept, if as_json { "json" } else { "html" });
        if is_known(headers, &tag) {
            return Ok(unchanged(tag));
        }
        let page = self.page(pypi, &project, &kept).await?;
        Ok(match as_json {
            true => document(page.as_json(&pypi.door), pypi::JSON, tag),
            false => document(page.as_html(&pypi.door), "text/html; charset=utf-8", tag),
        })
    }

    async fn page(&self, pypi: &Pypi, project: &str, kept: &Arc<Kept>) -> Result<Page, Fault> {
        let content = self.read(kept).await?;
        let label = &kept.label;
        Page::read(project, &label.content_type, &label.from, &content)
            .map_err(|error| Fault::upstream(&pypi.registry, format!("sends no page of files for {project}: {error}")))
    }

    /// The archive at its usual place, with its digest where the document of its package is here. A lock file names archives without
    /// asking for documents, and its digests are npm's to check.
    async fn known(&self, npm: &Npm, package: &Package, address: String) -> Result<Archive, Fault> {
        let plain = Archive { address, expected: None };
        let order = npm.archive(package, plain.clone());
        if order.and_then(|order| self.fetcher.kept(&order.key)).is_some_and(|kept| kept.label.checked) {
            return Ok(plain);
        }
        for long in [false, true] {
            let kept = npm.document(package, long).and_then(|order| self.fetcher.kept(&order.key));
            let Some(kept) = kept else { continue };
            let content = self.read(&kept).await?;
            if let Some(archive) = npm::archive_of(&content, |address| address == plain.address) {
                return Ok(archive);
            }
        }
        Ok(plain)
    }

    /// The archive that the document of its package names: of the one that is here, or else of the one that its registry has now.
    async fn named(
        &self,
        npm: &Npm,
        package: &Package,
        fits: impl Fn(&str) -> bool,
        guest: &Guest,
    ) -> Result<Archive, Fault> {
        for long in [false, true] {
            let kept = npm.document(package, long).and_then(|order| self.fetcher.kept(&order.key));
            let Some(kept) = kept else { continue };
            let content = self.read(&kept).await?;
            if let Some(archive) = npm::archive_of(&content, &fits) {
                return Ok(archive);
            }
        }
        let order = npm.document(package, false).ok_or_else(Fault::busy)?;
        let kept = self.fetcher.whole(order, guest).await?;
        let content = self.read(&kept).await?;
        let text = || format!("npm package {} has no archive of this address", package.path());
        npm::archive_of(&content, fits).ok_or_else(|| Fault::not_found(text()))
    }

    async fn project_file(
        &self,
        pypi: &Pypi,
        project: &str,
        mark: &str,
        metadata: bool,
        guest: &Guest,
    ) -> Result<Order, Fault> {
        let unknown = || Fault::not_found(format!("Python project {project} has no file of this address"));
        let order = pypi.page(project).ok_or_else(unknown)?;
        if let Some(kept) = self.fetcher.kept(&order.key) {
            let page = self.page(pypi, project, &kept).await?;
            if let Some(file) = page.file(mark) {
                return pypi.file(file, metadata).ok_or_else(unknown);
            }
        }
        let kept = self.fetcher.whole(order, guest).await?;
        let page = self.page(pypi, project, &kept).await?;
        page.file(mark).and_then(|file| pypi.file(file, metadata)).ok_or_else(unknown)
    }

    async fn read(&self, kept: &Arc<Kept>) -> Result<Vec<u8>, Fault> {
        let Ok(_turn) = self.reading.acquire().await else { return Err(Fault::busy()) };
        let kept = Arc::clone(kept);
        let read = tokio::task::spawn_blocking(move || kept.read()).await;
        read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| Fault::host(&error))
    }

    async fn file(&self, order: Order, guest: &Guest) -> Result<Response<Body>, Fault> {
        let found = self.fetcher.find(order, guest).await?;
        let length = match &found {
            Found::Whole(kept) => Some(kept.label.length),
            Found::Growing { length, .. } => *length,
        };
        let body = StreamBody::new(pieces(found).map_ok(Frame::data)).boxed_unsync();
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(response)
    }
}

/// The content of a file, as it comes.
fn pieces(found: Found) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((found, 0), |(mut found, at)| async move {
        loop {
            let (file, available, ended) = match &mut found {
                Found::Whole(kept) => (Arc::clone(&kept.file), kept.label.length, true),
                Found::Growing { file, progress, .. } => {
                    let (available, ended) = available(progress)?;
                    (Arc::clone(file), available, ended)
                }
            };
            if at < available {
                let length = usize::try_from((available - at).min(PIECE)).map_err(io::Error::other)?;
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; length];
                    file.read_exact_at(&mut piece, at)?;
                    Ok::<_, io::Error>(piece)
                });
                let piece = read.await.map_err(io::Error::other)??;
                return Ok(Some((Bytes::from(piece), (found, at + length as u64))));
            }
            if ended {
                return Ok(None);
            }
            if let Found::Growing { progress, .. } = &mut found {
                progress.changed().await.map_err(io::Error::other)?;
            }
        }
    })
}

fn available(progress: &mut watch::Receiver<Progress>) -> io::Result<(u64, bool)> {
    match &*progress.borrow_and_update() {
        Progress::Begun => Ok((0, false)),
        Progress::Growing { written, .. } => Ok((written.saturating_sub(HELD_BACK), false)),
        Progress::Done(kept) => Ok((kept.label.length, true)),
        Progress::Failed(fault) => Err(io::Error::other(fault.text.clone())),
    }
}

/// What an answer made of this is known by: `form` is what else it depends on.
fn tag_of(kept: &Kept, form: &str) -> HeaderValue {
    let tag = format!("\"{}\"", mark(&format!("{} {form}", kept.label.digests.sha256)));
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag)
}

fn whole(status: StatusCode, content: Vec<u8>, content_type: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from(content)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn document(content: Vec<u8>, content_type: &'static str, tag: HeaderValue) -> Response<Body> {
    let mut response = whole(StatusCode::OK, content, content_type);
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn unchanged(tag: HeaderValue) -> Response<Body> {
    let mut response = document(Vec::new(), "text/plain", tag);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// What a build is told instead; npm shows the `error` of it.
pub(super) fn refusal(fault: &Fault) -> Response<Body> {
    let text = serde_json::json!({ "error": fault.text }).to_string();
    whole(fault.status, text.into_bytes(), "application/json")
}
