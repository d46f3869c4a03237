//! Sends the files of an app: only those that the platform lacks, again when the connection breaks.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;
use slipway_api_types::error::ErrorCode;
use slipway_api_types::requests::{ResourceChecksum, ResourceEntry, ResourceMatches};
use tokio_util::io::ReaderStream;

use super::archive::pack;
use super::files::{Entry, FilesError, Kind, Source};
use super::{PushError, files};
use crate::client::views::{App, Package};
use crate::client::{Answer, Body, Client, ClientError};
use crate::error::CliError;
use crate::printer::Printer;
use crate::size::human;

/// The platform takes no more in one request.
const MATCH_GROUP: usize = 5000;
/// Tries of one upload, as the `cf` command line does it.
const TRIES: u32 = 3;

/// Uploads a source as a package of the app: its guid, and how many bytes were sent.
pub(super) async fn files(
    client: &Client,
    printer: &Arc<Printer>,
    app: &App,
    source: &Source,
) -> Result<(String, u64), CliError> {
    match source {
        Source::Archive { file, size } => {
            let package = create(client, app, json!({ "type": "bits" })).await?;
            send(client, printer, app, &package, &[], Some((file, *size))).await?;
            Ok((package.guid, *size))
        }
        Source::Directory { root, entries } => {
            let known = matches(client, entries).await?;
            let (matched, lacking): (Vec<Entry>, Vec<Entry>) =
                entries.iter().cloned().partition(|entry| is_known(entry, &known));
            let resources: Vec<ResourceEntry> = matched.iter().filter_map(resource).collect();
            let (package, archive) = futures::future::try_join(create(client, app, json!({ "type": "bits" })), async {
                Ok(if lacking.is_empty() { None } else { Some(pack(root, lacking).await?) })
            })
            .await?;
            let bits = match &archive {
                None => None,
                Some(archive) => {
                    let data = archive.as_file().metadata();
                    let data = data.map_err(|source| FilesError::Read { path: archive.path().into(), source })?;
                    Some((archive.path(), data.len()))
                }
            };
            send(client, printer, app, &package, &resources, bits).await?;
            Ok((package.guid, bits.map_or(0, |(_, size)| size)))
        }
    }
}

/// Makes a package of an image.
pub(super) async fn image(client: &Client, app: &App, image: &str) -> Result<String, CliError> {
    let package = create(client, app, json!({ "type": "docker", "data": { "image": image } })).await?;
    Ok(ready(client, app, package).await?.guid)
}

async fn create(client: &Client, app: &App, mut body: serde_json::Value) -> Result<Package, CliError> {
    body["relationships"] = json!({ "app": { "data": { "guid": app.guid } } });
    Ok(client.send_json(Method::POST, "/v3/packages", body).await?)
}

/// An entry as the platform compares it: files with content only.
fn resource(entry: &Entry) -> Option<ResourceEntry> {
    match &entry.kind {
        Kind::File { size, sha1 } if *size > 0 => Some(ResourceEntry {
            path: entry.path.clone(),
            mode: format!("{:o}", entry.mode),
            checksum: ResourceChecksum { value: sha1.clone() },
            size_in_bytes: *size,
        }),
        _ => None,
    }
}

fn is_known(entry: &Entry, known: &HashSet<(String, u64)>) -> bool {
    matches!(&entry.kind, Kind::File { size, sha1 } if *size > 0 && known.contains(&(sha1.clone(), *size)))
}

/// Which contents the platform has, by SHA-1 and size.
async fn matches(client: &Client, entries: &[Entry]) -> Result<HashSet<(String, u64)>, CliError> {
    let resources: Vec<ResourceEntry> = entries.iter().filter_map(resource).collect();
    let mut known = HashSet::new();
    for group in resources.chunks(MATCH_GROUP) {
        let body = ResourceMatches { resources: group.to_vec() };
        let body = serde_json::to_value(body).map_err(|error| CliError::Output(std::io::Error::other(error)))?;
        let found: ResourceMatches = client.send_json(Method::POST, "/v3/resource_matches", body).await?;
        known.extend(found.resources.into_iter().map(|entry| (entry.checksum.value, entry.size_in_bytes)));
    }
    Ok(known)
}

async fn send(
    client: &Client,
    printer: &Arc<Printer>,
    app: &App,
    package: &Package,
    resources: &[ResourceEntry],
    bits: Option<(&Path, u64)>,
) -> Result<(), CliError> {
    let size = bits.map_or(0, |(_, size)| size);
    let known: u64 = resources.iter().map(|entry| entry.size_in_bytes).sum();
    printer.say(&match (bits, resources.len()) {
        (None, _) => "Uploading nothing: the platform has every file.".to_owned(),
        (Some(_), 0) => format!("Uploading {} …", human(size)),
        (Some(_), count) => format!("Uploading {} … (the platform has {count} files, {})", human(size), human(known)),
    });
    let progress = printer.progress("Uploading", size);
    let path = format!("/v3/packages/{}/upload", package.guid);
    let list = serde_json::to_string(resources).map_err(|error| CliError::Output(std::io::Error::other(error)))?;
    let mut tries = 0;
    let sent = loop {
        tries += 1;
        progress.reset();
        let mut form = Form::new().text("resources", list.clone());
        if let Some((file, size)) = bits {
            form = form.part("bits", part(file, size, &progress).await?);
        }
        let error = match client.upload(&path, form).await {
            Ok(answer) => break answer.json::<Package>()?,
            // The try before was complete although its answer was lost.
            Err(error) if tries > 1 && error.has_code(ErrorCode::PackageBitsAlreadyUploaded.code()) => {
                break client.get(&format!("/v3/packages/{}", package.guid)).await?;
            }
            Err(error) => error,
        };
        let again = error.is_passing() || error.has_status(401);
        if tries >= TRIES || !again {
            return Err(match error {
                ClientError::Refused { .. } if !again => error.into(),
                source => PushError::Upload { app: app.name.clone(), tries, source }.into(),
            });
        }
        printer.warn(&format!("the upload broke ({}); trying again", slipway_chassis::errors::chain(&error)));
        tokio::time::sleep(Duration::from_millis(500) * tries).await;
    };
    drop(progress);
    ready(client, app, sent).await?;
    Ok(())
}

/// The archive as a part of the form, read as it is sent.
async fn part(file: &Path, size: u64, progress: &Arc<crate::printer::Progress>) -> Result<Part, CliError> {
    let read = |source| files::FilesError::Read { path: file.to_owned(), source };
    let open = tokio::fs::File::open(file).await.map_err(read)?;
    let progress = Arc::clone(progress);
    let stream = ReaderStream::with_capacity(open, 256 << 10).inspect_ok(move |chunk| progress.add(chunk.len() as u64));
    let name = file.file_name().map_or_else(|| "package.zip".to_owned(), |name| name.to_string_lossy().into_owned());
    let part = Part::stream_with_length(reqwest::Body::wrap_stream(stream), size).file_name(name);
    Ok(part.mime_str("application/octet-stream").map_err(ClientError::Setup)?)
}

/// Waits until the platform has looked at the package.
async fn ready(client: &Client, app: &App, mut package: Package) -> Result<Package, CliError> {
    let path = format!("/v3/packages/{}", package.guid);
    let mut pause = Duration::from_millis(50);
    loop {
        match package.state.as_str() {
            "READY" => return Ok(package),
            "FAILED" | "EXPIRED" => {
                let reason = package.data.get("error").and_then(serde_json::Value::as_str);
                let reason = reason.unwrap_or("it gave no reason").to_owned();
                return Err(PushError::PackageFailed { app: app.name.clone(), reason }.into());
            }
            _ => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
        package = client.send(Method::GET, &path, Body::None).await?.json()?;
    }
}

/// A zip archive that is sent as a whole: one that is there, or one of a directory, which goes when it is dropped.
pub(crate) struct Zip {
    file: std::path::PathBuf,
    size: u64,
    _packed: Option<tempfile::NamedTempFile>,
}

impl Zip {
    /// The archive at a path, or one of the directory there.
    pub(crate) async fn of(path: &Path, printer: &Printer) -> Result<Self, CliError> {
        match Source::find(path, printer).await? {
            Source::Archive { file, size } => Ok(Self { file, size, _packed: None }),
            Source::Directory { root, entries } => {
                let packed = pack(&root, entries).await?;
                let file = packed.path().to_owned();
                let data = packed.as_file().metadata();
                let size = data.map_err(|source| FilesError::Read { path: file.clone(), source })?.len();
                Ok(Self { file, size, _packed: Some(packed) })
            }
        }
    }

    /// Sends it as the part `bits` of a form.
    pub(crate) async fn upload(&self, client: &Client, printer: &Arc<Printer>, to: &str) -> Result<Answer, CliError> {
        printer.say(&format!("Uploading {} …", human(self.size)));
        let progress = printer.progress("Uploading", self.size);
        let form = Form::new().part("bits", part(&self.file, self.size, &progress).await?);
        Ok(client.upload(to, form).await?)
    }
}
