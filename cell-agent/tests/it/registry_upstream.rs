//! A registry that answers what a test has put there, counts what it is asked, and lets in only who logs in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{AUTHORIZATION, ETAG, HOST, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use slipway_protocol::ClusterAuthority;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_util::task::AbortOnDropHandle;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What it answers at one path.
#[derive(Clone)]
pub(crate) enum UpstreamResponse {
    /// With its ETag.
    Content(&'static str, Vec<u8>),
    Status(u16),
    Redirect(String),
    /// So many bytes are announced, and these are sent.
    CutOff(usize, Vec<u8>),
    /// It never says a word.
    Silence,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct RecordedRequest {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) known: bool,
}

#[derive(Default)]
struct Inside {
    answers: Mutex<BTreeMap<String, UpstreamResponse>>,
    requests: Mutex<Vec<RecordedRequest>>,
    /// The header that it wants.
    wanted: Option<String>,
}

/// See the module. Gone with the value.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    inside: Arc<Inside>,
    server: Option<AbortOnDropHandle<()>>,
}

impl Upstream {
    /// Plain HTTP.
    pub(crate) async fn plain(wanted: Option<&str>) -> Self {
        Self::start(wanted, None).await
    }

    /// HTTPS, as `localhost`, by a certificate of this authority.
    pub(crate) async fn tls(wanted: Option<&str>, authority: &ClusterAuthority) -> Self {
        let (certificate, key) = authority.issue_web(&["localhost".to_owned()]).expect("a certificate");
        let chain =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).map(|one| one.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a server");
        Self::start(wanted, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(wanted: Option<&str>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let inside = Arc::new(Inside { wanted: wanted.map(str::to_owned), ..Inside::default() });
        let shared = Arc::clone(&inside);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let service = service_fn(async |request| match shared.answer(&request) {
                        Some(response) => Ok::<_, Infallible>(response),
                        None => std::future::pending().await,
                    });
                    let mut http = hyper::server::conn::http1::Builder::new();
                    http.half_close(true);
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { address, inside, server: Some(AbortOnDropHandle::new(server)) }
    }

    pub(crate) fn put(&self, path: &str, answer: UpstreamResponse) {
        self.inside.answers.lock().expect("answers").insert(path.to_owned(), answer);
    }

    /// Nobody answers any more.
    pub(crate) async fn leave(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            drop(server.await);
        }
    }

    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        self.inside.requests.lock().expect("asked").clone()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.requests().iter().filter(|request| request.path == path).count()
    }
}

impl Inside {
    fn answer<T>(&self, request: &Request<T>) -> Option<Response<Body>> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (path, authorization) = (request.uri().path().to_owned(), header(AUTHORIZATION));
        assert!(header(HOST).is_some());
        let answer = self.answers.lock().expect("answers").get(&path).cloned();
        let known =
            matches!(&answer, Some(UpstreamResponse::Content(tag, _)) if header(IF_NONE_MATCH).as_deref() == Some(tag));
        self.requests.lock().expect("asked").push(RecordedRequest {
            path,
            authorization: authorization.clone(),
            known,
        });
        let plain = |status: u16, body: Vec<u8>| {
            let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
            let mut response = Response::new(body.boxed_unsync());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
        };
        if self.wanted.is_some() && self.wanted != authorization {
            return Some(plain(401, b"who are you?".to_vec()));
        }
        let response = match answer {
            Some(UpstreamResponse::Silence) => return None,
            None => plain(404, Vec::new()),
            Some(UpstreamResponse::Content(..)) if known => plain(304, Vec::new()),
            Some(UpstreamResponse::Content(tag, content)) => {
                let mut response = plain(200, content);
                response.headers_mut().insert(ETAG, tag.parse().expect("a tag"));
                response
            }
            Some(UpstreamResponse::Status(status)) => plain(status, Vec::new()),
            Some(UpstreamResponse::Redirect(to)) => {
                let mut response = plain(302, Vec::new());
                response.headers_mut().insert("location", to.parse().expect("a place"));
                response
            }
            Some(UpstreamResponse::CutOff(announced, content)) => {
                let end = async {
                    // What came before is on its way then.
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("cut off"))
                };
                let content = stream::iter([Ok(Frame::data(Bytes::from(content)))]).chain(stream::once(end));
                let mut response = Response::new(StreamBody::new(content).boxed_unsync());
                response.headers_mut().insert("content-length", announced.into());
                response
            }
        };
        Some(response)
    }
}
