//! Who has which role where.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::{Listing, Visible};
use crate::values::list::ListOptions;

/// An organization as far as permissions need it.
#[derive(Clone, Debug)]
pub struct OrgStanding {
    /// Its guid.
    pub org_guid: Uuid,
    /// Its name.
    pub org_name: String,
    /// Only admins may change anything in it.
    pub suspended: bool,
    /// The user's roles in it, organization roles only.
    pub roles: Vec<String>,
}

/// A space as far as permissions need it.
#[derive(Clone, Debug)]
pub struct SpaceStanding {
    /// Its guid.
    pub space_guid: Uuid,
    /// Its name.
    pub space_name: String,
    /// Its organization.
    pub org_guid: Uuid,
    /// Its organization's name.
    pub org_name: String,
    /// Whether its organization is suspended.
    pub suspended: bool,
    /// The user's roles in it and in its organization.
    pub roles: Vec<String>,
}

impl Store {
    /// What a user is in an organization; `None` when there is no such organization.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn org_standing(&self, user: &str, org: Uuid) -> sqlx::Result<Option<OrgStanding>> {
        sqlx::query_as!(
            OrgStanding,
            r#"select o.guid as org_guid, o.name as org_name, o.suspended,
                      coalesce((select array_agg(r.type) from role r
                                where r.user_guid = $1 and r.org_guid = o.guid and r.space_guid is null),
                               '{}') as "roles!"
               from organization o where o.guid = $2"#,
            user,
            org
        )
        .fetch_optional(self.pool())
        .await
    }

    /// What a user is in a space; `None` when there is no such space.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn space_standing(&self, user: &str, space: Uuid) -> sqlx::Result<Option<SpaceStanding>> {
        sqlx::query_as!(
            SpaceStanding,
            r#"select s.guid as space_guid, s.name as space_name, o.guid as org_guid, o.name as org_name, o.suspended,
                      coalesce((select array_agg(r.type) from role r
                                where r.user_guid = $1 and r.org_guid = o.guid
                                  and (r.space_guid is null or r.space_guid = s.guid)),
                               '{}') as "roles!"
               from space s join organization o on o.guid = s.org_guid where s.guid = $2"#,
            user,
            space
        )
        .fetch_optional(self.pool())
        .await
    }

    /// Spaces whose contents a user may read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spaces_visible_to(&self, user: &str) -> sqlx::Result<Visible> {
        let guids = sqlx::query_scalar!(
            r#"select s.guid as "guid!" from role r join space s on s.guid = r.space_guid where r.user_guid = $1
               union
               select s.guid from role r join space s on s.org_guid = r.org_guid
               where r.user_guid = $1 and r.type = 'organization_manager'"#,
            user
        )
        .fetch_all(self.pool())
        .await?;
        Ok(Visible::Only(guids))
    }

    /// Spaces in which a user has one of these roles, or one of those in their organization.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spaces_by_roles(&self, user: &str, of_space: &[&str], of_org: &[&str]) -> sqlx::Result<Visible> {
        let guids = sqlx::query_scalar!(
            r#"select s.guid as "guid!" from role r join space s on s.guid = r.space_guid
               where r.user_guid = $1 and r.type = any($2)
               union
               select s.guid from role r join space s on s.org_guid = r.org_guid
               where r.user_guid = $1 and r.space_guid is null and r.type = any($3)"#,
            user,
            of_space as &[&str],
            of_org as &[&str]
        )
        .fetch_all(self.pool())
        .await?;
        Ok(Visible::Only(guids))
    }

    /// Organizations in which, or in a space of which, a user has one of these roles.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn orgs_by_roles(&self, user: &str, roles: &[&str]) -> sqlx::Result<Visible> {
        let guids = sqlx::query_scalar!(
            "select distinct org_guid from role where user_guid = $1 and type = any($2)",
            user,
            roles as &[&str]
        )
        .fetch_all(self.pool())
        .await?;
        Ok(Visible::Only(guids))
    }

    /// Organizations that a user may read: any role in it or in one of its spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn orgs_visible_to(&self, user: &str) -> sqlx::Result<Visible> {
        let guids = sqlx::query_scalar!("select distinct org_guid from role where user_guid = $1", user)
            .fetch_all(self.pool())
            .await?;
        Ok(Visible::Only(guids))
    }
}

/// A role as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct RoleRow {
    pub guid: Uuid,
    #[sqlx(rename = "type")]
    pub kind: String,
    pub user_guid: String,
    /// Of the space, for space roles.
    pub org_guid: Uuid,
    pub space_guid: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Gives a role, and makes the user known to the API. `None` when the user has it already: clients give roles without asking
/// whether they are there, so that is no error of the database's, which would log it.
///
/// # Errors
/// When the database fails.
pub async fn role_insert_tx(
    tx: &mut PgConnection,
    kind: &str,
    user: &str,
    org: Uuid,
    space: Option<Uuid>,
) -> sqlx::Result<Option<RoleRow>> {
    sqlx::query!("update user_account set in_api = true where guid = $1 and not in_api", user)
        .execute(&mut *tx)
        .await?;
    sqlx::query_as!(
        RoleRow,
        r#"insert into role (guid, type, user_guid, org_guid, space_guid) values ($1, $2, $3, $4, $5) on conflict do nothing
           returning guid, type as "kind", user_guid, org_guid, space_guid, created_at, updated_at"#,
        Uuid::new_v4(),
        kind,
        user,
        org,
        space
    )
    .fetch_optional(tx)
    .await
}

/// Whether a user has any role in an organization itself.
///
/// # Errors
/// When the database fails.
pub async fn user_in_org_tx(tx: &mut PgConnection, user: &str, org: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from role where user_guid = $1 and org_guid = $2 and space_guid is null) as "is!""#,
        user,
        org
    )
    .fetch_one(tx)
    .await
}

/// Whether a user has a role in a space of an organization.
///
/// # Errors
/// When the database fails.
pub async fn user_in_spaces_of_tx(tx: &mut PgConnection, user: &str, org: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from role where user_guid = $1 and org_guid = $2 and space_guid is not null)
           as "is!""#,
        user,
        org
    )
    .fetch_one(tx)
    .await
}

/// Takes a role away.
///
/// # Errors
/// When the database fails.
pub async fn role_delete_tx(tx: &mut PgConnection, guid: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from role where guid = $1", guid).execute(tx).await?;
    Ok(())
}

impl Store {
    /// One role.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role_get(&self, guid: Uuid) -> sqlx::Result<Option<RoleRow>> {
        sqlx::query_as!(
            RoleRow,
            r#"select guid, type as "kind", user_guid, org_guid, space_guid, created_at, updated_at
               from role where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// A page of the roles in these organizations and spaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn role_list(
        &self,
        options: &ListOptions,
        orgs: &Visible,
        spaces: &Visible,
    ) -> sqlx::Result<(Vec<RoleRow>, u64)> {
        let mut listing = Listing::new("role r", "r", options);
        if let (Visible::Only(orgs), Visible::Only(spaces)) = (orgs, spaces) {
            listing
                .sql("((r.space_guid is null and r.org_guid = any(")
                .bind_uuids(orgs.clone())
                .sql(")) or r.space_guid = any(")
                .bind_uuids(spaces.clone())
                .sql("))")
                .done();
        }
        listing.guids("guids", "r.guid").texts("types", "r.type").texts("user_guids", "r.user_guid");
        // Of a space role, only its space shows in the API.
        listing.guids("organization_guids", "case when r.space_guid is null then r.org_guid end");
        listing.guids("space_guids", "r.space_guid");
        listing
            .fetch(self.pool(), "r.guid, r.type, r.user_guid, r.org_guid, r.space_guid, r.created_at, r.updated_at")
            .await
    }
}
