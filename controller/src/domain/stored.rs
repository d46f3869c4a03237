//! The account of what an organization stores.
//!
//! Bytes are logical: what two packages share counts for each, so that nobody's account depends on what others have. What is
//! deleted within an hour after its upload stays on the account for that hour, as it stays on the disk.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{DomainError, DomainResult};
use crate::blobs::Digested;
use crate::config::Limits;
use crate::context::Context;
use crate::store::stored::{StoredFigures, stored_figures_tx, stored_put_tx};

const MIB: i64 = 1 << 20;

/// Checks, before an upload to this app is received, whether the rest of its organization leaves it any room. Gives the
/// organization. Whether the upload fits is seen when its size is known ([`charge`]).
///
/// # Errors
/// [`DomainError::Invalid`] with the figures.
pub async fn check_others(context: &Context, app: Uuid) -> DomainResult<Uuid> {
    let figures = context.store.stored_figures(app).await?.ok_or(DomainError::NotFound("App"))?;
    match figures.used().saturating_sub(figures.of_app) >= limit(&figures, &context.config.limits) {
        true => Err(refusal(&figures, &context.config.limits, 0)),
        false => Ok(figures.org_guid),
    }
}

/// Puts a file on the account of an app's organization, before it is stored.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures; `InsufficientStorage` when the disk is full up to its reserve.
pub async fn charge(context: &Context, app: Uuid, file: &Digested) -> DomainResult<()> {
    context.blobs.room(file.size)?;
    let size = i64::try_from(file.size).unwrap_or(i64::MAX);
    let mut tx = context.store.begin().await?;
    let figures = check(&mut tx, &context.config.limits, app, size).await?.ok_or(DomainError::NotFound("App"))?;
    stored_put_tx(&mut tx, figures.org_guid, &file.digest, size).await?;
    tx.commit().await?;
    Ok(())
}

/// Checks whether an app's organization may store so many bytes more: for copies.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures.
pub async fn check_tx(tx: &mut PgConnection, limits: &Limits, app: Uuid, size: i64) -> DomainResult<()> {
    check(tx, limits, app, size).await.map(drop)
}

/// What a build has stored is checked when it is over: a droplet that does not fit fails the build with what this gives,
/// a cache that does not fit is not kept (`false`). It is on the account in any case, as it is on the disk.
///
/// # Errors
/// When the database fails.
pub async fn built_tx(
    tx: &mut PgConnection,
    limits: &Limits,
    app: Uuid,
    droplet: (&[u8], i64),
    cache: Option<i64>,
) -> DomainResult<Result<bool, String>> {
    let Some(figures) = stored_figures_tx(tx, app).await? else { return Ok(Ok(true)) };
    stored_put_tx(tx, figures.org_guid, droplet.0, droplet.1).await?;
    let fits = |size| fits(&figures, limits, size);
    Ok(match fits(droplet.1) {
        false => Err(refusal(&figures, limits, droplet.1).to_string()),
        // Beside the cache that it replaces: that is still on the disk.
        true => Ok(cache.is_none_or(|cache| fits(droplet.1.saturating_add(cache)))),
    })
}

async fn check(tx: &mut PgConnection, limits: &Limits, app: Uuid, size: i64) -> DomainResult<Option<StoredFigures>> {
    let figures = stored_figures_tx(tx, app).await?;
    match figures {
        Some(figures) if !fits(&figures, limits, size) => Err(refusal(&figures, limits, size)),
        figures => Ok(figures),
    }
}

fn limit(figures: &StoredFigures, limits: &Limits) -> i64 {
    let default = i64::try_from(limits.stored_mb_per_organization).unwrap_or(i64::MAX);
    figures.limit_mb.unwrap_or(default).saturating_mul(MIB)
}

fn fits(figures: &StoredFigures, limits: &Limits, size: i64) -> bool {
    figures.used().saturating_add(size) <= limit(figures, limits)
}

fn refusal(figures: &StoredFigures, limits: &Limits, size: i64) -> DomainError {
    let mib = |bytes: i64| bytes.saturating_add(MIB - 1) / MIB;
    let more = match size {
        0 => String::new(),
        size => format!(", and this has {} MiB", mib(size)),
    };
    DomainError::invalid(format!(
        "The organization {:?} stores {} MiB of the {} MiB that it may{more}: {} MiB of packages, {} MiB of droplets, {} MiB \
         of build caches, {} MiB deleted within an hour after the upload, which are free an hour after it. Delete packages, \
         droplets or apps that are not needed any more, or ask an administrator for more (apps.total_stored_in_mb of the \
         organization's quota).",
        figures.org_name,
        mib(figures.used()),
        limit(figures, limits) / MIB,
        mib(figures.packages),
        mib(figures.droplets),
        mib(figures.caches),
        mib(figures.settling),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_what_is_stored() {
        let figures = StoredFigures {
            org_name: "acme".to_owned(),
            limit_mb: Some(10),
            packages: 5 * MIB,
            droplets: 3 * MIB + 1,
            caches: MIB / 2,
            settling: 0,
            ..StoredFigures::default()
        };
        let limits = Limits::default();
        assert!(fits(&figures, &limits, MIB));
        assert!(!fits(&figures, &limits, 2 * MIB));
        let text = refusal(&figures, &limits, 2 * MIB).to_string();
        for part in ["\"acme\" stores 9 MiB of the 10 MiB", "this has 2 MiB", "5 MiB of packages", "4 MiB of droplets"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let default = StoredFigures { limit_mb: None, ..figures };
        assert_eq!(limit(&default, &limits), 20 << 30);
    }
}
