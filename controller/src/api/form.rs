//! The form of an upload, as a stream whose cost is limited whatever it holds.
//!
//! The library that splits forms buffers everything before the first part, the head of each part, and all data that the
//! connection has. So it is given one piece at a time, at most as much as a part's head may need before it returns
//! something; and the number of parts is limited. A client that sends too slowly is refused, because it holds a permit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::error::{ApiError, ApiResult};

/// What may be held before a part begins: its head, what the connection had besides, and what stands before the form.
const MAX_IN_MEMORY: u64 = 2 << 20;
/// Parts of a form.
const MAX_PARTS: usize = 32;
/// Bytes that a form may have besides what is wanted of it.
const MAX_OTHER_PARTS: u64 = 128 << 20;
/// For how long nothing may come.
const STALL: Duration = Duration::from_secs(60);
/// Bytes a second that must come on an average, after [`STALL`].
const SLOWEST: u64 = 8 << 10;

/// A form that comes in.
#[derive(Debug)]
pub(super) struct Form {
    parts: Multipart,
    /// Bytes given to the library since it gave something back.
    held: Arc<AtomicU64>,
    seen: usize,
}

/// A part of it.
#[derive(Debug)]
pub(super) struct Part<'a> {
    field: Field<'a>,
    held: Arc<AtomicU64>,
}

/// Why a form ends early.
#[derive(Debug, thiserror::Error)]
enum Bound {
    #[error("it has more than {MAX_IN_MEMORY} bytes before its first part, or in the header of a part")]
    Head,
    #[error("it is longer than {0} bytes")]
    Long(u64),
    #[error("nothing came for {} seconds", STALL.as_secs())]
    Stalled,
    #[error("it came with less than {SLOWEST} bytes a second")]
    Slow,
}

struct Source {
    body: BoxStream<'static, Result<Bytes, axum::Error>>,
    held: Arc<AtomicU64>,
    since: Instant,
    came: u64,
    most: u64,
}

impl Source {
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let bytes = match tokio::time::timeout(STALL, self.body.next()).await {
            Err(_) => return Some(Err(axum::Error::new(Bound::Stalled))),
            Ok(Some(Ok(bytes))) => bytes,
            Ok(end) => return end,
        };
        let length = bytes.len() as u64;
        self.came = self.came.saturating_add(length);
        let took = self.since.elapsed();
        let bound = if self.came > self.most {
            Bound::Long(self.most)
        } else if self.held.fetch_add(length, Ordering::Relaxed).saturating_add(length) > MAX_IN_MEMORY {
            Bound::Head
        } else if took > STALL && self.came < took.as_secs().saturating_mul(SLOWEST) {
            Bound::Slow
        } else {
            return Some(Ok(bytes));
        };
        Some(Err(axum::Error::new(bound)))
    }
}

impl Form {
    /// The form in a request of which about `wanted` bytes are of use.
    ///
    /// # Errors
    /// 400 when it is none.
    pub(super) async fn of(request: Request, wanted: u64) -> ApiResult<Self> {
        let held = Arc::<AtomicU64>::default();
        let (head, body) = request.into_parts();
        let source = Source {
            body: body.into_data_stream().boxed(),
            held: Arc::clone(&held),
            since: Instant::now(),
            came: 0,
            most: wanted.saturating_add(MAX_OTHER_PARTS),
        };
        let pieces = futures::stream::unfold(Some(source), |source| async move {
            let mut source = source?;
            // The library asks until there is nothing: so there is nothing after each piece. Not before it: the end must not
            // come together with the last piece, because the library would not look for the first part in that.
            if source.came > 0 {
                tokio::task::yield_now().await;
            }
            let piece = source.next().await?;
            let source = piece.is_ok().then_some(source);
            Some((piece, source))
        });
        let mut request = Request::from_parts(head, Body::from_stream(pieces));
        // The bounds are the ones above.
        DefaultBodyLimit::disable().apply(&mut request);
        let parts = Multipart::from_request(request, &()).await;
        let parts =
            parts.map_err(|error| ApiError::bad_request(format!("The upload is not a multipart form: {error}")))?;
        Ok(Self { parts, held, seen: 0 })
    }

    /// The next part. What was not read of the one before is read past.
    ///
    /// # Errors
    /// 400 when the form breaks off or passes a bound.
    pub(super) async fn next(&mut self) -> ApiResult<Option<Part<'_>>> {
        let Some(field) = self.parts.next_field().await.map_err(broken)? else { return Ok(None) };
        self.held.store(0, Ordering::Relaxed);
        self.seen += 1;
        if self.seen > MAX_PARTS {
            return Err(ApiError::bad_request(format!("The form has more than {MAX_PARTS} parts.")));
        }
        Ok(Some(Part { field, held: Arc::clone(&self.held) }))
    }
}

impl Part<'_> {
    /// Its name.
    pub(super) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// The file's own name, cut to what a name may have.
    pub(super) fn file_name(&self) -> Option<String> {
        self.field.file_name().map(|name| name.chars().take(255).collect())
    }

    /// What comes next of it.
    ///
    /// # Errors
    /// 400 when the form breaks off or passes a bound.
    pub(super) async fn chunk(&mut self) -> ApiResult<Option<Bytes>> {
        let chunk = self.field.chunk().await.map_err(broken)?;
        self.held.store(0, Ordering::Relaxed);
        Ok(chunk)
    }
}

fn broken(error: MultipartError) -> ApiError {
    let text = error.body_text();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(bound) = error.downcast_ref::<Bound>() {
            return ApiError::bad_request(format!("The upload is refused: {bound}."));
        }
        cause = error.source();
    }
    tracing::debug!(error = %text, "an upload broke off");
    ApiError::bad_request(format!("The upload broke off or is not a multipart form: {text}. Send it again."))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures::Stream;

    use super::*;

    const PIECE: usize = 64 << 10;

    /// A form of these beginnings, and then as many pieces as anybody takes; and how many that were.
    fn endless(begin: &'static str) -> (Request, Arc<AtomicU64>) {
        let taken = Arc::<AtomicU64>::default();
        let count = Arc::clone(&taken);
        let rest = futures::stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![b'a'; PIECE]))
        });
        (request(futures::stream::iter([Ok(Bytes::from(begin))]).chain(rest)), taken)
    }

    fn request(body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static) -> Request {
        Request::builder()
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Body::from_stream(body))
            .expect("a request")
    }

    fn text(error: &ApiError) -> &str {
        &error.entries()[0].detail
    }

    #[tokio::test]
    async fn a_head_without_end_is_not_held() {
        for begin in ["preamble ", "--b\r\nContent-Disposition: form-data; name=\"bits\"; x=\""] {
            let (request, taken) = endless(begin);
            let mut form = Form::of(request, 1 << 40).await.expect("a form");
            let error = form.next().await.expect_err("refused");
            assert!(text(&error).contains("in the header of a part"), "{error:?}");
            assert!(taken.load(Ordering::Relaxed) <= MAX_IN_MEMORY / PIECE as u64 + 2, "{taken:?}");
        }
    }

    #[tokio::test]
    async fn a_part_is_read_in_pieces() {
        let (request, taken) = endless("--b\r\nContent-Disposition: form-data; name=\"bits\"; filename=\"x\"\r\n\r\n");
        let mut form = Form::of(request, 1 << 40).await.expect("a form");
        let mut part = form.next().await.expect("a form").expect("a part");
        let mut came = 0_u64;
        while came < 16 << 20 {
            came += part.chunk().await.expect("more").expect("more").len() as u64;
            let ahead = (taken.load(Ordering::Relaxed) * PIECE as u64).saturating_sub(came);
            assert!(ahead <= 4 * PIECE as u64, "{ahead} bytes are held");
        }
    }

    #[tokio::test]
    async fn the_size_of_a_form_is_limited() {
        let (request, taken) = endless("--b\r\nContent-Disposition: form-data; name=\"nonsense\"\r\n\r\n");
        let mut form = Form::of(request, 1 << 20).await.expect("a form");
        let mut part = form.next().await.expect("a form").expect("a part");
        let error = loop {
            match part.chunk().await {
                Ok(chunk) => assert!(chunk.is_some(), "it has no end"),
                Err(error) => break error,
            }
        };
        assert!(text(&error).contains(&format!("longer than {} bytes", MAX_OTHER_PARTS + (1 << 20))), "{error:?}");
        assert!(taken.load(Ordering::Relaxed) <= (MAX_OTHER_PARTS + (1 << 20)) / PIECE as u64 + 2);
    }

    #[tokio::test]
    async fn parts_are_counted() {
        let part = "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n";
        let crowd = part.repeat(MAX_PARTS + 1) + "--b--\r\n";
        let mut form = Form::of(request(futures::stream::iter([Ok(Bytes::from(crowd))])), 0).await.expect("a form");
        for _ in 0..MAX_PARTS {
            assert!(form.next().await.expect("a part").is_some());
        }
        assert!(text(&form.next().await.expect_err("one too many")).contains("more than 32 parts"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_or_truncated_form_is_refused() {
        let begin = "--b\r\nContent-Disposition: form-data; name=\"bits\"\r\n\r\n";
        let begun = || futures::stream::iter([Ok(Bytes::from(begin))]);
        let silent = request(begun().chain(futures::stream::pending()));
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        });
        for (request, why) in
            [(silent, "nothing came for 60 seconds"), (request(begun().chain(drops)), "bytes a second")]
        {
            let mut form = Form::of(request, 1 << 20).await.expect("a form");
            let mut part = form.next().await.expect("a form").expect("a part");
            let error = loop {
                if let Err(error) = part.chunk().await {
                    break error;
                }
            };
            assert!(text(&error).contains(why), "{error:?}");
        }
    }
}
