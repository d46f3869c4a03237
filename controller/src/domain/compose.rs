//! Composing and storing specs in a transaction: reads what [`super::specs`] needs, seals what it makes.

use serde_json::{Map, Value};
use slipway_api_types::views::CheckView;
use slipway_protocol::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::services::bindings;
use super::services::vcap::{BoundService, Delivery};
use super::specs::{self, AppFacts, Composed, DropletFacts, LayerRef, ProcessFacts, SpecError};
use super::{DomainError, DomainResult, start_hint};
use crate::context::Context;
use crate::store::apps::AppRow;
use crate::store::droplets::DropletRow;
use crate::store::processes::{ProcessRow, route_ports_tx};
use crate::store::services::bindings::services_of_app_tx;
use crate::store::services::files::binding_files_tx;
use crate::store::sidecars::sidecars_of_app_tx;
use crate::store::specs as store;
use crate::store::specs::LayerRow;

/// Which of the platform's variable groups and security groups hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Processes and tasks.
    Running,
    /// Builds.
    Staging,
}

impl Phase {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Staging => "staging",
        }
    }
}

/// Place in the vault of an app's environment.
#[must_use]
pub fn environment_place(app: Uuid) -> String {
    format!("app.environment/{app}")
}

/// Place in the vault of a variable group.
#[must_use]
pub fn group_place(name: &str) -> String {
    format!("environment_variable_group/{name}")
}

/// Place in the vault of a spec.
#[must_use]
pub fn spec_place(digest: &[u8]) -> String {
    format!("spec/{}", hex::encode(digest))
}

/// Opens a sealed JSON object; absent is empty.
///
/// # Errors
/// When it cannot be opened, or is not an object.
pub fn open_object(context: &Context, place: &str, sealed: Option<&[u8]>) -> DomainResult<Map<String, Value>> {
    let Some(sealed) = sealed else { return Ok(Map::new()) };
    let plain = context.vault.open(place, sealed)?;
    serde_json::from_slice(&plain).map_err(|error| DomainError::internal(format!("reading {place}"), error))
}

/// Seals a JSON object.
///
/// # Errors
/// When it cannot be sealed.
pub fn seal_object(context: &Context, place: &str, object: &Map<String, Value>) -> DomainResult<Vec<u8>> {
    let plain = serde_json::to_vec(object).map_err(|error| DomainError::internal(format!("writing {place}"), error))?;
    Ok(context.vault.seal(place, &plain)?)
}

/// What every workload of this app needs to know.
///
/// # Errors
/// When the database fails or a sealed value cannot be opened.
pub async fn app_facts(context: &Context, tx: &mut PgConnection, app: &AppRow, phase: Phase) -> DomainResult<AppFacts> {
    let place = store::app_place_tx(tx, app.guid).await?;
    let group = store::environment_group_tx(tx, phase.as_str()).await?;
    Ok(AppFacts {
        guid: app.guid,
        name: place.name,
        space_guid: place.space_guid,
        space_name: place.space_name,
        org_guid: place.org_guid,
        org_name: place.org_name,
        stack: app.lifecycle_stack.clone(),
        uris: store::app_uris_tx(tx, app.guid).await?,
        user_env: open_object(context, &environment_place(app.guid), app.environment.as_deref())?,
        group_env: open_object(context, &group_place(phase.as_str()), group.as_deref())?,
        api_url: context.config.public_url.clone(),
        services: bound_services(context, tx, app.guid).await?,
        delivery: Delivery::of_feature(binding_files_tx(tx, app.guid).await?.as_deref()),
    })
}

async fn bound_services(context: &Context, tx: &mut PgConnection, app: Uuid) -> DomainResult<Vec<BoundService>> {
    let rows = services_of_app_tx(tx, app).await?;
    rows.into_iter()
        .map(|row| {
            let own = row.binding_credentials.as_deref();
            let of_instance = row.instance_credentials.as_deref();
            let credentials = bindings::credentials_of(context, row.binding_guid, own, row.instance_guid, of_instance)?;
            Ok(BoundService {
                label: row.instance_type,
                tags: row.tags,
                instance_guid: row.instance_guid,
                instance_name: row.instance_name,
                binding_guid: row.binding_guid,
                binding_name: row.binding_name,
                credentials,
                syslog_drain_url: row.syslog_drain_url,
            })
        })
        .collect()
}

/// The parts of a droplet that a spec needs.
///
/// # Errors
/// When the droplet is not complete.
pub fn droplet_facts(droplet: &DropletRow) -> DomainResult<DropletFacts> {
    let (Some(digest), Some(size), "STAGED") = (&droplet.blob, droplet.blob_size, droplet.state.as_str()) else {
        return Err(DomainError::invalid(match droplet.state.as_str() {
            "EXPIRED" => format!(
                "The droplet {} is EXPIRED: newer ones have taken its place and its bits are removed; push the app again.",
                droplet.guid
            ),
            state => format!("The droplet {} is {state}, not STAGED; stage or upload it first.", droplet.guid),
        }));
    };
    let layers: Vec<LayerRef> = serde_json::from_value(droplet.layers.clone())
        .map_err(|error| DomainError::internal("reading the layers of a droplet", error))?;
    Ok(DropletFacts {
        blob: v1::Blob { digest: digest.clone().into(), size: size.unsigned_abs(), format: droplet.format.clone() },
        layers,
    })
}

/// The developer's command, else the droplet's for this process type.
#[must_use]
pub fn command_of(process: &ProcessRow, droplet: &DropletRow) -> Option<String> {
    let own = process.command.clone().filter(|command| !command.trim().is_empty());
    own.or_else(|| {
        droplet.process_types.get(&process.kind).and_then(Value::as_str).filter(|text| !text.is_empty()).map(Into::into)
    })
}

/// Seals and stores a spec.
///
/// # Errors
/// When the database fails.
pub async fn store_spec(context: &Context, tx: &mut PgConnection, kind: &str, composed: &Composed) -> DomainResult<()> {
    let body = context.vault.seal(&spec_place(&composed.digest), &composed.body)?;
    let mb = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    store::spec_insert_tx(
        tx,
        &store::NewSpec {
            digest: &composed.digest,
            kind,
            body: &body,
            memory_mb: mb(composed.spec.memory_mb),
            disk_mb: mb(composed.spec.disk_mb),
            stack: &composed.spec.stack,
            blobs: &specs::blobs(&composed.spec),
        },
    )
    .await?;
    Ok(())
}

/// Composes and stores the spec of a process with this version; gives its digest.
///
/// # Errors
/// [`DomainError::Invalid`] when there is no command, or no layer for a line.
pub async fn process_spec(
    context: &Context,
    tx: &mut PgConnection,
    app: &AppFacts,
    droplet: &DropletRow,
    process: &ProcessRow,
    version: Uuid,
    catalogue: &[LayerRow],
) -> DomainResult<[u8; 32]> {
    let command = command_of(process, droplet)
        .ok_or_else(|| DomainError::invalid(start_hint::no_command(&process.kind, &droplet.execution_metadata)))?;
    let ports = route_ports_tx(tx, app.guid, &process.kind).await?;
    let facts = ProcessFacts {
        guid: process.guid,
        kind: process.kind.clone(),
        version,
        command,
        memory_mb: process.memory_in_mb.unsigned_abs(),
        disk_mb: process.disk_in_mb.unsigned_abs(),
        log_rate: process.log_rate_limit,
        health: check_of(&process.health_check)?,
        readiness: check_of(&process.readiness_health_check)?,
        route_ports: ports.into_iter().map(i32::unsigned_abs).collect(),
        sidecars: sidecars_of_app_tx(tx, app.guid)
            .await?
            .into_iter()
            .filter(|sidecar| sidecar.process_types.contains(&process.kind))
            .map(|sidecar| v1::Sidecar { name: sidecar.name, command: sidecar.command })
            .collect(),
    };
    let composed = specs::lrp(app, &droplet_facts(droplet)?, &facts, catalogue)?;
    store_spec(context, tx, "lrp", &composed).await?;
    Ok(composed.digest)
}

/// A stored check.
///
/// # Errors
/// When the column holds something else.
pub fn check_of(stored: &Value) -> DomainResult<CheckView> {
    serde_json::from_value(stored.clone()).map_err(|error| DomainError::internal("reading a health check", error))
}

impl From<SpecError> for DomainError {
    fn from(error: SpecError) -> Self {
        Self::invalid(error.to_string())
    }
}
