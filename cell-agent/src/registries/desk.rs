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
use super::guests::{Guest, Share};
use super::npm::{self, Archive, Npm};
use super::paths::{self, Package, Wanted, mark};
use super::pypi::{self, Page, Pypi};
use super::store::{Draft, Kept};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Documents that are read at a time: each may take some tens of megabytes of memory.
const READING: usize = 2;
/// Answers that are sent from memory.
const SMALL: usize = 1 << 20;
/// Read from the disk at once.
const PIECE: u64 = 256 << 10;
/// So much of a file that is still coming is held back until it is known to be what it should be.
const HELD_BACK: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    fetcher: Arc<Fetcher>,
    npm: Option<Arc<Npm>>,
    pypi: Option<Arc<Pypi>>,
    roots: Vec<String>,
    reading: Semaphore,
}

impl Desk {
    pub(super) fn new(fetcher: Fetcher, npm: Option<Npm>, pypi: Option<Pypi>) -> Self {
        let roots = npm.as_ref().map(Npm::roots).unwrap_or_default();
        let (npm, pypi) = (npm.map(Arc::new), pypi.map(Arc::new));
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
        npm: &Arc<Npm>,
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
        let (npm, fetcher, name) = (Arc::clone(npm), Arc::clone(&self.fetcher), package.path());
        let share = Arc::clone(&guest.share);
        let made = self.read(&kept, move |content| {
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
        let kept = self.fetcher.whole(order, guest).await?;
        let tag = tag_of(&kept, if as_json { "json" } else { "html" });
        if is_known(headers, &tag) {
            return Ok(unchanged(tag));
        }
        let (door, fetcher, share) = (pypi.door.clone(), Arc::clone(&self.fetcher), Arc::clone(&guest.share));
        let made = self.page(pypi, &project, &kept, move |page| {
            Made::of(if as_json { page.as_json(&door) } else { page.as_html(&door) }, &fetcher, &share)
        });
        Ok(document(made.await??, if as_json { pypi::JSON } else { "text/html; charset=utf-8" }, tag))
    }

    /// What `work` makes of a project's page.
    async fn page<T: Send + 'static>(
        &self,
        pypi: &Arc<Pypi>,
        project: &str,
        kept: &Arc<Kept>,
        work: impl FnOnce(Page) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let (name, label) = (project.to_owned(), kept.label.clone());
        let done =
            self.read(kept, move |content| Page::read(&name, &label.content_type, &label.from, &content).map(work));
        done.await?
            .map_err(|error| Fault::upstream(&pypi.registry, format!("sends no page of files for {project}: {error}")))
    }

    /// The archive at its usual place, with its digest where the document of its package is here. A lock file names archives without
    /// asking for documents, and its digests are npm's to check.
    async fn known(&self, npm: &Arc<Npm>, package: &Package, address: String) -> Result<Archive, Fault> {
        let plain = Archive { address, expected: None };
        let order = npm.archive(package, plain.clone());
        if order.and_then(|order| self.fetcher.kept(&order.key)).is_some_and(|kept| kept.label.checked) {
            return Ok(plain);
        }
        for long in [false, true] {
            let kept = npm.document(package, long).and_then(|order| self.fetcher.kept(&order.key));
            let Some(kept) = kept else { continue };
            let wanted = plain.address.clone();
            let found = self.read(&kept, move |content| npm::archive_of(&content, |address| address == wanted));
            if let Some(archive) = found.await? {
                return Ok(archive);
            }
        }
        Ok(plain)
    }

    /// The archive that the document of its package names: of the one that is here, or else of the one that its registry has now.
    async fn named(
        &self,
        npm: &Arc<Npm>,
        package: &Package,
        fits: impl Fn(&str) -> bool + Clone + Send + 'static,
        guest: &Guest,
    ) -> Result<Archive, Fault> {
        for long in [false, true] {
            let kept = npm.document(package, long).and_then(|order| self.fetcher.kept(&order.key));
            let Some(kept) = kept else { continue };
            let fits = fits.clone();
            if let Some(archive) = self.read(&kept, move |content| npm::archive_of(&content, fits)).await? {
                return Ok(archive);
            }
        }
        let order = npm.document(package, false).ok_or_else(Fault::busy)?;
        let kept = self.fetcher.whole(order, guest).await?;
        let text = || format!("npm package {} has no archive of this address", package.path());
        let found = self.read(&kept, move |content| npm::archive_of(&content, fits)).await?;
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
        let named = async |kept: Arc<Kept>| {
            let mark = mark.to_owned();
            self.page(pypi, project, &kept, move |page| page.file(&mark).cloned()).await
        };
        if let Some(kept) = self.fetcher.kept(&order.key)
            && let Some(file) = named(kept).await?
        {
            return pypi.file(&file, metadata).ok_or_else(unknown);
        }
        let kept = self.fetcher.whole(order, guest).await?;
        named(kept).await?.and_then(|file| pypi.file(&file, metadata)).ok_or_else(unknown)
    }

    /// What `work` makes of a document. It is in memory for as long as that takes, of few documents at a time.
    async fn read<T: Send + 'static>(
        &self,
        kept: &Arc<Kept>,
        work: impl FnOnce(Vec<u8>) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let Ok(_turn) = self.reading.acquire().await else { return Err(Fault::busy()) };
        let kept = Arc::clone(kept);
        let done = tokio::task::spawn_blocking(move || kept.read().map(work)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| Fault::host(&error))
    }

    async fn file(&self, order: Order, guest: &Guest) -> Result<Response<Body>, Fault> {
        let found = self.fetcher.find(order, guest).await?;
        let length = match &found {
            Found::Whole(kept) => Some(kept.label.length),
            Found::Growing { length, .. } => *length,
        };
        let mut response = Response::new(streamed(Source::Found(found)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(response)
    }
}

/// What is sent to a build: in memory where it is small. A build may ask for many large documents and read none of them.
enum Made {
    Small(Vec<u8>),
    Large(Draft),
}

impl Made {
    fn of(content: Vec<u8>, fetcher: &Fetcher, share: &Arc<Share>) -> Result<Self, Fault> {
        if content.len() <= SMALL {
            return Ok(Self::Small(content));
        }
        let written = fetcher.answer(share).and_then(|mut draft| draft.write(&content).map(|()| draft));
        written.map(Self::Large).map_err(|error| Fault::host(&error))
    }
}

/// Where the bytes of an answer are.
enum Source {
    Found(Found),
    /// Gone with the answer.
    Made(Draft),
}

fn streamed(source: Source) -> Body {
    StreamBody::new(pieces(source).map_ok(Frame::data)).boxed_unsync()
}

/// The content of a file, as it comes.
fn pieces(source: Source) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((source, 0), |(mut source, at)| async move {
        loop {
            let (file, available, ended) = match &mut source {
                Source::Made(draft) => (draft.shared(), draft.written(), true),
                Source::Found(Found::Whole(kept)) => (Arc::clone(&kept.file), kept.label.length, true),
                Source::Found(Found::Growing { file, progress, .. }) => {
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
                return Ok(Some((Bytes::from(piece), (source, at + length as u64))));
            }
            if ended {
                return Ok(None);
            }
            if let Source::Found(Found::Growing { progress, .. }) = &mut source {
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

fn whole(status: StatusCode, made: Made, content_type: &'static str) -> Response<Body> {
    let mut response = match made {
        Made::Small(content) => {
            Response::new(Full::new(Bytes::from(content)).map_err(|never| match never {}).boxed_unsync())
        }
        Made::Large(draft) => {
            let length = HeaderValue::from(draft.written());
            let mut response = Response::new(streamed(Source::Made(draft)));
            response.headers_mut().insert(CONTENT_LENGTH, length);
            response
        }
    };
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn document(made: Made, content_type: &'static str, tag: HeaderValue) -> Response<Body> {
    let mut response = whole(StatusCode::OK, made, content_type);
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn unchanged(tag: HeaderValue) -> Response<Body> {
    let mut response = document(Made::Small(Vec::new()), "", tag);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    // Caches put what is said here in the place of what they know: pip would not read its page any more.
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// What a build is told instead; npm shows the `error` of it.
pub(super) fn refusal(fault: &Fault) -> Response<Body> {
    let text = serde_json::json!({ "error": fault.text }).to_string();
    whole(fault.status, Made::Small(text.into_bytes()), "application/json")
}
