//! Droplets that are copied or uploaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, Write as _};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use super::audit::Party;
use super::lifecycle::{lock, record};
use super::specs::LayerRef;
use super::{DomainError, DomainResult};
use crate::context::Context;
use crate::store::done_jobs::job_done_tx;
use crate::store::droplets::{DropletRow, NewDroplet, droplet_insert_tx, droplet_keep_tx, droplet_uploaded_tx};
use crate::store::retention::bits_expire_tx;

/// Largest uploaded droplet.
pub const MAX_BYTES: u64 = 4 << 30;
/// Largest metadata file inside a droplet.
const MAX_METADATA: u64 = 1 << 20;
/// Most process types of a droplet, and longest name of one: each becomes a process of its app.
const MAX_TYPES: usize = 100;
const MAX_TYPE_NAME: usize = 255;

/// Checks how many process types there are, and their names.
///
/// # Errors
/// [`DomainError::Invalid`] with the figure.
pub fn check_process_types<'a>(types: impl ExactSizeIterator<Item = &'a String>) -> DomainResult<()> {
    let found = types.len();
    if found > MAX_TYPES {
        return Err(DomainError::invalid(format!(
            "Process types: {found} are named, but a droplet has at most {MAX_TYPES}"
        )));
    }
    for name in types {
        let length = name.chars().count();
        if !(1..=MAX_TYPE_NAME).contains(&length) {
            return Err(DomainError::invalid(format!(
                "Process types: a name has {length} characters, but must have 1 to {MAX_TYPE_NAME}"
            )));
        }
    }
    Ok(())
}

/// Makes a droplet that waits for its upload, or a copy of another.
///
/// # Errors
/// [`DomainError::Invalid`] when the source is not staged.
pub async fn create(
    context: &Context,
    actor: &Party,
    app: Uuid,
    source: Option<DropletRow>,
    process_types: Option<BTreeMap<String, String>>,
) -> DomainResult<DropletRow> {
    let process_types = process_types.unwrap_or_default();
    check_process_types(process_types.keys())?;
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, app).await?;
    let source = match source {
        // It stays until the copy is there, and with it the blob.
        Some(source) => Some(
            droplet_keep_tx(&mut tx, source.guid)
                .await?
                .filter(|source| source.state == "STAGED")
                .ok_or_else(|| DomainError::invalid("Source droplet is not staged."))?,
        ),
        None => None,
    };
    let empty = json!(process_types);
    let new = NewDroplet {
        guid: Uuid::new_v4(),
        app_guid: app.guid,
        package_guid: None,
        build_guid: None,
        state: if source.is_some() { "STAGED" } else { "AWAITING_UPLOAD" },
        blob: source.as_ref().and_then(|source| source.blob.clone()),
        blob_size: source.as_ref().and_then(|source| source.blob_size),
        unpacked_size: source.as_ref().and_then(|source| source.unpacked_size),
        format: source.as_ref().map_or_else(|| "tar.gz".to_owned(), |source| source.format.clone()),
        stack: source.as_ref().and_then(|source| source.stack.clone()),
        buildpacks: source.as_ref().and_then(|source| source.buildpacks.clone()),
        process_types: source.as_ref().map_or(empty, |source| source.process_types.clone()),
        layers: source.as_ref().map_or_else(|| json!([]), |source| source.layers.clone()),
        sonames: source.as_ref().and_then(|source| source.sonames.clone()),
    };
    let row = droplet_insert_tx(&mut tx, &new).await?;
    record(&mut tx, "audit.app.droplet.create", actor, &app, json!({ "droplet_guid": row.guid })).await?;
    tx.commit().await?;
    Ok(row)
}

/// Completes a droplet with an uploaded archive. Gives the job that the client asks about.
///
/// # Errors
/// [`DomainError::Invalid`] naming the entry when the archive is refused; the droplet then still waits.
pub async fn receive(
    context: &Context,
    actor: &Party,
    row: &DropletRow,
    bits: &Path,
    name: &str,
) -> DomainResult<Uuid> {
    let (path, name) = (bits.to_owned(), name.chars().take(200).flat_map(char::escape_debug).collect::<String>());
    let limit = context.config.limits.max_package_unpacked_bytes;
    let found = tokio::task::spawn_blocking(move || inspect(&path, &name, limit))
        .await
        .map_err(|error| DomainError::internal("judging a droplet", error))??;
    let mut process_types = found.process_types;
    super::apps::merge(&mut process_types, &row.process_types);
    if let Some(types) = process_types.as_object() {
        check_process_types(types.keys())?;
    }
    let kept = match found.format {
        "tar.gz" => repacked(bits, limit).await?,
        _ => bits.to_owned(),
    };
    let (digest, size) = context.blobs.put_file(&kept).await.map_err(|error| error.while_doing("storing a droplet"))?;
    let new = NewDroplet {
        guid: row.guid,
        app_guid: row.app_guid,
        package_guid: None,
        build_guid: None,
        state: "STAGED",
        blob: Some(digest.to_vec()),
        blob_size: Some(i64::try_from(size).unwrap_or(i64::MAX)),
        unpacked_size: None,
        format: "tar.zst".to_owned(),
        stack: found.stack,
        buildpacks: None,
        process_types,
        layers: json!(found.layers),
        sonames: None,
    };
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, row.app_guid).await?;
    if !droplet_uploaded_tx(&mut tx, row.guid, &new).await? {
        return Err(DomainError::invalid("Droplet may be uploaded only once. Create a new droplet to upload bits."));
    }
    bits_expire_tx(&mut tx, app.guid).await?;
    record(&mut tx, "audit.app.droplet.upload", actor, &app, json!({ "droplet_guid": row.guid })).await?;
    let job = job_done_tx(&mut tx, "droplet.upload", "droplet", row.guid, &json!([]), &actor.guid).await?;
    tx.commit().await?;
    Ok(job)
}

/// A gzip archive as the Zstandard one that a build makes: a droplet that was downloaded and comes back has the digest that
/// it had, on cells too. Also the first to read the archive to its end, where its checksum is.
async fn repacked(bits: &Path, limit: u64) -> DomainResult<PathBuf> {
    let (from, to) = (bits.to_owned(), bits.with_extension("tar.zst"));
    let target = to.clone();
    let repack = move || -> DomainResult<()> {
        let io = |error| DomainError::internal("packing an uploaded droplet", error);
        let file = File::open(&from).map_err(io)?;
        let mut tar = flate2::read::GzDecoder::new(BufReader::new(file)).take(limit.saturating_add(1));
        let mut encoder = slipway_layers::compressor(File::create(&target).map_err(io)?).map_err(io)?;
        let mut piece = vec![0; 1 << 17];
        loop {
            let read = tar.read(&mut piece).map_err(|error| refused(format!("the archive is damaged ({error})")))?;
            if read == 0 {
                break;
            }
            encoder.write_all(&piece[..read]).map_err(io)?;
        }
        encoder.finish().map_err(io)?;
        Ok(())
    };
    tokio::task::spawn_blocking(repack)
        .await
        .map_err(|error| DomainError::internal("packing an uploaded droplet", error))??;
    Ok(to)
}

/// What an uploaded archive says of itself.
#[derive(Debug, Default)]
struct Found {
    format: &'static str,
    process_types: Value,
    layers: Vec<LayerRef>,
    stack: Option<String>,
}

fn refused(problem: impl std::fmt::Display) -> DomainError {
    DomainError::invalid(format!("Uploaded droplet file is invalid: {problem}"))
}

fn inspect(path: &Path, name: &str, limit: u64) -> DomainResult<Found> {
    let io = |error| DomainError::internal("reading an uploaded droplet", error);
    let mut file = File::open(path).map_err(io)?;
    let mut magic = [0_u8; 4];
    let read = file.read(&mut magic).map_err(io)?;
    file.rewind().map_err(io)?;
    let file = BufReader::new(file);
    if read >= 2 && magic[..2] == [0x1f, 0x8b] {
        entries(flate2::read::GzDecoder::new(file), "tar.gz", limit)
    } else if read == 4 && magic == [0x28, 0xb5, 0x2f, 0xfd] {
        entries(zstd::Decoder::new(file).map_err(io)?, "tar.zst", limit)
    } else {
        // Cloud Foundry goes by the ending of the name; here the content counts, and droplets are kept as Zstandard.
        Err(refused(format!(
            "{name} is not a tgz, nor a zstd archive; download one with cf download-droplet to see the format"
        )))
    }
}

fn entries(reader: impl Read, format: &'static str, limit: u64) -> DomainResult<Found> {
    let damaged = |error: std::io::Error| refused(format!("the archive is damaged ({error})"));
    let mut found = Found { format, process_types: json!({}), ..Found::default() };
    // One byte more than allowed tells "too large" from "ends here".
    let mut archive = tar::Archive::new(reader.take(limit.saturating_add(1)));
    let mut total = 0_u64;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        total = total.saturating_add(entry.size());
        if total > limit {
            return Err(refused(format!("it unpacks to more than {limit} bytes")));
        }
        let name = entry.path().map_err(damaged)?.into_owned();
        if name.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refused(format!("the entry {:?} leaves the directory", name.display())));
        }
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
            return Err(refused(format!("the entry {:?} is neither a file, a directory nor a link", name.display())));
        }
        let plain: Vec<_> = name.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let [Component::Normal(only)] = plain.as_slice() else { continue };
        match only.to_str() {
            Some("slipway.json") => {
                let value: Value = serde_json::from_reader((&mut entry).take(MAX_METADATA))
                    .map_err(|error| refused(format!("its slipway.json is not readable ({error})")))?;
                read_own(&value, &mut found)?;
            }
            Some("staging_info.yml") => {
                let value: Value = serde_norway::from_reader((&mut entry).take(MAX_METADATA))
                    .map_err(|error| refused(format!("its staging_info.yml is not readable ({error})")))?;
                if let Some(command) = value.get("start_command").and_then(Value::as_str)
                    && found.process_types.get("web").is_none()
                {
                    found.process_types["web"] = command.into();
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn read_own(value: &Value, found: &mut Found) -> DomainResult<()> {
    if let Some(layers) = value.get("layers") {
        found.layers = serde_json::from_value(layers.clone())
            .map_err(|error| refused(format!("its slipway.json names no readable layers ({error})")))?;
    }
    found.stack = value.get("stack").and_then(Value::as_str).map(ToOwned::to_owned);
    if let Some(Value::Object(types)) = value.get("process_types") {
        let types = types.iter().filter(|(_, command)| command.is_string());
        found.process_types = Value::Object(types.map(|(kind, command)| (kind.clone(), command.clone())).collect());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries_of: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries_of {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // set_path refuses what a hostile archive may hold.
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("append");
        }
        builder.into_inner().expect("tar")
    }

    #[test]
    fn a_layered_droplet_keeps_its_runtimes_and_a_classic_one_its_command() {
        let own =
            r#"{"layers":[{"line":"node-22","digest":"ab"}],"process_types":{"web":"node ."},"stack":"debian12"}"#;
        let found = entries(&archive(&[("./slipway.json", own)])[..], "tar.gz", 1 << 20).expect("good");
        assert_eq!(found.layers[0].line, "node-22");
        assert_eq!(found.process_types["web"], "node .");
        let found = entries(&archive(&[("staging_info.yml", "start_command: ./run\n")])[..], "tar.gz", 1 << 20);
        assert_eq!(found.expect("good").process_types["web"], "./run");
    }

    #[test]
    fn process_types_have_limits() {
        let check = |names: &[String]| check_process_types(names.iter()).map_err(|error| error.to_string());
        let names: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
        assert_eq!(check(&names[..100]), Ok(()));
        assert_eq!(check(&names), Err("Process types: 101 are named, but a droplet has at most 100".to_owned()));
        assert_eq!(check(&["ä".repeat(255)]), Ok(()));
        for (name, length) in [("x".repeat(256), 256), (String::new(), 0)] {
            let text = format!("Process types: a name has {length} characters, but must have 1 to 255");
            assert_eq!(check(&[name]), Err(text));
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../x"] {
            let error = entries(&archive(&[(name, "x")])[..], "tar.gz", 1 << 20).expect_err(name).to_string();
            assert!(error.contains("leaves the directory"), "{error}");
        }
        assert!(entries(&archive(&[("big", "0123456789")])[..], "tar.gz", 5).is_err());
        assert!(
            entries(&b"no tar at all, but long enough to be read as a header".repeat(12)[..], "tar.gz", 1 << 20)
                .is_err()
        );
    }
}
