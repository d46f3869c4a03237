//! Asking for builds.

use serde_json::{Value, json};
use slipway_api_types::ErrorCode;
use slipway_protocol::v1;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::compose::{self, Phase, store_spec};
use super::lifecycle::{lock, record};
use super::metadata::MetadataChange;
use super::processes::{check_disk, check_memory};
use super::quota::{self, Demand, DemandKind};
use super::specs::{self, BuildFacts};
use super::stacks;
use super::{DomainError, DomainResult, stored};
use crate::context::Context;
use crate::store::buildpacks::{BuildpackRow, buildpacks_tx};
use crate::store::builds::{BuildRow, NewBuild, build_insert_tx, build_is_open_tx};
use crate::store::change_log::ChangeKind;
use crate::store::packages::PackageRow;
use crate::store::processes::{ProcessRow, processes_of_app_tx};
use crate::store::specs::layers_tx;
use crate::store::stacks::stack_state_tx;

/// A build to be made.
#[derive(Clone, Debug, Default)]
pub struct BuildCreate {
    /// Instead of the app's.
    pub buildpacks: Option<Vec<String>>,
    /// Instead of the app's.
    pub stack: Option<String>,
    /// MiB.
    pub memory_mb: Option<i64>,
    /// MiB.
    pub disk_mb: Option<i64>,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

/// Buildpacks by name or git address, as the builder wants them.
///
/// # Errors
/// [`DomainError::Invalid`] with the text that clients know.
pub fn resolve(names: &[String], known: &[BuildpackRow]) -> DomainResult<Vec<v1::BuildpackRef>> {
    names
        .iter()
        .map(|name| {
            find(name, known).ok_or_else(|| {
                DomainError::invalid(format!(
                    "Buildpack \"{}\" must be an existing admin buildpack or a valid git URI",
                    shown(name)
                ))
            })
        })
        .collect()
}

/// Refuses what [`resolve`] refuses, in the words for an app that a manifest is about to make: clients know both.
///
/// # Errors
/// [`DomainError::Invalid`] naming the buildpack.
pub fn check_for_new_app(names: &[String], known: &[BuildpackRow]) -> DomainResult<()> {
    names.iter().find(|name| find(name, known).is_none()).map_or(Ok(()), |name| {
        Err(DomainError::invalid(format!("Specified unknown buildpack name: \"{}\"", shown(name))))
    })
}

fn find(name: &str, known: &[BuildpackRow]) -> Option<v1::BuildpackRef> {
    if let Some(row) = known.iter().find(|row| row.name == name && is_usable(row)) {
        return Some(reference(row));
    }
    let is_git = ["https://", "http://", "git://", "ssh://", "git@"].iter().any(|scheme| name.starts_with(scheme));
    let fits = name.len() <= 2048 && !name.chars().any(|c| c.is_whitespace() || c.is_control());
    (is_git && fits).then(|| v1::BuildpackRef {
        name: name.to_owned(),
        url: name.to_owned(),
        ..v1::BuildpackRef::default()
    })
}

fn shown(name: &str) -> String {
    name.chars().take(200).collect()
}

fn is_usable(row: &BuildpackRow) -> bool {
    row.enabled
        && row.lifecycle == "buildpack"
        && (row.builtin.is_some() || (row.state == "READY" && row.blob.is_some()))
}

fn reference(row: &BuildpackRow) -> v1::BuildpackRef {
    let blob = match (&row.builtin, &row.blob) {
        (None, Some(digest)) => Some(v1::Blob {
            digest: digest.clone().into(),
            size: row.blob_size.unwrap_or(0).unsigned_abs(),
            format: "zip".to_owned(),
        }),
        _ => None,
    };
    v1::BuildpackRef {
        name: row.name.clone(),
        builtin: row.builtin.clone().unwrap_or_default(),
        blob,
        url: String::new(),
    }
}

/// Asks for a build of a package.
///
/// # Errors
/// 400 with the text that clients know when the package is not ready; `CF-StagingInProgress`; beyond a quota or any
/// cell.
pub async fn create(
    context: &Context,
    actor: &AuditSubject,
    email: Option<&str>,
    package: &PackageRow,
    wish: BuildCreate,
) -> DomainResult<BuildRow> {
    let (Some(blob), Some(blob_size), "READY") = (&package.blob, package.blob_size, package.state.as_str()) else {
        return Err(DomainError::BadRequest("Bad request: Cannot stage package whose state is not ready.".to_owned()));
    };
    let mut tx = context.store.begin().await?;
    let mut app = lock(&mut tx, package.app_guid).await?;
    stored::check_tx(&mut tx, &context.config.limits, app.guid, 0).await?;
    if build_is_open_tx(&mut tx, app.guid).await? {
        return Err(DomainError::refused(
            ErrorCode::StagingInProgress,
            "Only one build can be STAGING at a time per application.",
        ));
    }
    if let Some(stack) = wish.stack {
        app.lifecycle_stack = stack;
    }
    if let Some((state, reason)) = stack_state_tx(&mut tx, &app.lifecycle_stack).await? {
        stacks::check(&app.lifecycle_stack, &state, reason.as_deref(), app.droplet_guid.is_some())?;
    }
    let names = wish.buildpacks.unwrap_or_else(|| app.lifecycle_buildpacks.clone());
    let known = buildpacks_tx(&mut tx).await?;
    let skip_detect = !names.is_empty();
    let buildpacks = match skip_detect {
        true => resolve(&names, &known)?,
        false => known
            .iter()
            .filter(|row| is_usable(row) && row.stack.as_deref().is_none_or(|stack| stack == app.lifecycle_stack))
            .map(reference)
            .collect(),
    };
    let limits = &context.config.limits;
    let floor = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let processes = processes_of_app_tx(&mut tx, app.guid).await?;
    let web = processes.iter().find(|process| process.kind == "web");
    let command = web.and_then(|web| web.command.clone());
    let web = |figure: fn(&ProcessRow) -> i64| web.map_or(0, figure);
    let memory_mb = wish.memory_mb.unwrap_or_else(|| web(|web| web.memory_in_mb).max(floor(limits.staging_memory_mb)));
    let disk_mb = wish.disk_mb.unwrap_or_else(|| web(|web| web.disk_in_mb).max(floor(limits.staging_disk_mb)));
    check_memory("Staging memory", memory_mb)?;
    check_disk("Staging disk", disk_mb)?;
    let what = "The build".to_owned();
    let demand = Demand { kind: DemandKind::Build, what, instances: 0, memory_mb, disk_mb, log_rate: 0 };
    quota::check_extra(limits, &mut tx, app.space_guid, app.guid, demand, false).await?;

    let guid = Uuid::new_v4();
    let facts = compose::app_facts(context, &mut tx, &app, Phase::Staging).await?;
    let cache = match (&app.build_cache, app.build_cache_size) {
        (Some(digest), Some(size)) => {
            Some(v1::Blob { digest: digest.clone().into(), size: size.unsigned_abs(), format: "tar.zst".to_owned() })
        }
        _ => None,
    };
    let build = BuildFacts {
        guid,
        package: v1::Blob { digest: blob.clone().into(), size: blob_size.unsigned_abs(), format: "zip".to_owned() },
        buildpacks,
        skip_detect,
        command,
        cache,
        memory_mb: memory_mb.unsigned_abs(),
        disk_mb: disk_mb.unsigned_abs(),
        timeout_ms: u32::try_from(limits.staging_timeout_s.saturating_mul(1000)).unwrap_or(u32::MAX),
    };
    let composed = specs::build(&facts, &build, &layers_tx(&mut tx).await?)?;
    store_spec(context, &mut tx, "build", &composed).await?;
    let lifecycle = json!({ "type": "buildpack", "data": { "buildpacks": names, "stack": app.lifecycle_stack } });
    let created_by: Value = json!({ "guid": actor.guid, "name": actor.name, "email": email });
    let new = NewBuild {
        guid,
        app_guid: app.guid,
        package_guid: package.guid,
        spec: &composed.digest,
        lifecycle: &lifecycle,
        memory_mb,
        disk_mb,
        created_by: &created_by,
        labels: &wish.metadata.labels,
        annotations: &wish.metadata.annotations,
    };
    let row = build_insert_tx(&mut tx, &new).await?;
    let data = json!({ "build_guid": guid, "package_guid": package.guid });
    record(&mut tx, "audit.app.build.create", actor, &app, data).await?;
    context.store.commit(tx, &[(ChangeKind::Build, guid)]).await?;
    Ok(row)
}

/// What the developer should know about the stack of a build that has begun.
///
/// # Errors
/// When the database fails.
pub(crate) async fn stack_warning(context: &Context, row: &BuildRow) -> DomainResult<Option<String>> {
    let Some(name) = row.lifecycle["data"]["stack"].as_str() else { return Ok(None) };
    let mut connection = context.store.pool().acquire().await?;
    let Some((state, reason)) = stack_state_tx(&mut connection, name).await? else { return Ok(None) };
    Ok(stacks::check(name, &state, reason.as_deref(), true).unwrap_or_default())
}
