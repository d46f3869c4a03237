//! The HTTP API without the client: requests that no honest client would send.

use std::io::{Cursor, Write as _};

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::Platform;

const BOUNDARY: &str = "slipway-test-boundary";

/// A client with the administrator's token.
pub struct Api {
    client: reqwest::Client,
    address: std::net::SocketAddr,
    base: String,
    token: String,
}

impl Api {
    /// Logs in as the administrator.
    ///
    /// # Errors
    /// When the platform does not give a token.
    pub async fn admin(platform: &Platform) -> anyhow::Result<Self> {
        let client = platform.client(&Platform::host("api"))?;
        let base = platform.url("api");
        let password = std::fs::read_to_string(platform.layout().state("admin-password"))?;
        let form = [("grant_type", "password"), ("username", "admin"), ("password", password.trim())];
        let request = client.post(format!("{base}/oauth/token")).basic_auth("cf", Some("")).form(&form);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str().context("no access_token")?.to_owned();
        Ok(Self { client, address: platform.router_address(), base, token })
    }

    /// Sends JSON text, well-formed or not.
    ///
    /// # Errors
    /// When no JSON answer comes.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<String>) -> anyhow::Result<(u16, Value)> {
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        answer(request.header("content-type", "application/json").body(body.into())).await
    }

    /// Makes something and gives its guid.
    ///
    /// # Errors
    /// When the platform refuses.
    pub async fn make(&self, path: &str, body: Value) -> anyhow::Result<String> {
        let (status, made) = self.send(Method::POST, path, body.to_string()).await?;
        ensure!(status == StatusCode::CREATED, "POST {path}: {status} {made}");
        Ok(made["guid"].as_str().context("no guid")?.to_owned())
    }

    /// The guid of the one thing with this name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn find(&self, collection: &str, name: &str) -> anyhow::Result<String> {
        let (_, page) = self.send(Method::GET, &format!("/v3/{collection}?names={name}"), "").await?;
        let guid = page["resources"][0]["guid"].as_str();
        Ok(guid.with_context(|| format!("no {name} in {collection}: {page}"))?.to_owned())
    }

    /// Uploads an archive as the part `bits` of a form.
    ///
    /// # Errors
    /// When no JSON answer comes.
    pub async fn upload(&self, path: &str, bits: &[u8], headers: &[(&str, &str)]) -> anyhow::Result<(u16, Value)> {
        let mut request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        answer(request.header("content-type", kind).body(form(bits))).await
    }

    /// Announces an upload, sends half of it and cuts the connection.
    ///
    /// # Errors
    /// When the router does not take the connection.
    pub async fn upload_half(&self, path: &str, bits: &[u8]) -> anyhow::Result<()> {
        let body = form(bits);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: bearer {}\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: {}\r\n\r\n",
            Platform::host("api"),
            self.token,
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(self.address).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body[..body.len() / 2]).await?;
        // Half closed first: the platform sees an end, not a reset that might overtake what was sent.
        stream.shutdown().await?;
        let mut said = Vec::new();
        // Whatever it says to a cut connection is fine; what counts is what it keeps.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut said)).await;
        Ok(())
    }

    /// Installs a buildpack made of shell scripts and gives its guid.
    ///
    /// # Errors
    /// When the platform refuses.
    pub async fn buildpack(&self, name: &str, scripts: &[(&str, &str)]) -> anyhow::Result<String> {
        let guid = self.make("/v3/buildpacks", json!({ "name": name })).await?;
        let names: Vec<(String, String)> =
            scripts.iter().map(|(name, text)| (format!("bin/{name}"), format!("#!/bin/bash\n{text}\n"))).collect();
        let entries: Vec<Entry<'_>> =
            names.iter().map(|(name, text)| Entry::File(name, text.as_bytes().to_vec())).collect();
        let (status, body) = self.upload(&format!("/v3/buildpacks/{guid}/upload"), &zip_of(&entries)?, &[]).await?;
        ensure!(status == StatusCode::ACCEPTED, "upload of {name}: {status} {body}");
        Ok(guid)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<(u16, Value)> {
    // Decompressing a bomb up to its limit takes longer than an ordinary request.
    let response = request.timeout(std::time::Duration::from_secs(120)).send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    if text.is_empty() {
        return Ok((status, Value::Null));
    }
    let value = serde_json::from_str(&text).with_context(|| format!("{status}, not JSON: {text}"))?;
    Ok((status, value))
}

fn form(bits: &[u8]) -> Vec<u8> {
    let mut body = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"bits\"; filename=\"app.zip\"\r\ncontent-type: application/zip\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bits);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// An entry of an archive.
pub enum Entry<'a> {
    /// An executable file.
    File(&'a str, Vec<u8>),
    /// A symbolic link and its target.
    Link(&'a str, &'a str),
    /// This many MiB of zeros.
    Zeros(&'a str, usize),
}

/// An archive with these entries, whatever their names.
///
/// # Errors
/// When the writer refuses.
pub fn zip_of(entries: &[Entry<'_>]) -> anyhow::Result<Vec<u8>> {
    let options = SimpleFileOptions::default().unix_permissions(0o755);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        match entry {
            Entry::File(name, content) => {
                writer.start_file(*name, options)?;
                writer.write_all(content)?;
            }
            Entry::Link(name, target) => writer.add_symlink(*name, *target, options)?,
            Entry::Zeros(name, mib) => {
                writer.start_file(*name, options)?;
                let block = vec![0_u8; 1 << 20];
                for _ in 0..*mib {
                    writer.write_all(&block)?;
                }
            }
        }
    }
    Ok(writer.finish()?.into_inner())
}

/// Code and text of the first error of an answer.
#[must_use]
pub fn error(body: &Value) -> (u64, &str) {
    let first = &body["errors"][0];
    (first["code"].as_u64().unwrap_or(0), first["detail"].as_str().unwrap_or(""))
}
