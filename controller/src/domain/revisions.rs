//! Revisions: droplet, variables, start commands and sidecars of an app at a start or deployment. One is recorded when
//! something of these differs from the newest one, and says in its description what differs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::AuditSubject;
use super::compose::{open_object, seal_object};
use super::lifecycle::{lock, record};
use super::{DomainError, DomainResult, apps};
use crate::context::Context;
use crate::store::apps::AppRow;
use crate::store::revisions::{
    NewRevision, RevisionRow, commands_tx, revision_insert_tx, revision_latest_tx, revisions_prune_tx,
};
use crate::store::sidecars::sidecars_of_app_tx;

/// Revisions kept of one app, the newest ones.
pub const MAX_REVISIONS: i64 = 100;
/// The last version; the counter begins anew after it.
const LAST_VERSION: i32 = 9_999;

/// Start commands by process type; `None` = the droplet's.
pub type Commands = BTreeMap<String, Option<String>>;

/// A sidecar as a revision remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSidecar {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub command: String,
    /// MiB of its process's memory.
    pub memory_in_mb: Option<i64>,
    /// Beside which processes, sorted.
    pub process_types: Vec<String>,
}

/// What a revision remembers.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// What runs.
    pub droplet: Option<Uuid>,
    /// The app's own variables.
    pub environment: Map<String, Value>,
    /// The developer's commands.
    pub commands: Commands,
    /// By name.
    pub sidecars: Vec<RevisionSidecar>,
}

/// What differs, in sentences that Cloud Foundry uses, in their order. Empty = nothing.
#[must_use]
pub fn reasons(before: &Content, after: &Content) -> Vec<String> {
    let mut reasons = Vec::new();
    if before.droplet != after.droplet {
        reasons.push("New droplet deployed.".to_owned());
    }
    if before.environment != after.environment {
        reasons.push("New environment variables deployed.".to_owned());
    }
    let kinds: BTreeSet<&String> = before.commands.keys().chain(after.commands.keys()).collect();
    for kind in kinds {
        let change = match (before.commands.get(kind), after.commands.get(kind)) {
            (None, _) => format!("New process type '{kind}' added."),
            (_, None) => format!("Process type '{kind}' removed."),
            (Some(before), Some(after)) if before == after => continue,
            (Some(None), _) => format!("Custom start command added for '{kind}' process."),
            (_, Some(None)) => format!("Custom start command removed for '{kind}' process."),
            _ => format!("Custom start command updated for '{kind}' process."),
        };
        reasons.push(change);
    }
    let shape = |content: &Content| -> BTreeMap<String, (String, Vec<String>)> {
        let entry = |one: &RevisionSidecar| (one.name.clone(), (one.command.clone(), one.process_types.clone()));
        content.sidecars.iter().map(entry).collect()
    };
    if shape(before) != shape(after) {
        reasons.push("Sidecars updated.".to_owned());
    }
    reasons.sort();
    reasons
}

fn place(revision: Uuid) -> String {
    format!("revision.environment/{revision}")
}

/// Variables of a revision.
///
/// # Errors
/// When they cannot be opened.
pub fn environment(context: &Context, row: &RevisionRow) -> DomainResult<Map<String, Value>> {
    open_object(context, &place(row.guid), row.environment.as_deref())
}

/// Variables of a revision for a developer, who is recorded to have seen them.
///
/// # Errors
/// When they cannot be opened, or the app is going.
pub async fn show_environment(
    context: &Context,
    actor: &AuditSubject,
    row: &RevisionRow,
) -> DomainResult<Map<String, Value>> {
    let environment = environment(context, row)?;
    let mut tx = context.store.begin().await?;
    let app = lock(&mut tx, row.app_guid).await?;
    let data = json!({ "revision_guid": row.guid, "revision_version": row.version });
    record(&mut tx, "audit.app.revision.environment_variables.show", actor, &app, data).await?;
    tx.commit().await?;
    Ok(environment)
}

/// Everything that a revision remembers.
///
/// # Errors
/// When it cannot be read.
pub fn content(context: &Context, row: &RevisionRow) -> DomainResult<Content> {
    let damaged = |error| DomainError::internal("reading a revision", error);
    Ok(Content {
        droplet: row.droplet_guid,
        environment: environment(context, row)?,
        commands: Commands::deserialize(&row.commands).map_err(damaged)?,
        sidecars: Vec::deserialize(&row.sidecars).map_err(damaged)?,
    })
}

async fn of_app(context: &Context, tx: &mut PgConnection, app: &AppRow) -> DomainResult<Content> {
    let sidecars = sidecars_of_app_tx(tx, app.guid).await?.into_iter().map(|row| {
        let mut process_types = row.process_types;
        process_types.sort();
        RevisionSidecar { name: row.name, command: row.command, memory_in_mb: row.memory_in_mb, process_types }
    });
    let sidecars = sidecars.collect();
    Ok(Content {
        droplet: app.droplet_guid,
        environment: apps::environment_of(context, app)?,
        commands: commands_tx(tx, app.guid).await?.into_iter().collect(),
        sidecars,
    })
}

/// The revision that an app is at when it is started or deployed now: the newest one, or a new one when something
/// differs. `None` for an app without a droplet, or one that records none.
///
/// # Errors
/// When the database fails.
pub async fn update_tx(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
) -> DomainResult<Option<RevisionRow>> {
    if !app.revisions_enabled || app.droplet_guid.is_none() {
        return Ok(None);
    }
    let now = of_app(context, tx, app).await?;
    let latest = revision_latest_tx(tx, app.guid).await?;
    let description = match &latest {
        None => "Initial revision.".to_owned(),
        Some(latest) => reasons(&content(context, latest)?, &now).join(" "),
    };
    match latest {
        Some(latest) if description.is_empty() => Ok(Some(latest)),
        latest => create(context, tx, actor, app, latest.map(|row| row.version), &description, &now).await.map(Some),
    }
}

/// Records that an app goes back to an earlier revision. The app's droplet, variables and sidecars are that revision's
/// already.
///
/// # Errors
/// [`DomainError::Invalid`] when nothing differs from the newest revision.
pub async fn rollback_tx(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    target: &RevisionRow,
) -> DomainResult<RevisionRow> {
    let wanted = content(context, target)?;
    let latest = revision_latest_tx(tx, app.guid).await?;
    let mut reasons = match &latest {
        Some(latest) => reasons(&content(context, latest)?, &wanted),
        None => Vec::new(),
    };
    if reasons.is_empty() {
        return Err(DomainError::invalid(
            "Unable to rollback. The code and configuration you are rolling back to is the same as the deployed revision.",
        ));
    }
    reasons.push(format!("Rolled back to revision {}.", target.version));
    create(context, tx, actor, app, latest.map(|row| row.version), &reasons.join(" "), &wanted).await
}

async fn create(
    context: &Context,
    tx: &mut PgConnection,
    actor: &AuditSubject,
    app: &AppRow,
    before: Option<i32>,
    description: &str,
    content: &Content,
) -> DomainResult<RevisionRow> {
    let droplet = content.droplet.ok_or_else(|| {
        DomainError::invalid("Unable to deploy this revision, the droplet for this revision no longer exists.")
    })?;
    let guid = Uuid::new_v4();
    let new = NewRevision {
        guid,
        app_guid: app.guid,
        version: before.filter(|version| *version < LAST_VERSION).map_or(1, |version| version + 1),
        description,
        droplet_guid: droplet,
        environment: &seal_object(context, &place(guid), &content.environment)?,
        commands: &json!(content.commands),
        sidecars: &json!(content.sidecars),
    };
    let row = revision_insert_tx(tx, &new).await?;
    revisions_prune_tx(tx, app.guid, MAX_REVISIONS).await?;
    let data = json!({ "revision_guid": row.guid, "revision_version": row.version });
    record(tx, "audit.app.revision.create", actor, app, data).await?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        Content {
            droplet: Some(Uuid::from_u128(1)),
            environment: Map::from_iter([("A".to_owned(), "1".into())]),
            commands: Commands::from([("web".to_owned(), None), ("worker".to_owned(), Some("./work".to_owned()))]),
            sidecars: Vec::new(),
        }
    }

    fn sidecar(command: &str) -> RevisionSidecar {
        RevisionSidecar {
            name: "s".to_owned(),
            command: command.to_owned(),
            memory_in_mb: None,
            process_types: vec!["web".to_owned()],
        }
    }

    #[test]
    fn every_difference_has_its_sentence() {
        let changed = |change: fn(&mut Content)| {
            let mut after = content();
            change(&mut after);
            (reasons(&content(), &after), reasons(&after, &content()))
        };
        let same = |text: &str| (vec![text.to_owned()], vec![text.to_owned()]);
        let both = |there: &str, back: &str| (vec![there.to_owned()], vec![back.to_owned()]);
        assert_eq!(changed(|_| {}), (vec![], vec![]));
        assert_eq!(changed(|new| new.droplet = None), same("New droplet deployed."));
        assert_eq!(changed(|new| new.environment.clear()), same("New environment variables deployed."));
        assert_eq!(
            changed(|new| drop(new.commands.insert("web".to_owned(), Some("x".to_owned())))),
            both("Custom start command added for 'web' process.", "Custom start command removed for 'web' process.")
        );
        assert_eq!(
            changed(|new| drop(new.commands.insert("worker".to_owned(), Some("x".to_owned())))),
            same("Custom start command updated for 'worker' process.")
        );
        assert_eq!(
            changed(|new| drop(new.commands.insert("clock".to_owned(), None))),
            both("New process type 'clock' added.", "Process type 'clock' removed.")
        );
        assert_eq!(changed(|new| new.sidecars.push(sidecar("x"))), same("Sidecars updated."));
    }

    #[test]
    fn sentences_are_sorted_and_memory_of_a_sidecar_is_no_difference() {
        let mut before = content();
        before.sidecars.push(sidecar("x"));
        let mut after = before.clone();
        after.sidecars[0].memory_in_mb = Some(8);
        assert!(reasons(&before, &after).is_empty());
        after.sidecars[0].command = "y".to_owned();
        after.droplet = None;
        after.commands.insert("web".to_owned(), Some("z".to_owned()));
        assert_eq!(
            reasons(&before, &after).join(" "),
            "Custom start command added for 'web' process. New droplet deployed. Sidecars updated."
        );
    }
}
