//! Lines of bound apps reach real drains.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::services::{bind, instance};
use crate::support::TestController;
use crate::support::apps::dev_space;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use slipway_chassis::Shutdown;
use slipway_chassis::driver::{Registry, Wake};
use slipway_controller::drains::{self, DRAINS, Drains};
use slipway_protocol::v1;
use slipway_test_support::{PATIENCE, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

type Heard = Arc<Mutex<Vec<String>>>;

fn heard(heard: &Heard) -> Vec<String> {
    heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Reads octet-counted messages.
async fn listen(mut stream: impl AsyncRead + Unpin, heard: Heard) {
    let mut length = 0_usize;
    while let Ok(byte) = stream.read_u8().await {
        if byte != b' ' {
            length = length * 10 + usize::from(byte - b'0');
            continue;
        }
        let mut message = vec![0; length];
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        length = 0;
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8(message).expect("text"));
    }
}

/// Reads one request with its body; `None` when the client has closed.
async fn next_request(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<String> {
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let begin = request.len();
        if stream.read_line(&mut request).await.ok()? == 0 {
            return None;
        }
        let line = request[begin..].to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(request + std::str::from_utf8(&body).expect("text"))
}

/// A port of the loopback that stays this test's own also while nobody listens on it: others bind ports beside it.
struct Port(TcpSocket);

impl Port {
    fn take() -> Self {
        let socket = Self::socket();
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
        Self(socket)
    }

    fn socket() -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("shared with the one that listens");
        socket
    }

    fn address(&self) -> std::net::SocketAddr {
        self.0.local_addr().expect("an address")
    }

    fn listen(&self) -> TcpListener {
        let socket = Self::socket();
        socket.bind(self.address()).expect("bind");
        socket.listen(16).expect("listen")
    }
}

fn now_ns() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().expect("in range")
}

fn line(app: &str, seq: u64, text: &str) -> v1::LogLine {
    v1::LogLine {
        unix_ns: now_ns(),
        seq,
        text: text.as_bytes().to_vec().into(),
        source_id: app.to_owned(),
        source_type: "APP/PROC/WEB".to_owned(),
        instance_id: "0".to_owned(),
        ring: "r".to_owned(),
        ..v1::LogLine::default()
    }
}

struct Running {
    controller: TestController,
    app: String,
    shutdown: Shutdown,
    /// Held: the drains run while there is a term.
    term: watch::Sender<Option<i64>>,
}

impl Running {
    /// An app, and drains that run.
    async fn start(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self::reaching(authorities, &["127.0.0.0/8", "::1/128"]).await
    }

    /// The same, with drains in these networks.
    async fn reaching(authorities: Vec<CertificateDer<'static>>, networks: &[&str]) -> Self {
        let controller = TestController::start().await;
        let mut context = controller.context.clone();
        let mut config = (*context.config).clone();
        config.drain_networks = networks.iter().map(|network| (*network).to_owned()).collect();
        context.config = Arc::new(config);
        let space = dev_space(&controller.database.pool).await;
        let app = controller.bare_app(space, "my shop").await.to_string();
        let shutdown = Shutdown::new();
        let (term, receiver) = watch::channel(Some(1));
        let tls = drains::tls_trusting(authorities).expect("tls");
        let drains = Drains::new(context, receiver, tls, shutdown.clone());
        Registry::default().start(&shutdown, DRAINS, Wake::default(), drains);
        Self { controller, app, shutdown, term }
    }

    async fn drain(&self, url: &str) -> String {
        let client = self.controller.admin().await;
        let space = dev_space(&self.controller.database.pool).await;
        let name = format!("drain-{}", uuid::Uuid::new_v4());
        let guid = instance(&client, space, &name, json!({ "syslog_drain_url": url })).await;
        let (status, body) = bind(&client, &self.app, &guid, json!({})).await;
        assert_eq!(status, 201, "{body}");
        guid
    }

    fn say(&self, seq: u64, text: &str) {
        let line = line(&self.app, seq, text);
        self.controller.cells.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Waits until a drain stands with an error that says this.
    async fn fails(&self, instance: &str, text: &str) -> String {
        eventually(text, PATIENCE, async || {
            let error: Option<Option<String>> =
                sqlx::query_scalar("select error from syslog_drain where service_instance_guid = $1::uuid")
                    .bind(instance)
                    .fetch_optional(&self.controller.database.pool)
                    .await
                    .expect("an answer");
            match error.flatten() {
                Some(error) if error.contains(text) => Ok(error),
                other => Err(other),
            }
        })
        .await
    }

    /// Waits until no connection to this port is open any more on the side of the drains.
    async fn closed(&self, port: &Port) {
        let remote = format!("0100007F:{:04X}", port.address().port());
        eventually("the drain's side knows that it is over", PATIENCE, async || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
            // Remote address and state; 01 is an open connection.
            let open = table.lines().filter(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.get(2) == Some(&&*remote) && fields.get(3) == Some(&"01")
            });
            match open.count() {
                0 => Ok(()),
                open => Err(open),
            }
        })
        .await;
        // The runtime looks at its sockets before it looks at the timer that ends this: the drain's task knows it too now.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn until(&self, heard: &Heard, text: &str) -> String {
        eventually(text, PATIENCE, async || {
            let all = self::heard(heard);
            all.iter().find(|message| message.contains(text)).cloned().ok_or(all)
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

#[tokio::test]
async fn lines_reach_a_syslog_drain_across_its_absence() {
    let running = Running::start(Vec::new()).await;
    let port = Port::take();
    let listener = port.listen();
    let heard: Heard = Arc::default();
    let instance = running.drain(&format!("syslog://{}", port.address())).await;
    running.say(1, "first");
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a connection");
    let reading = tokio::spawn(listen(stream, Arc::clone(&heard)));
    let message = running.until(&heard, "first").await;
    assert!(message.starts_with("<14>1 20"), "{message}");
    for part in
        ["dev.dev.my-shop ", &*running.app, "[APP/PROC/WEB/0] - [tags@47450 ", "source_type=\"APP/PROC/WEB\"] first\n"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }

    // It goes away, lines are overwritten meanwhile, it comes back.
    reading.abort();
    assert!(reading.await.expect_err("aborted").is_cancelled(), "its connection is closed");
    drop(listener);
    // What is sent before the end of the connection has come through is lost in the network, which is not meant here.
    running.closed(&port).await;
    let lines = || running.controller.cells.lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines().clear();
    running.say(5, "after the hole");
    running.fails(&instance, "cannot be reached").await;
    let listener = port.listen();
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a connection");
    let reading = tokio::spawn(listen(stream, Arc::clone(&heard)));
    running.until(&heard, "after the hole").await;
    let loss = running.until(&heard, "messages were lost").await;
    assert!(loss.contains("3 messages were lost") && loss.contains("[LGR]"), "{loss}");
    let all = self::heard(&heard);
    assert_eq!(all.iter().filter(|message| message.contains("] first")).count(), 1, "{all:?}");
    eventually("the loss is counted", PATIENCE, async || {
        let lost: i64 = sqlx::query_scalar("select lost from syslog_drain")
            .fetch_one(&running.controller.database.pool)
            .await
            .expect("a row");
        if lost == 3 { Ok(()) } else { Err(lost) }
    })
    .await;

    // Unbound, nothing more is sent, without any restart.
    let client = running.controller.admin().await;
    assert_eq!(client.delete(&format!("/v3/service_instances/{instance}")).await.0, 204);
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the drain lets go of its connection")
        .expect("read to the end");
    let said = self::heard(&heard).len();
    running.say(6, "too late");
    let again = tokio::time::timeout(Duration::from_secs(4), listener.accept()).await;
    assert!(again.is_err(), "nobody comes back: {again:?}");
    assert_eq!(self::heard(&heard).len(), said);
    running.term.send_replace(None);
}

/// A server for `localhost`, and the authority that vouches for it.
fn tls_server() -> (tokio_rustls::TlsAcceptor, CertificateDer<'static>) {
    let (authority, _) = slipway_protocol::ClusterAuthority::generate(uuid::Uuid::new_v4()).expect("an authority");
    let (certificate, key) = authority.issue_web(&["localhost".to_owned()]).expect("a certificate");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("pem");
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).expect("pem");
    let root =
        authority.issue(slipway_protocol::Role::Router, uuid::Uuid::new_v4(), &[]).expect("credentials").authority_pem;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("fits");
    let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("pem");
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), root)
}

#[tokio::test]
async fn encrypted_drains_are_checked_and_used() {
    let (acceptor, root) = tls_server();
    let running = Running::start(vec![root]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let heard: Heard = Arc::default();
    let noted = Arc::clone(&heard);
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let (acceptor, heard) = (acceptor.clone(), Arc::clone(&noted));
            tokio::spawn(async move {
                // A client that does not trust the name ends here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut stream = BufReader::new(stream);
                if !stream.fill_buf().await.is_ok_and(|begin| begin.starts_with(b"P")) {
                    return listen(stream, heard).await;
                }
                while let Some(request) = next_request(&mut stream).await {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    running.drain(&format!("syslog-tls://localhost:{port}")).await;
    running.drain(&format!("https://user:word@localhost:{port}/in?x=1")).await;
    let untrusted = running.drain(&format!("syslog-tls://127.0.0.1:{port}")).await;
    running.say(1, "over tls");
    // A drain whose answer comes late is told again, so either may have it more than once.
    let (posted, framed) = eventually("both drains have it", PATIENCE, async || {
        let all: Vec<String> = self::heard(&heard).into_iter().filter(|text| text.contains("over tls")).collect();
        let posted = all.iter().find(|text| text.starts_with("POST")).cloned();
        let framed = all.iter().find(|text| !text.starts_with("POST")).cloned();
        posted.zip(framed).ok_or(all)
    })
    .await;
    assert!(posted.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{posted}");
    assert!(posted.to_lowercase().contains("authorization: basic dxnlcjp3b3jk"), "{posted}");
    assert!(framed.starts_with("<14>1 "), "{framed}");
    running.fails(&untrusted, "certificate").await;
    server.abort();
}

#[tokio::test]
async fn a_drain_inside_the_platform_is_not_connected_to() {
    let running = Running::reaching(Vec::new(), &[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    // By address, in the clothes of IPv6, and by a name that leads there.
    let mut instances = Vec::new();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        instances.push(running.drain(&format!("syslog://{host}:{port}")).await);
    }
    running.say(1, "nobody hears this");
    for instance in &instances {
        running.fails(instance, "where this platform sends nothing").await;
    }
    let connected = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(connected.is_err(), "{connected:?}");
}

#[tokio::test]
async fn an_answer_without_end_costs_nothing_but_its_connection() {
    let (acceptor, root) = tls_server();
    let running = Running::start(vec![root]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let (heard, talked): (Heard, Arc<Mutex<Vec<usize>>>) = Default::default();
    let (requests, lengths) = (Arc::clone(&heard), Arc::clone(&talked));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let mut stream = BufReader::new(stream);
            let Some(request) = next_request(&mut stream).await else { continue };
            requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            let mut sent = 0;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {
                sent += 0x4000;
            }
            lengths.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        }
    });
    running.drain(&format!("https://localhost:{port}/in")).await;
    running.say(1, "the first line");
    running.say(2, "the second line");
    running.until(&heard, "the second line").await;
    let all = self::heard(&heard);
    assert_eq!(all.iter().filter(|text| text.contains("the first line")).count(), 1, "it was taken: {all:?}");
    let sent = eventually("the first answer ends", PATIENCE, async || {
        talked.lock().unwrap_or_else(PoisonError::into_inner).first().copied().ok_or("still talking")
    })
    .await;
    // What lay in buffers of sockets is not the platform's.
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    server.abort();
}
