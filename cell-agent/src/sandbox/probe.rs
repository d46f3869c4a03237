//! Checks from the host. They carry a mark that the gate lets through, since an instance must be found healthy before its
//! gate opens. They say that the request came by https, as Cloud Foundry's do: an app that sends everybody else there would
//! never be found healthy.

use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::firewall::PROBE_MARK;

/// The status is in the first line; what has none by then is no answer.
const LONGEST: usize = 4096;
/// An answer is read to its end, so that the app's write of it does not fail, which many programs write to their log at
/// length; but not for ever, and not all of a download.
const REST_BYTES: u64 = 4 << 20;
const REST_TIME: Duration = Duration::from_secs(10);

/// Whether a connection can be made.
pub(super) async fn tcp(address: SocketAddrV4, timeout: Duration) -> bool {
    matches!(tokio::time::timeout(timeout, connect(address)).await, Ok(Ok(_)))
}

/// The status of a GET.
pub(super) async fn http(address: SocketAddrV4, path: &str, timeout: Duration) -> Option<u16> {
    tokio::time::timeout(timeout, get(address, path)).await.ok()?.ok()?
}

async fn connect(address: SocketAddrV4) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &PROBE_MARK)?;
    socket.connect(address.into()).await
}

async fn get(address: SocketAddrV4, path: &str) -> std::io::Result<Option<u16>> {
    // A path comes from a manifest: what would end the request line early is no path.
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Ok(None);
    }
    let mut stream = connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: slipway-healthcheck\r\nAccept: */*\r\n\
         X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.len() < LONGEST && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    // Beside the check: the status is known, and a page that takes its time must not make the instance late.
    tokio::spawn(tokio::time::timeout(REST_TIME, async move {
        tokio::io::copy(&mut stream.take(REST_BYTES), &mut tokio::io::sink()).await
    }));
    Ok(status(&answer))
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\n').next()?).ok()?;
    let mut words = line.split_ascii_whitespace();
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    (version.starts_with("HTTP/1.") && (100..600).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{http, status};

    /// Answers one check; gives what was asked and how the writing of a page of two megabytes went.
    async fn serve(page: usize) -> (SocketAddr, tokio::task::JoinHandle<(String, std::io::Result<()>)>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
            }
            let written = async {
                stream.write_all(b"HTTP/1.0 200 OK\r\n").await?;
                // As a program does that writes its lines one by one.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                stream.write_all(b"X: y\r\n\r\n").await?;
                stream.write_all(&vec![b'x'; page]).await?;
                stream.shutdown().await
            };
            let written = written.await;
            (String::from_utf8(asked).unwrap(), written)
        });
        (address, served)
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_and_the_request_came_by_https() {
        // Marks are for root, as the check is.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (address, served) = serve(2 << 20).await;
        let SocketAddr::V4(address) = address else { panic!("{address}") };
        let found = http(address, "/health", std::time::Duration::from_secs(30)).await;
        assert_eq!(found, Some(200));
        let (asked, written) = served.await.unwrap();
        written.expect("the app's write went through");
        assert!(asked.contains("\r\nX-Forwarded-Proto: https\r\n"), "{asked}");
    }

    #[test]
    fn only_a_status_line_is_a_status() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nX: y\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 200\r\n"), Some(200));
        assert_eq!(status(b"SSH-2.0-x 200\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 abc\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 999 x\r\n"), None);
        assert_eq!(status(b"\xff\xfe"), None);
        assert_eq!(status(b""), None);
    }
}
