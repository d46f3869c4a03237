//! Checks from the host. They carry a mark that the gate lets through, since an instance must be found healthy before its
//! gate opens.

use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::firewall::PROBE_MARK;

/// More of an answer is not read; the status is in the first line.
const LONGEST: usize = 4096;

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
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: slipway-healthcheck\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.len() < LONGEST && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
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
    use super::status;

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
