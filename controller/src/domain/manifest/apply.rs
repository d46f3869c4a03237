//! Applying a manifest: one transaction for all of its apps, so that a refusal of the last leaves the first untouched.

use serde_json::json;
use slipway_api_types::ErrorCode;
use slipway_api_types::views::CheckView;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{AppManifest, CheckManifest, Manifest, ProcessManifest, ServiceManifest, routes};
use crate::context::Context;
use crate::domain::apps::{self, AppCreate, AppUpdate};
use crate::domain::audit::AuditSubject;
use crate::domain::compose::check_of;
use crate::domain::deployments::{self, Disturbance};
use crate::domain::lifecycle::{make_process, record};
use crate::domain::metadata::MetadataChange;
use crate::domain::processes::{ProcessUpdate, Scale, save_tx};
use crate::domain::services::bindings::{self, BindingWish};
use crate::domain::services::operation::LastOperation;
use crate::domain::{DomainError, DomainResult, builds, sidecars};
use crate::store::apps::{AppRow, app_lock_by_name_tx};
use crate::store::buildpacks::buildpacks_tx;
use crate::store::change_log::ChangeKind;
use crate::store::done_jobs::job_done_tx;
use crate::store::processes::processes_of_app_tx;
use crate::store::routes::route_figures_tx;
use crate::store::services::bindings::bindings_of_app_tx;
use crate::store::services::instances::{instance_hold_tx, instance_named_tx};

/// Applies; gives the job, which is complete. `no_new_routes` is why the caller may not make any, if so.
///
/// # Errors
/// [`DomainError::Invalid`] naming the app and what is wrong with it.
pub async fn apply(
    context: &Context,
    actor: &AuditSubject,
    space: Uuid,
    org: Uuid,
    manifest: &Manifest,
    no_new_routes: Option<String>,
) -> DomainResult<Uuid> {
    let mut tx = context.store.begin().await?;
    let before = route_figures_tx(&mut tx, space).await?.space_routes;
    let mut changes = Vec::new();
    for wish in &manifest.apps {
        one(context, &mut tx, actor, space, org, wish, &mut changes).await.map_err(|error| label(wish, error))?;
    }
    if let Some(detail) = no_new_routes
        && route_figures_tx(&mut tx, space).await?.space_routes > before
    {
        return Err(DomainError::refused(ErrorCode::FeatureDisabled, detail));
    }
    let warnings: Vec<_> = manifest.warnings.iter().map(|detail| json!({ "detail": detail })).collect();
    let job = job_done_tx(&mut tx, "space.apply_manifest", "space", space, &json!(warnings), &actor.guid).await?;
    context.store.commit(tx, &changes).await?;
    Ok(job)
}

fn label(wish: &AppManifest, error: DomainError) -> DomainError {
    match error {
        DomainError::Invalid(detail) if !detail.starts_with("For application") => {
            DomainError::Invalid(format!("For application '{}': {detail}", wish.name))
        }
        DomainError::Refused { code, detail } => {
            DomainError::Refused { code, detail: format!("For application '{}': {detail}", wish.name) }
        }
        error => error,
    }
}

async fn one(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    space: Uuid,
    org: Uuid,
    wish: &AppManifest,
    changes: &mut Vec<(ChangeKind, Uuid)>,
) -> DomainResult<()> {
    let mut app = find_or_create(context, tx, actor, space, wish).await?;
    changes.push((ChangeKind::App, app.guid));
    if !wish.env.is_empty() {
        apps::set_environment_tx(context, tx, &mut app, wish.env.clone()).await?;
    }
    for process in &wish.processes {
        make_process(context, tx, actor, &app, &process.kind).await?;
    }
    let rolling = deployments::rolling_types(tx, app.guid).await?;
    for process in &wish.processes {
        let scaled = Scale::default() != process.scale;
        let updated =
            *process != ProcessManifest { kind: process.kind.clone(), scale: process.scale, ..Default::default() };
        for (asked, disturbance) in [(updated, Disturbance::Update), (scaled, Disturbance::Scale)] {
            if asked {
                deployments::refuse_change(&rolling, &process.kind, disturbance)?;
            }
        }
    }
    for process in wish.processes.iter().filter(|process| rolling.contains(&process.kind)) {
        if Scale::default() != process.scale {
            let scaled =
                deployments::rescale_tx(&context.config.limits, tx, &app, &process.kind, &process.scale).await?;
            changes.extend(scaled.into_iter().map(|row| (ChangeKind::Process, row.guid)));
        }
    }
    let mut all = processes_of_app_tx(tx, app.guid).await?;
    let mut changed = Vec::new();
    for process in wish.processes.iter().filter(|process| !rolling.contains(&process.kind)) {
        let Some(row) = all.iter_mut().find(|row| row.kind == process.kind) else { continue };
        process.scale.apply(row)?;
        let update = ProcessUpdate {
            command: process.command.clone(),
            health: merged(&process.health, check_of(&row.health_check)?),
            readiness: merged(&process.readiness, check_of(&row.readiness_health_check)?),
            metadata: MetadataChange::default(),
        };
        update.apply(row)?;
        changed.push(row.guid);
        changes.push((ChangeKind::Process, row.guid));
    }
    save_tx(&context.config.limits, tx, &app, &all, &changed).await?;
    for sidecar in &wish.sidecars {
        sidecars::put_tx(tx, app.guid, sidecar).await?;
    }
    let routes = routes::distinct(routes::apply(context, tx, actor, &app, org, wish).await?);
    changes.extend(routes.into_iter().map(|route| (ChangeKind::Route, route)));
    for service in &wish.services {
        bind(tx, actor, &app, service).await?;
    }
    // As on Cloud Foundry: a manifest changes the app, and says that it was the one.
    let update = json!({ "manifest_triggered": true, "request": { "name": app.name } });
    record(tx, "audit.app.update", actor, &app, update).await?;
    record(tx, "audit.app.apply_manifest", actor, &app, json!({})).await
}

/// Binds a service instance, unless the app is bound to it already.
async fn bind(
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    service: &ServiceManifest,
) -> DomainResult<()> {
    let missing = || DomainError::invalid(format!("Service instance '{}' not found", service.name));
    let found = instance_named_tx(tx, app.space_guid, &service.name).await?.ok_or_else(missing)?;
    let instance = instance_hold_tx(tx, found.guid).await?.ok_or_else(missing)?;
    let bound = bindings_of_app_tx(tx, app.guid).await?;
    let bound = bound.iter().any(|binding| {
        binding.service_instance_guid == instance.guid && LastOperation::has_been_made(&binding.last_operation)
    });
    if bound {
        return Ok(());
    }
    let of_service = |detail: String| DomainError::invalid(format!("For service '{}': {detail}", service.name));
    if service.has_parameters && instance.is_user_provided() {
        return Err(of_service("Binding parameters are not supported for user-provided service instances".to_owned()));
    }
    let wish = BindingWish { name: service.binding_name.clone(), ..BindingWish::default() };
    match bindings::bind_tx(tx, actor, app, &instance, wish).await {
        Err(DomainError::Invalid(detail)) => Err(of_service(detail)),
        done => done.map(drop),
    }
}

async fn find_or_create(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    space: Uuid,
    wish: &AppManifest,
) -> DomainResult<AppRow> {
    let metadata = MetadataChange::check(wish.metadata.clone())?;
    match app_lock_by_name_tx(tx, space, &wish.name).await? {
        Some(app) if app.deleting => Err(DomainError::invalid("the app is being deleted; push again in a moment")),
        Some(mut app) => {
            let change = AppUpdate {
                name: None,
                lifecycle: wish.lifecycle.clone(),
                metadata,
                ssh: wish.ssh,
                revisions: wish.revisions,
                binding_files: wish.binding_files.clone(),
            };
            apps::update_tx(tx, &mut app, change).await?;
            Ok(app)
        }
        None => {
            let names = wish.lifecycle.buildpacks.as_deref().unwrap_or_default();
            builds::check_for_new_app(names, &buildpacks_tx(tx).await?)?;
            let create = AppCreate {
                name: wish.name.clone(),
                space,
                lifecycle: wish.lifecycle.clone(),
                environment: serde_json::Map::new(),
                metadata,
            };
            let mut app = apps::create_tx(context, tx, actor, create).await?;
            if wish.ssh.is_some() || wish.revisions.is_some() || !wish.binding_files.is_empty() {
                let change = AppUpdate {
                    ssh: wish.ssh,
                    revisions: wish.revisions,
                    binding_files: wish.binding_files.clone(),
                    ..AppUpdate::default()
                };
                apps::update_tx(tx, &mut app, change).await?;
            }
            Ok(app)
        }
    }
}

/// The check with what the manifest says of it; `None` when it says nothing.
fn merged(wish: &CheckManifest, mut check: CheckView) -> Option<CheckView> {
    if *wish == CheckManifest::default() {
        return None;
    }
    if let Some(kind) = &wish.kind {
        if *kind != check.kind && kind != "http" {
            check.data.endpoint = None;
        }
        check.kind.clone_from(kind);
    }
    check.data.endpoint = wish.endpoint.clone().or(check.data.endpoint);
    check.data.timeout = wish.timeout.or(check.data.timeout);
    check.data.invocation_timeout = wish.invocation_timeout.or(check.data.invocation_timeout);
    check.data.interval = wish.interval.or(check.data.interval);
    Some(check)
}
