//! The operator's listener of a part, in plain HTTP: `/healthz`, `/metrics`, and other pages that the part has. It does
//! not ask clients who they are, so bind it to loopback or to a network of operators.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::Shutdown;
use crate::metrics::{self, Metrics};

/// What a part shows its operator.
pub trait Pages: Send + Sync + 'static {
    /// One line for `/healthz`.
    ///
    /// # Errors
    /// One line that says why the part cannot serve now; the answer is 503.
    fn health(&self) -> Result<String, String>;

    /// What `/metrics` shows.
    fn metrics(&self) -> &Metrics;

    /// Paths of the part's other pages.
    fn others(&self) -> &'static [&'static str] {
        &[]
    }

    /// One of the other pages, for a client at this address.
    fn other(&self, path: &str, from: SocketAddr) -> Option<(StatusCode, String)> {
        let _ = (path, from);
        None
    }
}

/// Serves the pages until `ending`. A page that is being written then may be cut.
pub async fn serve(pages: Arc<dyn Pages>, listener: TcpListener, ending: Shutdown) {
    loop {
        let accepted = tokio::select! {
            () = ending.requested() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // Out of descriptors, most often: there will be some again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (pages, end) = (Arc::clone(&pages), ending.clone());
        ending.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&*pages, &request, from);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = end.requested() => {}
                _ = connection => {}
            }
        });
    }
}

fn answer(pages: &dyn Pages, request: &Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => match pages.health() {
            Ok(line) => text(StatusCode::OK, line + "\n"),
            Err(line) => text(StatusCode::SERVICE_UNAVAILABLE, line + "\n"),
        },
        "/metrics" => {
            let mut page = text(StatusCode::OK, pages.metrics().page());
            page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            page
        }
        path => {
            let (status, page) = pages.other(path, from).unwrap_or_else(|| {
                let mut all = vec!["/healthz", "/metrics"];
                all.extend(pages.others());
                (StatusCode::NOT_FOUND, format!("there is no {path}; the pages are {}\n", all.join(", ")))
            });
            text(status, page)
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    struct Part(Metrics, bool);

    impl Pages for Part {
        fn health(&self) -> Result<String, String> {
            if self.1 { Ok("ok".to_owned()) } else { Err("no table".to_owned()) }
        }

        fn metrics(&self) -> &Metrics {
            &self.0
        }

        fn others(&self) -> &'static [&'static str] {
            &["/table"]
        }

        fn other(&self, path: &str, from: SocketAddr) -> Option<(StatusCode, String)> {
            (path == "/table").then(|| (StatusCode::OK, format!("for {}\n", from.ip())))
        }
    }

    async fn asked(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn pages_are_served_until_shutdown() {
        for (healthy, status) in [(true, "200 OK"), (false, "503 Service Unavailable")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let (address, ending) = (listener.local_addr().expect("an address"), Shutdown::new());
            let part = Arc::new(Part(Metrics::default(), healthy));
            let served = tokio::spawn(serve(part, listener, ending.clone()));
            assert!(asked(address, "GET /healthz").await.starts_with(&format!("HTTP/1.1 {status}")));
            assert!(asked(address, "GET /metrics").await.contains(metrics::CONTENT_TYPE));
            assert!(asked(address, "GET /table").await.ends_with("for 127.0.0.1\n"));
            assert!(asked(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
            let missing = asked(address, "GET /rubbish").await;
            assert!(
                missing.starts_with("HTTP/1.1 404")
                    && missing.ends_with("no /rubbish; the pages are /healthz, /metrics, /table\n"),
                "{missing}"
            );
            // One that says nothing does not hold up the end.
            let silent = TcpStream::connect(address).await.expect("a connection");
            assert_eq!(ending.finish(Duration::from_secs(10)).await, 0);
            served.await.expect("ended");
            drop(silent);
        }
    }
}
