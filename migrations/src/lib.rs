//! Numbered SQL of the Slipway database.
//!
//! The files lie beside this crate's `Cargo.toml` and are embedded, so a controller can bring any older database up
//! to date by itself. `README.md` says which kinds of change are allowed while an older controller still runs.

#![forbid(unsafe_code)]

use sqlx::postgres::PgPoolOptions;

/// All migrations, oldest first.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./sql");

/// Brings the database to the newest schema. Safe to call from several controllers at once (sqlx takes an advisory
/// lock), and on a database that already is up to date.
///
/// # Errors
/// When the database cannot be reached, or holds a migration this program does not know or knows in another form.
pub async fn migrate(pool: &sqlx::PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    // A run that fails keeps its advisory lock until its connection ends, and in a pool it would not end: whoever
    // tries again would wait for ever.
    // A migration may take its time, and another controller's is waited for.
    let options = (*pool.connect_options()).clone().options([("statement_timeout", "0"), ("lock_timeout", "0")]);
    let own = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let migrated = MIGRATOR.run(&own).await;
    own.close().await;
    migrated
}
