//! What an empty database gets at the first start, and what every start makes sure of.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::keys;
use super::password::{self, MAX_PASSWORD, MIN_PASSWORD};
use crate::api::auth_extract::SCOPE_ADMIN;
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
    /// It would be guessed.
    #[error("the administrator's password in {0} has fewer than {MIN_PASSWORD} characters: write a longer one there")]
    ShortPassword(PathBuf),
    /// Nobody could log in with it.
    #[error(
        "the administrator's password in {path} has {bytes} bytes, more than {MAX_PASSWORD}: write a shorter one there"
    )]
    LongPassword {
        /// The file.
        path: PathBuf,
        /// What it holds.
        bytes: usize,
    },
    /// A new password is in force, and its file could not take the place of the old one's.
    #[error("the administrator's new password is in force, but {from} cannot be moved to {to}: move it yourself")]
    PasswordNotKept {
        /// Where it lies.
        from: PathBuf,
        /// Where it belongs.
        to: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
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
/// An empty one gets its identity, the signing key, user `admin` (also when no user is left who may do everything; an account
/// of that name then becomes the administrator's, with its password), client `cf`, quota `default`, organization and space
/// `dev` (so that a push works at once), the shared domain, stacks, built-in buildpacks, feature flags and security
/// groups. A later start adds what is missing of these, except the organization and the space, which may have been
/// deleted on purpose. A password of the administrator that lies in wait ([`waiting_password`]) is set.
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
    let waiting = waiting_password(&context.config.admin_password_file);
    let waiting = waiting.try_exists().unwrap_or(true).then_some(waiting);
    let given = waiting.as_deref().unwrap_or(&context.config.admin_password_file);
    let hash = match (state.has_admin, &waiting) {
        (true, None) => None,
        _ => Some(password::hash(&context.guard.hash_queue, &read_password(given)?).await?),
    };
    let admin_hash = if state.has_admin { None } else { hash.clone() };
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
    if let (Some(from), Some(hash)) = (waiting, hash) {
        set_password(context, &from, &hash).await?;
    }
    Ok(())
}

/// Where an operator writes a new password of the administrator. Only once it is in force does it take the place of the
/// file that says which one is.
#[must_use]
pub fn waiting_password(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

async fn set_password(context: &Context, from: &Path, hash: &str) -> Result<(), BootstrapError> {
    let accounts = context.store.accounts_named("admin", Some("uaa")).await?;
    // One that has only the name is somebody else's.
    for account in accounts.iter().filter(|account| account.scopes.iter().any(|scope| scope == SCOPE_ADMIN)) {
        context.store.account_set_password(&account.guid, hash).await?;
    }
    let to = &context.config.admin_password_file;
    let moved =
        std::fs::set_permissions(from, std::fs::Permissions::from_mode(0o600)).and_then(|()| std::fs::rename(from, to));
    match moved {
        Ok(()) => tracing::info!(path = %to.display(), "the administrator has a new password"),
        // Another controller that reads the same file was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => {
            return Err(BootstrapError::PasswordNotKept { from: from.to_owned(), to: to.clone(), source });
        }
    }
    Ok(())
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, BootstrapError> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| BootstrapError::Password { path: path.to_owned(), source })?;
    let trimmed = text.trim();
    if trimmed.chars().count() < MIN_PASSWORD {
        return Err(BootstrapError::ShortPassword(path.to_owned()));
    }
    if trimmed.len() > MAX_PASSWORD {
        return Err(BootstrapError::LongPassword { path: path.to_owned(), bytes: trimmed.len() });
    }
    Ok(Zeroizing::new(trimmed.to_owned()))
}
