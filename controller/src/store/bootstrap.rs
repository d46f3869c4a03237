//! What a database must hold before the API can answer.

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Store;

/// Key of the advisory lock that lets one controller at a time prepare the database.
const LOCK: i64 = 0x0073_6c69_7062_6f6f;

/// What is there already.
#[derive(Clone, Debug)]
pub struct BootstrapState {
    /// Whose database it is.
    pub cluster_id: Option<Uuid>,
    /// There is a user who may do everything and can log in.
    pub has_admin: bool,
    /// A signing key exists.
    pub has_key: bool,
}

/// What to add where it is missing.
pub struct Defaults {
    /// The cluster.
    pub cluster_id: Uuid,
    /// Name of the default shared domain.
    pub app_domain: String,
    /// Hash of the administrator's password, if the user was missing.
    pub admin_hash: Option<String>,
    /// Name, sealed private and public half, if there was no key.
    pub key: Option<(String, Vec<u8>, String)>,
}

impl Store {
    /// What is there already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bootstrap_state(&self) -> sqlx::Result<BootstrapState> {
        sqlx::query_as!(
            BootstrapState,
            r#"select (select cluster_id from store_identity) as "cluster_id",
                      exists (select 1 from user_account
                              where not is_client and origin = 'uaa' and password_hash is not null
                                and 'cloud_controller.admin' = any(scopes)) as "has_admin!",
                      exists (select 1 from signing_key where retired_at is null) as "has_key!""#
        )
        .fetch_one(self.pool())
        .await
    }
}

/// Feature flags with Cloud Foundry's defaults, but for `hash_based_routing`: routers here have always known it.
const FLAGS: &[(&str, bool)] = &[
    ("app_bits_upload", true),
    ("app_scaling", true),
    ("diego_cnb", false),
    ("diego_docker", false),
    ("env_var_visibility", true),
    ("hash_based_routing", true),
    ("hide_marketplace_from_unauthenticated_users", false),
    ("private_domain_creation", true),
    ("resource_matching", true),
    ("route_creation", true),
    ("route_sharing", false),
    ("service_instance_creation", true),
    ("service_instance_sharing", true),
    ("set_roles_by_username", true),
    ("space_developer_env_var_visibility", true),
    ("space_scoped_private_broker_creation", true),
    ("task_creation", true),
    ("unset_roles_by_username", true),
    ("user_org_creation", false),
];

/// Names of the built-in buildpacks, in the order in which they are asked.
const BUILDPACKS: &[(&str, &str)] = &[
    ("staticfile_buildpack", "staticfile"),
    ("nodejs_buildpack", "nodejs"),
    ("python_buildpack", "python"),
    ("binary_buildpack", "binary"),
];

const STACKS: &[(&str, &str)] = &[
    ("debian12", "Debian 12"),
    ("cflinuxfs4", "Debian 12 with a layer that makes it compatible with Cloud Foundry's cflinuxfs4"),
];

/// Everything public, as ranges: no private, loopback or link-local address as on Cloud Foundry, and none that providers use
/// among themselves (100.64.0.0/10, 198.18.0.0/15: there are nodes and private networks of clouds), no multicast.
const PUBLIC: [&str; 8] = [
    "0.0.0.0-9.255.255.255",
    "11.0.0.0-100.63.255.255",
    "100.128.0.0-126.255.255.255",
    "128.0.0.0-169.253.255.255",
    "169.255.0.0-172.15.255.255",
    "172.32.0.0-192.167.255.255",
    "192.169.0.0-198.17.255.255",
    "198.20.0.0-223.255.255.255",
];

fn public_networks() -> Value {
    PUBLIC.iter().map(|range| json!({ "protocol": "all", "destination": range })).collect()
}

/// Resolvers that an app names itself. Those that it is given are open without a rule, wherever they are: so port 53 of private
/// networks need not be.
fn dns() -> Value {
    let rule = |protocol: &str, range: &str| json!({ "protocol": protocol, "destination": range, "ports": "53" });
    PUBLIC.iter().flat_map(|range| [rule("tcp", range), rule("udp", range)]).collect()
}

/// Adds what is missing, in one transaction. Returns whose database it is.
///
/// # Errors
/// When the database fails; nothing has been added then.
pub async fn apply(pool: &PgPool, defaults: &Defaults) -> sqlx::Result<Uuid> {
    let mut tx = super::begin(pool).await?;
    sqlx::query!("select pg_advisory_xact_lock($1) as locked", LOCK).fetch_one(&mut *tx).await?;
    let fresh =
        sqlx::query!("insert into store_identity (cluster_id) values ($1) on conflict do nothing", defaults.cluster_id)
            .execute(&mut *tx)
            .await?
            .rows_affected()
            == 1;
    let cluster = sqlx::query_scalar!("select cluster_id from store_identity").fetch_one(&mut *tx).await?;
    if cluster != defaults.cluster_id {
        return Ok(cluster);
    }
    if let Some((kid, private, public)) = &defaults.key {
        let taken =
            sqlx::query_scalar!(r#"select exists (select 1 from signing_key where retired_at is null) as "taken!""#)
                .fetch_one(&mut *tx)
                .await?;
        if !taken {
            super::keys::signing_key_insert_tx(&mut tx, kid, private, public).await?;
        }
    }
    if let Some(hash) = &defaults.admin_hash {
        sqlx::query!(
            "insert into user_account (guid, username, password_hash, scopes, in_api)
             values ($1, 'admin', $2, '{cloud_controller.admin}', true)
             on conflict (lower(username), origin) where username is not null
             do update set password_hash = excluded.password_hash, scopes = excluded.scopes, in_api = true
             where not ('cloud_controller.admin' = any(user_account.scopes)
                        and user_account.password_hash is not null)",
            Uuid::new_v4().to_string(),
            hash
        )
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query!("insert into user_account (guid, is_client) values ('cf', true) on conflict do nothing")
        .execute(&mut *tx)
        .await?;
    platform(&mut tx, &defaults.app_domain).await?;
    if fresh {
        first_space(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(cluster)
}

async fn platform(tx: &mut PgConnection, app_domain: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into organization_quota (guid, name, is_default, total_memory_in_mb, total_routes,
                                         total_reserved_ports)
         select $1, 'default', true, 102400, 1000, 100
         where not exists (select 1 from organization_quota where is_default) on conflict do nothing",
        Uuid::new_v4()
    )
    .execute(&mut *tx)
    .await?;
    // A changed app_domain makes a new default; routes on the old one stay.
    sqlx::query!(
        "insert into domain (guid, name, is_default) values ($1, lower($2), true)
         on conflict (lower(name)) do update set is_default = true",
        Uuid::new_v4(),
        app_domain
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update domain set is_default = false where is_default and lower(name) <> lower($1)", app_domain)
        .execute(&mut *tx)
        .await?;
    sqlx::query!(
        "insert into isolation_segment (guid, name) values ($1, 'shared') on conflict do nothing",
        super::segments::SHARED
    )
    .execute(&mut *tx)
    .await?;
    for (name, description) in STACKS {
        sqlx::query!(
            "insert into stack (guid, name, description) values ($1, $2, $3) on conflict do nothing",
            Uuid::new_v4(),
            name,
            description
        )
        .execute(&mut *tx)
        .await?;
    }
    for (place, (name, builtin)) in (1_i32..).zip(BUILDPACKS) {
        sqlx::query!(
            "insert into buildpack (guid, name, builtin, position, state)
             select $1, $2, $3, $4, 'READY' where not exists (select 1 from buildpack where builtin = $3)
             on conflict do nothing",
            Uuid::new_v4(),
            name,
            builtin,
            place
        )
        .execute(&mut *tx)
        .await?;
    }
    for (name, enabled) in FLAGS {
        sqlx::query!("insert into feature_flag (name, enabled) values ($1, $2) on conflict do nothing", name, enabled)
            .execute(&mut *tx)
            .await?;
    }
    for (name, rules) in [("public_networks", public_networks()), ("dns", dns())] {
        sqlx::query!(
            "insert into security_group (guid, name, rules, globally_running, globally_staging)
             values ($1, $2, $3, true, true) on conflict do nothing",
            Uuid::new_v4(),
            name,
            rules
        )
        .execute(&mut *tx)
        .await?;
    }
    for name in ["running", "staging"] {
        sqlx::query!("insert into environment_variable_group (name) values ($1) on conflict do nothing", name)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Organization and space `dev`, with every role for the administrator.
async fn first_space(tx: &mut PgConnection) -> sqlx::Result<()> {
    let (org, space) = (Uuid::new_v4(), Uuid::new_v4());
    sqlx::query!(
        "insert into organization (guid, name, quota_guid)
         values ($1, 'dev', (select guid from organization_quota where is_default))",
        org
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("insert into space (guid, org_guid, name) values ($1, $2, 'dev')", space, org)
        .execute(&mut *tx)
        .await?;
    for (role, of_space) in [
        ("organization_user", None),
        ("organization_manager", None),
        ("space_manager", Some(space)),
        ("space_developer", Some(space)),
    ] {
        sqlx::query!(
            "insert into role (guid, type, user_guid, org_guid, space_guid)
             select $1, $2, guid, $3, $4 from user_account where lower(username) = 'admin'",
            Uuid::new_v4(),
            role,
            org,
            of_space
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn by_default_apps_reach_the_internet_and_nothing_beside_it() {
        let open = |address: &str| {
            let address: Ipv4Addr = address.parse().expect(address);
            PUBLIC.iter().any(|range| {
                let (first, last) = range.split_once('-').expect("a range");
                let end = |text: &str| text.parse::<Ipv4Addr>().expect(text);
                (end(first)..=end(last)).contains(&address)
            })
        };
        for address in ["1.1.1.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "198.17.0.1", "198.20.0.1", "223.1.1.1"] {
            assert!(open(address), "{address}");
        }
        for address in [
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!open(address), "{address}");
        }
    }
}
