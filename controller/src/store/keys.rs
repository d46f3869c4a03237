//! Signing keys and revoked tokens.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Store;

/// A signing key as stored.
#[derive(Clone)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct SigningKeyRow {
    pub kid: String,
    /// Sealed.
    pub private_pem: Vec<u8>,
    pub public_pem: String,
    pub retired_at: Option<DateTime<Utc>>,
}

/// What the store says of a token whose signature is good.
#[derive(Clone, Copy, Debug)]
pub struct TokenStanding {
    /// It was revoked.
    pub revoked: bool,
    /// The key that signed it was not retired.
    pub key_in_force: bool,
    /// That of its client now; `None` when the client is gone.
    pub client_generation: Option<i64>,
    /// That of its user now; `None` when the user is gone, or the token is a client's own.
    pub user_generation: Option<i64>,
}

/// Stores a new key unless there is one already. The caller holds the bootstrap lock.
///
/// # Errors
/// When the database fails.
pub async fn signing_key_insert_tx(
    tx: &mut PgConnection,
    kid: &str,
    private_pem: &[u8],
    public_pem: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into signing_key (kid, private_pem, public_pem) values ($1, $2, $3)",
        kid,
        private_pem,
        public_pem
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// All keys, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn signing_keys(&self) -> sqlx::Result<Vec<SigningKeyRow>> {
        sqlx::query_as!(
            SigningKeyRow,
            "select kid, private_pem, public_pem, retired_at from signing_key order by created_at desc"
        )
        .fetch_all(self.pool())
        .await
    }

    /// The key that signs: the newest that is in force.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn signing_key_newest(&self) -> sqlx::Result<Option<String>> {
        sqlx::query_scalar!("select kid from signing_key where retired_at is null order by created_at desc limit 1")
            .fetch_optional(self.pool())
            .await
    }

    /// Whether a token was revoked, whether the key that signed it is in force, and how its client and its user stand.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_standing(
        &self,
        jti: &str,
        kid: &str,
        client: &str,
        user: Option<&str>,
    ) -> sqlx::Result<TokenStanding> {
        sqlx::query_as!(
            TokenStanding,
            r#"select exists (select 1 from revoked_token where jti = $1) as "revoked!",
                      exists (select 1 from signing_key where kid = $2 and retired_at is null) as "key_in_force!",
                      (select generation from user_account where guid = $3 and is_client) as client_generation,
                      (select generation from user_account where guid = $4 and not is_client) as user_generation"#,
            jti,
            kid,
            client,
            user
        )
        .fetch_one(self.pool())
        .await
    }

    /// Revokes a token, to be remembered until this moment, and forgets those whose moment is over. False when it was
    /// revoked already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_revoke(&self, jti: &str, until: DateTime<Utc>) -> sqlx::Result<bool> {
        sqlx::query!("delete from revoked_token where expires_at < now()").execute(self.pool()).await?;
        let done = sqlx::query!(
            "insert into revoked_token (jti, expires_at) values ($1, $2) on conflict do nothing",
            jti,
            until
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
