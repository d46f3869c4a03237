//! What an empty database gets at the first start, and what every start makes sure of.

use std::path::PathBuf;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{keys, password};
use crate::context::Context;
use crate::domain::DomainError;
use crate::store::bootstrap::{self as store, Defaults};

/// Why a controller cannot use its database.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Another cluster's database.
    #[error(
        "the database belongs to cluster {stored}, but this controller is configured for {configured}: check database_url and cluster_id"
    )]
    OtherCluster {
        /// What the database says.
        stored: Uuid,
        /// What the configuration says.
        configured: Uuid,
    },
    /// The administrator's password cannot be read.
    #[error("cannot read the administrator's password from {path}: write it there, readable only by this user")]
    Password {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The administrator's password is empty.
    #[error("the administrator's password in {0} is empty")]
    EmptyPassword(PathBuf),
    /// The database failed, or a key cannot be made.
    #[error("the database cannot be prepared")]
    Other(#[from] DomainError),
}

impl From<sqlx::Error> for BootstrapError {
    fn from(error: sqlx::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Prepares the database; safe to call at every start and from several controllers at once.
///
/// An empty one gets its identity, the signing key, user `admin`, client `cf`, quota `default`, organization and space
/// `dev` (so that a push works at once), the shared domain, stacks, built-in buildpacks, feature flags and security
/// groups. A later start adds what is missing of these, except the organization and the space, which may have been
/// deleted on purpose.
///
/// # Errors
/// When the database is another cluster's, the password file cannot be read, or the database fails.
pub async fn bootstrap(context: &Context) -> Result<(), BootstrapError> {
    let configured = context.config.cluster_id;
    let state = context.store.bootstrap_state().await?;
    if let Some(stored) = state.cluster_id
        && stored != configured
    {
        return Err(BootstrapError::OtherCluster { stored, configured });
    }
    // What is slow is made before the lock is taken; a controller that loses the race throws it away.
    let admin_hash = if state.has_admin { None } else { Some(password::hash(&read_password(context)?).await?) };
    let key = if state.has_key {
        None
    } else {
        let (kid, private, public) = tokio::task::spawn_blocking(keys::generate)
            .await
            .map_err(|error| DomainError::internal("the signing key was not made", error))??;
        let sealed = context.vault.seal(&keys::place(&kid), private.as_bytes()).map_err(DomainError::from)?;
        Some((kid, sealed, public))
    };
    let defaults = Defaults { cluster_id: configured, app_domain: context.config.app_domain.clone(), admin_hash, key };
    let stored = store::apply(context.store.pool(), &defaults).await?;
    if stored != configured {
        return Err(BootstrapError::OtherCluster { stored, configured });
    }
    Ok(())
}

fn read_password(context: &Context) -> Result<Zeroizing<String>, BootstrapError> {
    let path = &context.config.admin_password_file;
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| BootstrapError::Password { path: path.clone(), source })?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(BootstrapError::EmptyPassword(path.clone()));
    }
    Ok(Zeroizing::new(trimmed.to_owned()))
}
