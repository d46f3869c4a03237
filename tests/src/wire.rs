//! A small HTTP/1.1 client for load: one connection, one request at a time, no retries. A client that retries hides what
//! a test looks for, and a large one takes the time that the platform under test should have.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// An answer that takes longer is a failure.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request that was not answered with 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// No connection was to be had; else the request, or its answer, was lost on one.
    pub(crate) refused: bool,
    /// What happened, for people.
    pub(crate) what: String,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { refused: false, what: error.to_string() }
    }
}

/// See the module.
pub(crate) struct WireClient {
    router: SocketAddr,
    host: String,
    connection: Option<BufReader<TcpStream>>,
}

impl WireClient {
    /// A client of the app with this host name.
    pub(crate) fn new(router: SocketAddr, host: &str) -> Self {
        Self { router, host: host.to_owned(), connection: None }
    }

    /// Asks; an answer other than 200 is a failure too.
    ///
    /// # Errors
    /// What happened.
    pub(crate) async fn get(&mut self, path: &str) -> Result<(), Failure> {
        tokio::time::timeout(TIMEOUT, self.exchange(path))
            .await
            .unwrap_or_else(|_| Err(Failure { refused: false, what: format!("no answer in {} s", TIMEOUT.as_secs()) }))
    }

    async fn exchange(&mut self, path: &str) -> Result<(), Failure> {
        // Given back only after a whole answer: whatever fails leaves no connection behind.
        let mut connection = match self.connection.take().filter(is_open) {
            Some(connection) => connection,
            None => {
                let refused = |error: std::io::Error| Failure { refused: true, what: error.to_string() };
                let stream = TcpStream::connect(self.router).await.map_err(refused)?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        connection.write_all(request.as_bytes()).await?;
        let head = read_head(&mut connection).await?;
        match (head.chunked, head.length) {
            (true, _) => skip_chunks(&mut connection).await?,
            (false, Some(length)) => skip(&mut connection, length).await?,
            (false, None) => skip(&mut connection, u64::MAX).await?,
        }
        if !head.close && (head.chunked || head.length.is_some()) {
            self.connection = Some(connection);
        }
        let reason = head.router_error.as_deref().unwrap_or("from the app");
        match head.status {
            200 => Ok(()),
            status => Err(Failure { refused: false, what: format!("{status} ({reason})") }),
        }
    }
}

/// Whether the other side has not closed it while it was idle.
fn is_open(connection: &BufReader<TcpStream>) -> bool {
    let mut byte = [0];
    matches!(connection.get_ref().try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    router_error: Option<String>,
}

async fn line(connection: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        return Err(std::io::Error::other("the connection was closed before the answer"));
    }
    Ok(line.trim_end().to_owned())
}

async fn read_head(connection: &mut BufReader<TcpStream>) -> std::io::Result<Head> {
    let first = line(connection).await?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("not an answer: {first:?}")))?;
    let mut head = Head { status, length: None, chunked: false, close: false, router_error: None };
    loop {
        let field = line(connection).await?;
        let Some((name, value)) = field.split_once(':') else { return Ok(head) };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().ok(),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => head.close = value.eq_ignore_ascii_case("close"),
            "x-cf-routererror" => head.router_error = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// Reads so many bytes; with the largest number, to the end.
async fn skip(connection: &mut BufReader<TcpStream>, length: u64) -> std::io::Result<()> {
    let read = tokio::io::copy(&mut connection.take(length), &mut tokio::io::sink()).await?;
    if read < length && length < u64::MAX {
        return Err(std::io::Error::other(format!("the answer ended after {read} of {length} bytes")));
    }
    Ok(())
}

async fn skip_chunks(connection: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    loop {
        let size = line(connection).await?;
        let length = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
            .map_err(|_| std::io::Error::other(format!("not the size of a chunk: {size:?}")))?;
        skip(connection, length).await?;
        // Behind a chunk, and behind the last one, is an empty line.
        line(connection).await?;
        if length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives these answers, one for each request of one connection, and then closes.
    async fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut stream = BufReader::new(stream);
            for answer in answers {
                while line(&mut stream).await.is_ok_and(|line| !line.is_empty()) {}
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_are_read_whole_and_the_connection_is_used_again() {
        let address = server(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 502 Bad Gateway\r\nX-Cf-RouterError: endpoint_failure\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        ])
        .await;
        let mut client = WireClient::new(address, "app.test");
        assert_eq!(client.get("/").await, Ok(()));
        assert_eq!(client.get("/").await, Ok(()));
        let lost = |what: &str| Err(Failure { refused: false, what: what.to_owned() });
        assert_eq!(client.get("/").await, lost("502 (endpoint_failure)"));
        assert_eq!(client.get("/").await, lost("the answer ended after 5 of 9 bytes"));
        // The one connection of this server is over, and so is its listener.
        let refused = client.get("/").await.expect_err("nobody listens");
        assert!(refused.refused && refused.what.contains("refused"), "{refused:?}");
    }
}
