//! Whom the command line trusts: the cluster's authority when it is given one, nobody unknown otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use slipway_cli::{Ask, Environment, Exit, Output, run_with};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

struct Nobody;

impl Ask for Nobody {
    fn is_typed(&self) -> bool {
        false
    }
    fn line(&self, _: &str) -> std::io::Result<String> {
        Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
    }
    fn secret(&self, prompt: &str) -> std::io::Result<String> {
        self.line(prompt)
    }
}

/// A server with a certificate of an own authority, which refuses every password: its address, the authority as PEM.
async fn server() -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
    let key = KeyPair::generate().expect("key");
    let certificate = CertificateParams::new(vec!["api.slipway.localhost".to_owned()])
        .and_then(|params| params.signed_by(&key, &ca))
        .expect("certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("key"))
        .expect("configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://api.slipway.localhost:{}", listener.local_addr().expect("address").port());
    let link = url.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, link) = (acceptor.clone(), link.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate hangs up here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut stream = BufReader::new(stream);
                let Some(request) = read_request(&mut stream).await else { return };
                let (status, body) = if request.starts_with("GET / ") {
                    let body =
                        format!(r#"{{"links":{{"login":{{"href":"{link}"}},"log_cache":{{"href":"{link}"}}}}}}"#);
                    ("200 OK", body)
                } else {
                    ("401 Unauthorized", r#"{"error":"unauthorized"}"#.to_owned())
                };
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                // The client may have read enough.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (url, ca.pem())
}

/// Reads a request to its end: of a connection that is closed before that, a client may not see the answer.
async fn read_request(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<String> {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = head[begin..].to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(head)
}

async fn login(url: &str, ca: Option<&str>, flags: &[&str]) -> Exit {
    let home = tempfile::tempdir().expect("temporary directory");
    let mut variables = BTreeMap::from([("HOME".to_owned(), home.path().display().to_string())]);
    if let Some(pem) = ca {
        std::fs::write(home.path().join("ca.pem"), pem).expect("written");
        variables.insert("SLIPWAY_CA".to_owned(), "ca.pem".to_owned());
    }
    let environment = Environment {
        variables,
        directory: home.path().to_owned(),
        default_api: url.to_owned(),
        default_ca: None,
        ask: Arc::new(Nobody),
    };
    let output =
        Output { out: Box::new(std::io::sink()), err: Box::new(std::io::stderr()), terminal: false, screen: false };
    let args = ["slipway", "login", "-u", "admin", "-p", "wrong"].iter().chain(flags).copied();
    run_with(args, environment, output).await
}

#[tokio::test]
async fn only_the_given_authority_is_trusted() {
    let (url, ca) = server().await;
    let (_, other) = server().await;
    // Denied: the password was refused, so the certificate was not.
    assert_eq!(login(&url, Some(&ca), &[]).await, Exit::Denied);
    assert_eq!(login(&url, None, &["--skip-ssl-validation"]).await, Exit::Denied);
    assert_eq!(login(&url, Some(&other), &[]).await, Exit::Unavailable);
    assert_eq!(login(&url, None, &[]).await, Exit::Unavailable);
    assert_eq!(login(&url, Some("no certificate"), &[]).await, Exit::Usage);
}
