//! Codes for one login.

use super::Store;

impl Store {
    /// Keeps a code for a user. The user's codes that are over go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn passcode_create(&self, hash: &[u8], user: &str, life_s: f64) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query!("delete from passcode where user_guid = $1 and expires_at < now()", user)
            .execute(&mut *tx)
            .await?;
        sqlx::query!(
            "insert into passcode (code_hash, user_guid, expires_at) values ($1, $2, now() + make_interval(secs => $3))",
            hash,
            user,
            life_s
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Uses a code up: its user, if it is still good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn passcode_redeem(&self, hash: &[u8]) -> sqlx::Result<Option<String>> {
        sqlx::query_scalar!(
            "with used as (delete from passcode where code_hash = $1 returning user_guid, expires_at)
             select user_guid from used where expires_at > now()",
            hash
        )
        .fetch_optional(self.pool())
        .await
    }
}
