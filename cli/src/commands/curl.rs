//! `curl`: any request to the API, with the stored token.

use reqwest::Method;

use super::Session;
use crate::args::CurlArgs;
use crate::client::{Body, ClientError};
use crate::error::CliError;

pub(super) async fn curl(session: &Session, args: CurlArgs) -> Result<(), CliError> {
    let usage = |message: String, hint: &str| CliError::Usage { message, hint: hint.to_owned() };
    let name = args.method.unwrap_or_else(|| if args.data.is_some() { "POST" } else { "GET" }.to_owned());
    let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes())
        .map_err(|_| usage(format!("'{name}' is not an HTTP method."), "Use GET, POST, PUT, PATCH or DELETE."))?;
    let mut headers = Vec::new();
    let mut kind = "application/json".to_owned();
    for header in &args.headers {
        let (name, value) = header
            .split_once(':')
            .map(|(name, value)| (name.trim(), value.trim()))
            .filter(|(name, value)| {
                reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && reqwest::header::HeaderValue::from_str(value).is_ok()
            })
            .ok_or_else(|| usage(format!("'{header}' is not a header."), "Write -H 'Name: value'."))?;
        if name.eq_ignore_ascii_case("content-type") {
            value.clone_into(&mut kind);
        } else {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    let body = match &args.data {
        None => Body::None,
        Some(data) => {
            let bytes = match data.strip_prefix('@') {
                None => data.clone().into_bytes(),
                Some(file) => std::fs::read(session.environment.directory.join(file))
                    .map_err(|error| usage(format!("Cannot read {file}: {error}"), "Check the name after the '@'."))?,
            };
            Body::Raw(bytes, kind)
        }
    };
    let path = if args.path.starts_with('/') { args.path } else { format!("/{}", args.path) };
    let answer = session.client()?.exchange(method.clone(), &path, body, &headers).await?;
    if args.include {
        session.printer.data(&format!("HTTP/1.1 {}", answer.status))?;
        for (name, value) in &answer.headers {
            session.printer.data(&format!("{name}: {}", value.to_str().unwrap_or("?")))?;
        }
        session.printer.data("")?;
    }
    match &args.output {
        Some(file) => {
            let file = session.environment.directory.join(file);
            std::fs::write(&file, &answer.body).map_err(CliError::Output)?;
        }
        None if answer.body.is_empty() => {}
        None => {
            session.printer.bytes(&answer.body)?;
            if !answer.body.ends_with(b"\n") {
                session.printer.bytes(b"\n")?;
            }
        }
    }
    if args.fail && answer.status >= 400 {
        let what = format!("{method} {path}");
        return Err(ClientError::Refused { status: answer.status, what, errors: Vec::new() }.into());
    }
    Ok(())
}
