//! The connection to one drain, opened when it is needed and reopened when it is lost.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::DrainTransport;
use super::destination::{Destination, Transport};

/// Name, connection and handshake; and each line.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are read past, so that the connection can be used again. A longer answer costs it.
const MAX_ANSWER: usize = 64 << 10;

/// A line did not go out, and may be tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the drain {host}:{port} cannot be reached")]
    Io { host: String, port: u16, source: io::Error },
    #[error(
        "the drain {host} is at {address}, where this platform sends nothing: use a public address, or let the operator add its network to drain_networks"
    )]
    Unreachable { host: String, address: IpAddr },
    #[error("the drain {host} does not speak HTTP")]
    Http { host: String, source: hyper::Error },
    #[error("the drain {host} answered {status}")]
    Status { host: String, status: StatusCode },
    #[error("a request to the drain {host} cannot be made")]
    Request { host: String, source: http::Error },
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

enum Connection {
    Syslog(Box<dyn Stream>),
    Http(http1::SendRequest<Full<Bytes>>),
}

pub(super) struct Sender {
    destination: Destination,
    transport: Arc<DrainTransport>,
    connection: Option<Connection>,
}

impl Sender {
    pub(super) fn new(destination: Destination, transport: Arc<DrainTransport>) -> Self {
        Self { destination, transport, connection: None }
    }

    /// Sends a message. True when the drain refused it for good: asking again would be of no use.
    ///
    /// # Errors
    /// When it may be tried again.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<bool, SendError> {
        let sent = match tokio::time::timeout(TIMEOUT, self.attempt(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(self.io(io::ErrorKind::TimedOut.into())),
        };
        if sent.is_err() {
            self.connection = None;
        }
        sent
    }

    async fn attempt(&mut self, message: &[u8]) -> Result<bool, SendError> {
        let closed = match &mut self.connection {
            None => true,
            Some(Connection::Syslog(stream)) => has_ended(stream),
            Some(Connection::Http(sender)) => sender.is_closed(),
        };
        if closed {
            self.connection = Some(self.connect().await?);
        }
        match &mut self.connection {
            Some(Connection::Syslog(stream)) => {
                // RFC 6587: the length of the message, a space, the message.
                let mut framed = message.len().to_string().into_bytes();
                framed.push(b' ');
                framed.extend_from_slice(message);
                let written = async {
                    stream.write_all(&framed).await?;
                    stream.flush().await
                };
                let written = written.await;
                written.map(|()| false).map_err(|error| self.io(error))
            }
            Some(Connection::Http(sender)) => {
                let request = request(&self.destination, message)?;
                let host = || self.destination.host.clone();
                let failed = |source| SendError::Http { host: host(), source };
                sender.ready().await.map_err(failed)?;
                let answer = sender.send_request(request).await.map_err(failed)?;
                let status = answer.status();
                if !pass_over(answer.into_body()).await.map_err(failed)? {
                    self.connection = None;
                }
                match status {
                    status if status.is_success() => Ok(false),
                    // Wait, or log in: may be better later.
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::UNAUTHORIZED => {
                        Err(SendError::Status { host: host(), status })
                    }
                    status if status.is_client_error() => Ok(true),
                    status => Err(SendError::Status { host: host(), status }),
                }
            }
            None => Err(self.io(io::ErrorKind::NotConnected.into())),
        }
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let Destination { transport, host, port, .. } = &self.destination;
        let stream = self.open(host, *port).await?;
        stream.set_nodelay(true).map_err(|error| self.io(error))?;
        if *transport == Transport::Tcp {
            return Ok(Connection::Syslog(Box::new(stream)));
        }
        let name = ServerName::try_from(host.clone()).map_err(|error| self.io(io::Error::other(error)))?;
        let tls = TlsConnector::from(Arc::clone(&self.transport.tls));
        let stream = tls.connect(name, stream).await.map_err(|error| self.io(error))?;
        if *transport == Transport::Tls {
            return Ok(Connection::Syslog(Box::new(stream)));
        }
        let failed = |source| SendError::Http { host: host.clone(), source };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection::Http(sender))
    }

    /// A connection to the first address of the drain that answers, of those that may be reached. The name is not
    /// looked up again after that: it could lead elsewhere by then.
    async fn open(&self, host: &str, port: u16) -> Result<TcpStream, SendError> {
        let mut failure = self.io(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
        for address in tokio::net::lookup_host((host, port)).await.map_err(|error| self.io(error))? {
            if !self.transport.egress_guard.allows(address) {
                failure = SendError::Unreachable { host: host.to_owned(), address: address.ip() };
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = self.io(error),
            }
        }
        Err(failure)
    }

    fn io(&self, source: io::Error) -> SendError {
        SendError::Io { host: self.destination.host.clone(), port: self.destination.port, source }
    }
}

/// Whether the other side has closed. What a drain says is read past: its end may stand behind it.
fn has_ended(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut heard = [0; 1024];
    // One that never stops talking has not ended.
    for _ in 0..64 {
        match stream.read(&mut heard).now_or_never() {
            None => return false,
            Some(Ok(0) | Err(_)) => return true,
            Some(Ok(_)) => {}
        }
    }
    false
}

/// Reads past an answer and keeps nothing of it. False when it is so long that closing is cheaper.
async fn pass_over(mut body: Incoming) -> hyper::Result<bool> {
    let mut read = 0_usize;
    while let Some(frame) = body.frame().await {
        read = read.saturating_add(frame?.data_ref().map_or(0, Bytes::len));
        if read > MAX_ANSWER {
            return Ok(false);
        }
    }
    Ok(true)
}

fn request(destination: &Destination, message: &[u8]) -> Result<Request<Full<Bytes>>, SendError> {
    let failed = |source| SendError::Request { host: destination.host.clone(), source };
    let authority = match destination.port {
        443 => destination.host.clone(),
        port => format!("{}:{port}", destination.host),
    };
    let mut request = Request::post(&destination.path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "text/plain")
        .body(Full::new(Bytes::copy_from_slice(message)))
        .map_err(failed)?;
    if let Some(text) = &destination.authorization {
        let mut value = HeaderValue::from_str(text).map_err(|error| failed(error.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_connection_is_detected_behind_unread_bytes() {
        let (mut ours, mut theirs) = duplex(4096);
        assert!(!has_ended(&mut ours));
        theirs.write_all(&[b'x'; 200]).await.expect("said");
        assert!(!has_ended(&mut ours));
        theirs.write_all(&[b'x'; 200]).await.expect("said");
        drop(theirs);
        assert!(has_ended(&mut ours));
    }
}
