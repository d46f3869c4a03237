//! Bodies of responses to builds: from memory, from the disk, and from a download that is under way.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use tokio::sync::watch;

use super::fault::Fault;
use super::fetch::{Fetched, Fetcher, Progress};
use super::guests::{Guest, Share};
use super::paths::mark;
use super::store::{CachedFile, Draft};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers that are sent from memory.
const SMALL: usize = 1 << 20;
/// Read from the disk at once.
const PIECE: u64 = 256 << 10;
/// So much of a file that is still coming is held back until it is known to be what it should be.
const HELD_BACK: u64 = 64 << 10;

/// What is sent to a build: in memory where it is small. A build may ask for many large documents and read none of them.
pub(super) enum Made {
    Small(Vec<u8>),
    Large(Draft),
}

impl Made {
    pub(super) fn of(content: Vec<u8>, fetcher: &Fetcher, share: &Arc<Share>) -> Result<Self, Fault> {
        if content.len() <= SMALL {
            return Ok(Self::Small(content));
        }
        let written = fetcher.answer(share).and_then(|mut draft| draft.write(&content).map(|()| draft));
        written.map(Self::Large).map_err(|error| Fault::host(&error))
    }
}

/// Where the bytes of an answer are.
pub(super) enum Source {
    /// For this build.
    Fetched(Fetched, Arc<Guest>),
    /// Gone with the answer.
    Made(Draft),
}

pub(super) fn streamed(source: Source) -> Body {
    StreamBody::new(pieces(source).map_ok(Frame::data)).boxed_unsync()
}

/// The content of a file, as it comes.
fn pieces(source: Source) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((source, 0), |(mut source, at)| async move {
        loop {
            let (file, available, ended) = match &mut source {
                Source::Made(draft) => (draft.shared(), draft.written(), true),
                Source::Fetched(Fetched::Whole(cached), _) => (Arc::clone(&cached.file), cached.label.length, true),
                Source::Fetched(Fetched::Growing { file, progress, .. }, guest) => {
                    let (available, ended) = available(progress, guest)?;
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
            if let Source::Fetched(Fetched::Growing { progress, .. }, _) = &mut source {
                progress.changed().await.map_err(io::Error::other)?;
            }
        }
    })
}

fn available(progress: &mut watch::Receiver<Progress>, guest: &Guest) -> io::Result<(u64, bool)> {
    match &*progress.borrow_and_update() {
        Progress::Begun => Ok((0, false)),
        Progress::Growing { written, .. } => Ok((written.saturating_sub(HELD_BACK), false)),
        Progress::Done(cached) => Ok((cached.label.length, true)),
        Progress::Failed(fault) => {
            // The connection breaks off without a word.
            guest.report(fault);
            Err(io::Error::other(fault.text.clone()))
        }
    }
}

/// What an answer made of this is known by: `form` is what else it depends on.
pub(super) fn tag_of(cached: &CachedFile, form: &str) -> HeaderValue {
    let tag = format!("\"{}\"", mark(&format!("{} {form}", cached.label.digests.sha256)));
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
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

pub(super) fn document(made: Made, content_type: &'static str, tag: HeaderValue) -> Response<Body> {
    let mut response = whole(StatusCode::OK, made, content_type);
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

pub(super) fn unchanged(tag: HeaderValue) -> Response<Body> {
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
