//! Codes for one login.

use super::Store;

impl Store {
    /// Keeps a code for a user. The user's codes that are over go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn passcode_create(
        &self,
        hash: &[u8],
        user: &str,
        generation: i64,
        scopes: &[String],
        life_s: f64,
    ) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query!("delete from passcode where user_guid = $1 and expires_at < now()", user)
            .execute(&mut *tx)
            .await?;
        sqlx::query!(
            "insert into passcode (code_hash, user_guid, user_generation, scopes, expires_at)
             values ($1, $2, $3, $4, now() + make_interval(secs => $5))",
            hash,
            user,
            generation,
            scopes,
            life_s
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Uses a code up: its user and what it is good for, if it is still good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn passcode_redeem(&self, hash: &[u8]) -> sqlx::Result<Option<(String, Vec<String>)>> {
        let row = sqlx::query!(
            r#"with used as (delete from passcode where code_hash = $1
                             returning user_guid, user_generation, scopes, expires_at)
               select used.user_guid, used.scopes as "scopes!" from used
               join user_account u on u.guid = used.user_guid and u.generation = used.user_generation
               where used.expires_at > now() and used.scopes is not null"#,
            hash
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| (row.user_guid, row.scopes)))
    }
}
