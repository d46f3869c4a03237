//! Users, clients and refresh tokens.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Store;
use super::list::Listing;
use crate::values::list::ListOptions;
use crate::values::metadata::MetadataChange;

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
    /// Tokens that name another one are over.
    pub generation: i64,
}

/// A session to be stored: what a refresh token stands for.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct NewSession<'a> {
    pub user: &'a str,
    pub user_generation: i64,
    pub client: &'a str,
    pub client_generation: i64,
    pub scopes: &'a [String],
    pub life_s: f64,
}

/// What came of removing an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, with its roles and tokens.
    Done,
    /// There was none.
    Missing,
    /// Without it nobody could administer the platform any more.
    LastAdministrator,
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
                      generation
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
                      generation
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

    /// Removes an account with its roles and tokens, unless it is the last user who may do everything and can log in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_delete(&self, guid: &str) -> sqlx::Result<Removal> {
        let mut tx = self.begin().await?;
        // Locked, so that of two administrators who remove each other one stays.
        let administrators = sqlx::query_scalar!(
            "select guid from user_account
             where not is_client and origin = 'uaa' and password_hash is not null
               and 'cloud_controller.admin' = any(scopes)
             order by guid for update"
        )
        .fetch_all(&mut *tx)
        .await?;
        if matches!(administrators.as_slice(), [last] if last == guid) {
            return Ok(Removal::LastAdministrator);
        }
        let done = sqlx::query!("delete from user_account where guid = $1", guid).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(if done.rows_affected() == 1 { Removal::Done } else { Removal::Missing })
    }

    /// Sets a password or secret. A trigger ends all tokens with it; refresh tokens are removed besides.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_set_password(&self, guid: &str, hash: &str) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query!("update user_account set password_hash = $2, updated_at = now() where guid = $1", guid, hash)
            .execute(&mut *tx)
            .await?;
        sqlx::query!("delete from refresh_token where user_guid = $1", guid).execute(&mut *tx).await?;
        tx.commit().await
    }

    /// Ends all tokens of an account: a user's own, or those that were got through a client. False when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_end_tokens(&self, guid: &str, is_client: bool) -> sqlx::Result<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query!(
            "update user_account set generation = nextval('account_generation') where guid = $1 and is_client = $2",
            guid,
            is_client
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "delete from refresh_token where case when $2 then client_id else user_guid end = $1",
            guid,
            is_client
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Stores a refresh token by its hash, and forgets the user's expired ones. False, and nothing is stored, when the
    /// account or the client has changed since it was looked at: then what was shown proves nothing any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_token_create(&self, hash: &[u8], session: NewSession<'_>) -> sqlx::Result<bool> {
        sqlx::query!("delete from refresh_token where user_guid = $1 and expires_at < now()", session.user)
            .execute(self.pool())
            .await?;
        let done = sqlx::query!(
            "insert into refresh_token (token_hash, user_guid, user_generation, client_id, client_generation, scopes,
                                        expires_at)
             select $1, u.guid, u.generation, c.guid, c.generation, $6, now() + make_interval(secs => $7)
             from user_account u, user_account c
             where u.guid = $2 and u.generation = $3 and c.guid = $4 and c.generation = $5
             for key share of u",
            hash,
            session.user,
            session.user_generation,
            session.client,
            session.client_generation,
            session.scopes,
            session.life_s
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// User and scopes of a refresh token that is still good for this client.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_token_get(&self, hash: &[u8], client: &str) -> sqlx::Result<Option<(String, Vec<String>)>> {
        let row = sqlx::query!(
            "select r.user_guid, r.scopes from refresh_token r
             join user_account u on u.guid = r.user_guid and u.generation = r.user_generation
             join user_account c on c.guid = r.client_id and c.generation = r.client_generation
             where r.token_hash = $1 and r.client_id = $2 and r.expires_at > now()",
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
