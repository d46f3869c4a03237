//! Droplets that are copied or uploaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use slipway_layers::{ArchiveError, Limits, decompress, scan_tar};
use uuid::Uuid;

use super::audit::AuditSubject;
use super::lifecycle::{app_event, lock, record};
use super::manifest::yaml;
use super::specs::LayerRef;
use super::{DomainError, DomainResult, removal, stored};
use crate::blobs::{BlobError, storing};
use crate::context::Context;
use crate::reserve::{Reserve, ReserveWriter};
use crate::store::apps::AppRow;
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

/// Asks for the removal of a droplet of this app; gives the job.
///
/// # Errors
/// When the database fails.
pub(crate) async fn delete(context: &Context, actor: &AuditSubject, app: &AppRow, droplet: Uuid) -> DomainResult<Uuid> {
    let data = json!({ "droplet_guid": droplet });
    let event = app_event(context, "audit.app.droplet.delete", actor, app, data).await?;
    removal::request_recorded(context, &event, "droplet.delete", "droplet", droplet).await
}

/// Makes a droplet that waits for its upload, or a copy of another.
///
/// # Errors
/// [`DomainError::Invalid`] when the source is not staged.
pub async fn create(
    context: &Context,
    actor: &AuditSubject,
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
        execution_metadata: source.as_ref().map_or_else(String::new, |source| source.execution_metadata.clone()),
    };
    if let Some(size) = new.blob_size {
        stored::check_tx(&mut tx, &context.config.limits, app.guid, size).await?;
    }
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
    actor: &AuditSubject,
    row: &DropletRow,
    bits: &Path,
    name: &str,
) -> DomainResult<Uuid> {
    let (path, name) = (bits.to_owned(), name.chars().take(200).flat_map(char::escape_debug).collect::<String>());
    let limits = Limits {
        max_bytes: context.config.limits.max_package_unpacked_bytes,
        max_entries: context.config.limits.max_package_files,
    };
    let reserve = context.blobs.reserve().cloned();
    let (found, stored_path) = tokio::task::spawn_blocking(move || inspect(&path, &name, limits, reserve.as_ref()))
        .await
        .map_err(|error| DomainError::internal("judging a droplet", error))??;
    let mut process_types = found.process_types;
    super::apps::merge(&mut process_types, &row.process_types);
    if let Some(types) = process_types.as_object() {
        check_process_types(types.keys())?;
    }
    let storing = |error: BlobError| error.while_doing("storing a droplet");
    let file = context.blobs.digest(&stored_path).await.map_err(storing)?;
    stored::charge(context, row.app_guid, &file).await?;
    context.blobs.put_digested(&file).await.map_err(storing)?;
    let (digest, size) = (file.digest, file.size);
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
        execution_metadata: String::new(),
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

/// What an uploaded droplet says about itself.
#[derive(Debug, Default)]
struct DropletContents {
    process_types: Value,
    layers: Vec<LayerRef>,
    stack: Option<String>,
}

/// Why an archive is refused, or could not be judged.
struct Refusal(DomainError);

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        Self(refused(error))
    }
}

fn refused(problem: impl std::fmt::Display) -> DomainError {
    DomainError::invalid(format!("Uploaded droplet file is invalid: {problem}"))
}

/// Looks at an archive, and packs a gzip one as the Zstandard one that a build makes: a droplet that was downloaded and comes
/// back has the digest that it had, on cells too. Gives the file to be kept.
fn inspect(
    path: &Path,
    name: &str,
    limits: Limits,
    reserve: Option<&Reserve>,
) -> DomainResult<(DropletContents, PathBuf)> {
    let io = |error| storing("reading an uploaded droplet", error);
    let mut file = File::open(path).map_err(io)?;
    let mut magic = [0_u8; 4];
    let read = file.read(&mut magic).map_err(io)?;
    file.rewind().map_err(io)?;
    if read >= 2 && magic[..2] == [0x1f, 0x8b] {
        let target = path.with_extension("tar.zst");
        let encoder =
            slipway_layers::compressor(ReserveWriter::new(File::create(&target).map_err(io)?, reserve)).map_err(io)?;
        let mut copied = TeeReader { from: decompress(file, "tar.gz").map_err(refused)?, to: encoder, failed: None };
        let found = entries(&mut copied, limits);
        if let Some(error) = copied.failed {
            return Err(storing("packing an uploaded droplet", error));
        }
        copied.to.finish().map_err(io)?;
        Ok((found?, target))
    } else if read == 4 && magic == [0x28, 0xb5, 0x2f, 0xfd] {
        Ok((entries(decompress(file, "tar.zst").map_err(refused)?, limits)?, path.to_owned()))
    } else {
        // Cloud Foundry goes by the ending of the name; here the content counts, and droplets are kept as Zstandard.
        Err(refused(format!(
            "{name} is not a tgz, nor a zstd archive; download one with cf download-droplet to see the format"
        )))
    }
}

/// Writes what is read from it to another place too.
struct TeeReader<R, W> {
    from: R,
    to: W,
    /// Why that place takes no more: no fault of what is read.
    failed: Option<std::io::Error>,
}

impl<R: Read, W: std::io::Write> Read for TeeReader<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        if let Err(error) = self.to.write_all(&buffer[..read]) {
            self.failed = Some(error);
            return Err(std::io::Error::other("the copy failed"));
        }
        Ok(read)
    }
}

fn entries(reader: impl Read, limits: Limits) -> DomainResult<DropletContents> {
    let mut found = DropletContents { process_types: json!({}), ..DropletContents::default() };
    let scanned = scan_tar(reader, limits, |path, size, content| {
        match path.to_str() {
            Some("slipway.json") => {
                let text = metadata("slipway.json", size, content)?;
                let value: Value = serde_json::from_str(&text)
                    .map_err(|error| Refusal(refused(format!("its slipway.json is not readable ({error})"))))?;
                read_own(&value, &mut found).map_err(Refusal)?;
            }
            Some("staging_info.yml") => {
                let text = metadata("staging_info.yml", size, content)?;
                let value = yaml::parse(&text)
                    .map_err(|error| Refusal(refused(format!("its staging_info.yml is not readable ({error})"))))?;
                if let Some(command) = value.get("start_command").and_then(Value::as_str)
                    && found.process_types.get("web").is_none()
                {
                    found.process_types["web"] = command.into();
                }
            }
            _ => {}
        }
        Ok::<(), Refusal>(())
    });
    scanned.map_err(|Refusal(error)| error)?;
    Ok(found)
}

fn metadata(name: &str, size: u64, content: &mut dyn Read) -> Result<String, Refusal> {
    if size > MAX_METADATA {
        return Err(Refusal(refused(format!("its {name} has {size} bytes; it may have {MAX_METADATA}"))));
    }
    let mut text = String::new();
    content
        .read_to_string(&mut text)
        .map_err(|error| Refusal(refused(format!("its {name} is not readable ({error})"))))?;
    Ok(text)
}

fn read_own(value: &Value, found: &mut DropletContents) -> DomainResult<()> {
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

    const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_entries: 100 };

    #[test]
    fn a_layered_droplet_keeps_its_runtimes_and_a_classic_one_its_command() {
        let own =
            r#"{"layers":[{"line":"node-22","digest":"ab"}],"process_types":{"web":"node ."},"stack":"debian12"}"#;
        let found = entries(&archive(&[("./slipway.json", own)])[..], LIMITS).expect("good");
        assert_eq!(found.layers[0].line, "node-22");
        assert_eq!(found.process_types["web"], "node .");
        let found = entries(&archive(&[("staging_info.yml", "start_command: ./run\n")])[..], LIMITS);
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

    fn refusal(bytes: &[u8], limits: Limits) -> String {
        entries(bytes, limits).expect_err("refused").to_string()
    }

    #[test]
    fn hostile_archives_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../x"] {
            let error = refusal(&archive(&[(name, "x")]), LIMITS);
            assert!(error.contains("leads out of its directory"), "{error}");
        }
        let error = refusal(&archive(&[("big", "0123456789")]), Limits { max_bytes: 5, ..LIMITS });
        assert!(error.contains("more than the permitted 5 bytes"), "{error}");
        let crowd = archive(&[("x", ""); 101]);
        assert!(refusal(&crowd, LIMITS).contains("more than the permitted 100 files"));
        refusal(&b"no tar at all, but long enough to be read as a header".repeat(12), LIMITS);
    }

    #[test]
    fn metadata_of_a_droplet_is_short_and_printable() {
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
        for name in ["slipway.json", "staging_info.yml"] {
            let error = refusal(&archive(&[(name, &long)]), Limits { max_bytes: 4 << 20, ..LIMITS });
            assert!(error.contains(&format!("its {name} has 1048584 bytes; it may have 1048576")), "{error}");
        }
        let error = refusal(&archive(&[("staging_info.yml", "a: &a [x, x]\nb: [*a, *a]\n")]), LIMITS);
        assert!(error.contains("its staging_info.yml is not readable"), "{error}");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(refusal(&archive(&[("slipway.json", &deep)]), LIMITS).contains("recursion limit"));
    }

    /// A name of 64 MiB in front of the first entry: nothing of it is kept.
    #[test]
    fn a_name_of_any_length_costs_nothing() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(64 << 20);
        header.set_cksum();
        let mut given = 0_u64;
        let name = std::io::repeat(b'a').take(64 << 20);
        let stream = std::io::Read::chain(&header.as_bytes()[..], name);
        let error =
            entries(Counted { from: stream, count: &mut given }, Limits { max_bytes: 4 << 30, max_entries: 10 });
        assert!(error.expect_err("refused").to_string().contains("more than 64 KiB"));
        assert!(given < 1 << 20, "{given} bytes were read");
    }

    struct Counted<'a, R> {
        from: R,
        count: &'a mut u64,
    }

    impl<R: Read> Read for Counted<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = self.from.read(buffer)?;
            *self.count += read as u64;
            Ok(read)
        }
    }
}
