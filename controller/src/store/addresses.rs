//! Who answers under a full host name. Names of domains and of routes share one room: `a.b.c` may be a domain, a route
//! `a` of `b.c`, or one without host of `a.b.c`, and no constraint sees across those. So whoever makes one of them
//! holds a lock while it looks and until it is committed.

use sqlx::PgConnection;
use uuid::Uuid;

use super::routes::RouteRow;

/// Key of the advisory lock that domains and routes share ("names").
const NAMES: i64 = 0x006e_616d_6573;
/// First key of the locks of single names ("name").
const NAME: i32 = 0x6e61_6d65;

/// Holds off all other new routes and domains.
///
/// # Errors
/// When the database fails.
pub async fn address_lock_all_tx(tx: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock($1) as locked", NAMES).execute(tx).await?;
    Ok(())
}

/// Holds off new domains, and new routes under this full name (in lower case).
///
/// # Errors
/// When the database fails.
pub async fn address_lock_tx(tx: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock_shared($1) as locked", NAMES).execute(&mut *tx).await?;
    sqlx::query!("select pg_advisory_xact_lock($1, hashtext($2)) as locked", NAME, name).execute(tx).await?;
    Ok(())
}

/// A route at one of these places, pairs of host and domain name in lower case, that is not in the domain `except`.
///
/// # Errors
/// When the database fails.
pub async fn routes_named_tx(
    tx: &mut PgConnection,
    places: &[(String, String)],
    except: Option<Uuid>,
) -> sqlx::Result<Option<RouteRow>> {
    let (hosts, domains): (Vec<String>, Vec<String>) = places.iter().cloned().unzip();
    sqlx::query_as!(
        RouteRow,
        r#"select r.*, d.name as domain_name
           from unnest($1::text[], $2::text[]) as place(host, domain)
           join domain d on lower(d.name) = place.domain
           join route r on r.domain_guid = d.guid and lower(r.host) = place.host
           where d.guid is distinct from $3 limit 1"#,
        &hosts,
        &domains,
        except
    )
    .fetch_optional(tx)
    .await
}

/// Whether there is a domain of this name (in lower case) other than this one.
///
/// # Errors
/// When the database fails.
pub async fn domain_named_tx(tx: &mut PgConnection, name: &str, except: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from domain where lower(name) = $1 and guid <> $2) as "there!""#,
        name,
        except
    )
    .fetch_one(tx)
    .await
}

/// Whether another space has routes with this host (in lower case) of this domain.
///
/// # Errors
/// When the database fails.
pub async fn host_elsewhere_tx(tx: &mut PgConnection, domain: Uuid, host: &str, space: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from route where domain_guid = $1 and lower(host) = $2 and space_guid <> $3)
           as "elsewhere!""#,
        domain,
        host,
        space
    )
    .fetch_one(tx)
    .await
}
