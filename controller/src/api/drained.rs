//! Reads what a handler left of a request's body, within limits.
//!
//! When a server responds before it has read everything and closes, the client's kernel discards the response: the client
//! sees a broken connection instead of the 401 or 422 that says what is wrong. So the rest is read and dropped while the
//! response is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::EXPECT;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

use crate::context::Context;

/// For how long in all, and for how long nothing may come.
const LONGEST: Duration = Duration::from_secs(120);
const STALL: Duration = Duration::from_secs(10);

type Leftover = Arc<Mutex<Option<Body>>>;

/// A body that comes back when nobody reads it any more.
struct ReturnedBody {
    body: Option<Body>,
    leftover: Leftover,
    /// The client waits to be told that it may send.
    expects: bool,
}

impl HttpBody for ReturnedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Whoever reads makes the server tell it.
        self.expects = false;
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(task);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for ReturnedBody {
    fn drop(&mut self) {
        // A client that still waits will not send anything: it has its answer.
        if let Some(body) = self.body.take().filter(|body| !self.expects && !body.is_end_stream()) {
            *self.leftover.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

/// Around every request. As much is read as the largest upload may have, and not for ever.
pub(super) async fn drained(State(context): State<Context>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let leftover = Leftover::default();
    let expects = request.headers().contains_key(EXPECT);
    let request =
        request.map(|body| Body::new(ReturnedBody { body: Some(body), leftover: Arc::clone(&leftover), expects }));
    let response = next.run(request).await;
    let left = leftover.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(body) = left {
        let most = context.config.limits.max_package_bytes;
        tokio::spawn(tokio::time::timeout(LONGEST, forget(body, most)));
    }
    response
}

async fn forget(mut body: Body, most: u64) {
    let mut came = 0_u64;
    while came <= most {
        match tokio::time::timeout(STALL, body.frame()).await {
            Ok(Some(Ok(frame))) => came += frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => return,
        }
    }
}
