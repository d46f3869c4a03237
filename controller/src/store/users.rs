//! Users, clients and refresh tokens.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::Listing;
use crate::domain::list::ListOptions;
use crate::domain::metadata::MetadataChange;

/// A user or client as stored, with what logging in needs.
#[derive(Clone)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct AccountRow {
    pub guid: String,
    pub username: Option<String>,
    pub origin: String,
    pub is_client: bool,
    pub password_hash: Option<String>,
    pub scopes: Vec<String>,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub email: Option<String>,
    /// Locked at this moment.
    pub locked: bool,
}

/// A user as the v3 API shows it.
#[derive(Clone, Debug, sqlx::FromRow)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct UserRow {
    pub guid: String,
    pub username: Option<String>,
    pub origin: String,
    pub is_client: bool,
    pub labels: Value,
    pub annotations: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A user to be made.
#[derive(Clone)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewAccount {
    pub guid: String,
    pub username: String,
    pub origin: String,
    pub password_hash: Option<String>,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub email: Option<String>,
}

const USER_COLUMNS: &str =
    "u.guid, u.username, u.origin, u.is_client, u.labels, u.annotations, u.created_at, u.updated_at";

/// Makes a user known to the v3 API; with labels and annotations. False when there is no such account.
///
/// # Errors
/// When the database fails.
pub async fn user_enter_api_tx(tx: &mut PgConnection, guid: &str, change: &MetadataChange) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update user_account set in_api = true, labels = jsonb_strip_nulls(labels || $2),
                annotations = jsonb_strip_nulls(annotations || $3), updated_at = now()
         where guid = $1",
        guid,
        change.labels,
        change.annotations
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a user out of the v3 API with all roles; the account itself stays, for the UAA to remove.
///
/// # Errors
/// When the database fails.
pub async fn user_leave_api_tx(tx: &mut PgConnection, guid: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from role where user_guid = $1", guid).execute(&mut *tx).await?;
    sqlx::query!(
        "update user_account set in_api = false, labels = '{}', annotations = '{}', updated_at = now() where guid = $1",
        guid
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Changes labels and annotations of a user.
///
/// # Errors
/// When the database fails.
pub async fn user_metadata_tx(tx: &mut PgConnection, guid: &str, change: &MetadataChange) -> sqlx::Result<()> {
    sqlx::query!(
        "update user_account set labels = jsonb_strip_nulls(labels || $2),
                annotations = jsonb_strip_nulls(annotations || $3), updated_at = now() where guid = $1",
        guid,
        change.labels,
        change.annotations
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// An account by guid (or client id).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_get(&self, guid: &str) -> sqlx::Result<Option<AccountRow>> {
        sqlx::query_as!(
            AccountRow,
            r#"select guid, username, origin, is_client, password_hash, scopes, given_name, family_name, email,
                      coalesce(locked_until > now(), false) as "locked!"
               from user_account where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await
    }

    /// Users with this name, of one origin or of any.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accounts_named(&self, username: &str, origin: Option<&str>) -> sqlx::Result<Vec<AccountRow>> {
        sqlx::query_as!(
            AccountRow,
            r#"select guid, username, origin, is_client, password_hash, scopes, given_name, family_name, email,
                      coalesce(locked_until > now(), false) as "locked!"
               from user_account
               where lower(username) = lower($1) and ($2::text is null or origin = $2) order by origin"#,
            username,
            origin
        )
        .fetch_all(self.pool())
        .await
    }

    /// Makes a user.
    ///
    /// # Errors
    /// When the database fails; a taken name violates `user_account_name`.
    pub async fn account_create(&self, account: &NewAccount) -> sqlx::Result<()> {
        sqlx::query!(
            "insert into user_account (guid, username, origin, password_hash, given_name, family_name, email)
             values ($1, $2, $3, $4, $5, $6, $7)",
            account.guid,
            account.username,
            account.origin,
            account.password_hash,
            account.given_name,
            account.family_name,
            account.email
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Makes a client: an account that logs in with its id and a secret, with rights of its own.
    ///
    /// # Errors
    /// When the database fails; a taken id violates `user_account_pkey`.
    pub async fn client_create(&self, id: &str, secret_hash: &str, scopes: &[String]) -> sqlx::Result<()> {
        sqlx::query!(
            "insert into user_account (guid, is_client, password_hash, scopes) values ($1, true, $2, $3)",
            id,
            secret_hash,
            scopes
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Removes an account with its roles and tokens. False when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_delete(&self, guid: &str) -> sqlx::Result<bool> {
        let done = sqlx::query!("delete from user_account where guid = $1", guid).execute(self.pool()).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Sets a password, unlocks the account, and ends every session that a refresh token would continue.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_set_password(&self, guid: &str, hash: &str) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query!(
            "update user_account set password_hash = $2, failed_logins = 0, locked_until = null, updated_at = now()
             where guid = $1",
            guid,
            hash
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("delete from refresh_token where user_guid = $1", guid).execute(&mut *tx).await?;
        tx.commit().await
    }

    /// Counts a failed login; from `most` on the account is locked for `lock_s` seconds. False, and nothing is counted,
    /// when it is locked already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn login_failed(&self, guid: &str, most: i32, lock_s: f64) -> sqlx::Result<bool> {
        let done = sqlx::query!(
            "update user_account
             set failed_logins = case when failed_logins + 1 >= $2 then 0 else failed_logins + 1 end,
                 locked_until = case when failed_logins + 1 >= $2 then now() + make_interval(secs => $3)
                                     else locked_until end
             where guid = $1 and (locked_until is null or locked_until <= now())",
            guid,
            most,
            lock_s
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Forgets failed logins after a good one. False, and nothing is forgotten, when the account is locked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn login_succeeded(&self, guid: &str) -> sqlx::Result<bool> {
        // Most accounts have nothing to forget: then nothing is written.
        let free = sqlx::query_scalar!(
            r#"with forgotten as (
                   update user_account set failed_logins = 0, locked_until = null
                   where guid = $1 and (failed_logins > 0 or locked_until is not null)
                     and (locked_until is null or locked_until <= now()))
               select locked_until is null or locked_until <= now() as "free!" from user_account where guid = $1"#,
            guid
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(free.unwrap_or_default())
    }

    /// Stores a refresh token by its hash, and forgets the user's expired ones.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_token_create(
        &self,
        hash: &[u8],
        user: &str,
        client: &str,
        scopes: &[String],
        life_s: f64,
    ) -> sqlx::Result<()> {
        sqlx::query!("delete from refresh_token where user_guid = $1 and expires_at < now()", user)
            .execute(self.pool())
            .await?;
        sqlx::query!(
            "insert into refresh_token (token_hash, user_guid, client_id, scopes, expires_at)
             values ($1, $2, $3, $4, now() + make_interval(secs => $5))",
            hash,
            user,
            client,
            scopes,
            life_s
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// User and scopes of a refresh token that is still good for this client.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_token_get(&self, hash: &[u8], client: &str) -> sqlx::Result<Option<(String, Vec<String>)>> {
        let row = sqlx::query!(
            "select user_guid, scopes from refresh_token
             where token_hash = $1 and client_id = $2 and expires_at > now()",
            hash,
            client
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| (row.user_guid, row.scopes)))
    }

    /// Removes the user's refresh tokens whose hash begins with these hex digits.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_token_delete(&self, user: &str, hash_prefix: &str) -> sqlx::Result<()> {
        sqlx::query!(
            "delete from refresh_token where user_guid = $1 and starts_with(encode(token_hash, 'hex'), $2)",
            user,
            hash_prefix
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// A page of the users that the v3 API knows. `seen_by` limits it to members of that user's organizations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_list(&self, options: &ListOptions, seen_by: Option<&str>) -> sqlx::Result<(Vec<UserRow>, u64)> {
        let mut listing = user_listing(options);
        if let Some(user) = seen_by {
            listing
                .sql("(u.guid = ")
                .bind_text(user)
                .sql(
                    " or exists (select 1 from role mine join role theirs on theirs.org_guid = mine.org_guid
                      where theirs.user_guid = u.guid and mine.user_guid = ",
                )
                .bind_text(user)
                .sql("))")
                .done();
        }
        listing.fetch(self.pool(), USER_COLUMNS).await
    }

    /// A page of the users with a role in an organization, or in one of its spaces; `space` limits it to that space.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_list_of(
        &self,
        options: &ListOptions,
        org: Uuid,
        space: Option<Uuid>,
    ) -> sqlx::Result<(Vec<UserRow>, u64)> {
        let mut listing = user_listing(options);
        let place = if space.is_some() { "r.space_guid" } else { "r.org_guid" };
        listing
            .sql("exists (select 1 from role r where r.user_guid = u.guid and ")
            .sql(place)
            .sql(" = any(")
            .bind_uuids(vec![space.unwrap_or(org)])
            .sql("))")
            .done();
        listing.fetch(self.pool(), USER_COLUMNS).await
    }

    /// Some users, for `include=user`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users_by_guid(&self, guids: &[String]) -> sqlx::Result<Vec<UserRow>> {
        sqlx::query_as!(
            UserRow,
            "select guid, username, origin, is_client, labels, annotations, created_at, updated_at
             from user_account where guid = any($1) order by created_at, guid",
            guids
        )
        .fetch_all(self.pool())
        .await
    }
}

/// The users that the v3 API knows, filtered as the client asked.
fn user_listing(options: &ListOptions) -> Listing<'_> {
    let mut listing = Listing::new("user_account u", "u", options);
    listing.sql("u.in_api").done();
    listing.texts("guids", "u.guid").texts_any_case("usernames", "u.username").texts("origins", "u.origin");
    if let Some(values) = options.filter("partial_usernames") {
        let patterns = values.iter().map(|value| format!("%{}%", like_escaped(value))).collect();
        listing.sql("u.username ilike any(").bind_texts(patterns).sql(")").done();
    }
    listing
}

/// Text in which `%`, `_` and `\` stand for themselves in a LIKE pattern.
#[must_use]
pub fn like_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
