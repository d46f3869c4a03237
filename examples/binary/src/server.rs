//! Answers every request with the instance that served it. Standard library only, so that it is built by `rustc` alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".into());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("listening on {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("a connection failed: {error}");
            }
        });
    }
    Ok(())
}

/// Answers the requests of one connection, one after the other, until the client has no more.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((body, last)) = read_head(&mut reader)? {
        std::io::copy(&mut (&mut reader).take(body), &mut std::io::sink())?;
        let variable = |name: &str| std::env::var(name).unwrap_or_default().replace(['"', '\\'], "");
        let body = format!(
            "{{\"app\":\"binary\",\"instance\":{},\"greeting\":\"{}\"}}\n",
            variable("CF_INSTANCE_INDEX").parse::<u32>().unwrap_or(0),
            variable("GREETING")
        );
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        let close = if last { "Connection: close\r\n" } else { "" };
        let text = format!("{head}\r\nContent-Length: {}\r\n{close}\r\n{body}", body.len());
        stream.write_all(text.as_bytes())?;
        if last {
            break;
        }
    }
    Ok(())
}

/// Reads the head of a request: how long its body is, and whether the client wants the connection closed. `None` = there
/// is no further request.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<(u64, bool)>> {
    let (mut body, mut last) = (0, false);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    // A head ends with an empty line.
    while line.len() > 2 {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(length) = lower.strip_prefix("content-length:") {
            body = length.trim().parse().unwrap_or(0);
        }
        last |= lower.starts_with("connection:") && lower.contains("close");
    }
    Ok(Some((body, last)))
}
