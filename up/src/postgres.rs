//! The private Postgres: Debian's binaries, own data directory, unix socket only, not root.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::unistd::User;
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;

use crate::UpError;
use crate::layout::Layout;

/// Who the database belongs to: Debian's package makes this user.
const USER: &str = "postgres";

/// Found binaries and account.
#[derive(Clone, Debug)]
pub struct Postgres {
    bin: PathBuf,
    user: User,
}

impl Postgres {
    /// Looks for the newest installed Postgres.
    ///
    /// # Errors
    /// When there is none, or its account is missing.
    pub fn find() -> Result<Self, UpError> {
        let missing = || UpError::Missing { what: "PostgreSQL (initdb, postgres)".to_owned(), package: "postgresql" };
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
            .collect();
        versions.sort();
        let (_, bin) = versions.pop().ok_or_else(missing)?;
        let user = User::from_name(USER).ok().flatten().ok_or_else(missing)?;
        Ok(Self { bin, user })
    }

    /// Directory of the unix socket.
    #[must_use]
    pub fn socket_directory(layout: &Layout) -> PathBuf {
        layout.run("pg")
    }

    /// URL of the platform's database.
    #[must_use]
    pub fn url(layout: &Layout, database: &str) -> String {
        format!("postgres://slipway@localhost/{database}?host={}", Self::socket_directory(layout).display())
    }

    /// Whether there is a database.
    pub(crate) fn has_data(layout: &Layout) -> bool {
        layout.state("postgres/PG_VERSION").exists()
    }

    /// Makes the data directory when there is none, and the socket directory.
    ///
    /// # Errors
    /// When `initdb` fails; its own words are in the error.
    pub async fn prepare(&self, layout: &Layout) -> Result<(), UpError> {
        let socket = Self::socket_directory(layout);
        self.own_directory(&socket)?;
        let data = layout.state("postgres");
        if Self::has_data(layout) {
            return Ok(());
        }
        make_way(&data)?;
        let fresh = layout.state("postgres.new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(UpError::file(&fresh))?;
        }
        self.own_directory(&fresh)?;
        let mut command = Command::new(self.bin.join("initdb"));
        command.args([
            "--username=slipway",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]);
        command.arg("--pgdata").arg(&fresh).uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw());
        command.current_dir("/");
        let output = command.output().await.map_err(UpError::spawn(self.bin.join("initdb")))?;
        if !output.status.success() {
            let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(UpError::Part { part: "postgres (initdb)".to_owned(), detail, log: layout.log("postgres") });
        }
        std::fs::rename(&fresh, &data).map_err(UpError::file(&data))
    }

    fn own_directory(&self, path: &Path) -> Result<(), UpError> {
        std::fs::create_dir_all(path).map_err(UpError::file(path))?;
        chown(path, Some(self.user.uid.as_raw()), Some(self.user.gid.as_raw())).map_err(UpError::file(path))?;
        // Trust on the socket is safe because nobody but the account and root can reach into this directory.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(UpError::file(path))
    }

    /// The server's command line. Small buffers: the database of one machine is small, and the budget for the whole
    /// idle platform is 256 MiB.
    #[must_use]
    pub fn command(&self, layout: &Layout) -> Command {
        let mut command = Command::new(self.bin.join("postgres"));
        command.arg("-D").arg(layout.state("postgres"));
        command.arg("-k").arg(Self::socket_directory(layout));
        for setting in [
            "listen_addresses=",
            "shared_buffers=32MB",
            "max_connections=60",
            "wal_level=minimal",
            "max_wal_senders=0",
            "jit=off",
            "autovacuum_max_workers=1",
            "max_parallel_workers=0",
            "log_min_messages=warning",
        ] {
            command.arg("-c").arg(setting);
        }
        command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw()).current_dir("/");
        command
    }

    /// Makes the platform's database when it is missing. Fails while the server is not up yet.
    ///
    /// # Errors
    /// When the server does not answer (yet).
    pub async fn ensure_database(layout: &Layout) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&Self::url(layout, "postgres")).await?;
        let exists: bool = sqlx::query_scalar("select exists (select 1 from pg_database where datname = 'slipway')")
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            sqlx::query("create database slipway").execute(&mut connection).await?;
        }
        connection.close().await
    }
}

/// Removes an empty data directory. One that holds something and is no database was one once, or is somebody else's: a first
/// start makes its own beside it and moves it here when it is whole.
fn make_way(data: &Path) -> Result<(), UpError> {
    match std::fs::remove_dir(data) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Err(UpError::Damaged {
            path: data.to_owned(),
            detail: "it holds files but no PG_VERSION, so it is no database (any more); put it back from a copy, or move it away to begin with an empty one".to_owned(),
        }),
        Err(error) => Err(UpError::file(data)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_may_be_a_database_is_not_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("postgres");
        make_way(&data).expect("nothing there");
        std::fs::create_dir(&data).expect("made");
        make_way(&data).expect("an empty one");
        assert!(!data.exists());
        std::fs::create_dir_all(data.join("base")).expect("made");
        let refused = make_way(&data).expect_err("something is there");
        assert!(refused.to_string().contains("no PG_VERSION"), "{refused}");
        assert!(data.join("base").exists());
    }
}
