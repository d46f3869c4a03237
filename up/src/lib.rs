//! The single-machine platform: all parts of a platform on one machine, supervised.
//!
//! `slipway up` prepares a state directory ([`layout`], [`secrets`], [`settings`]), starts a supervisor process
//! ([`supervisor`]) and waits until the platform answers ([`start`]). The supervisor runs a private Postgres
//! ([`postgres`]), a controller, a cell and a router as separate processes ([`parts`]), the same programs that a
//! cluster runs, and on demand a resolver for the platform's names ([`dns`]). `slipway down` ([`stop`]) leaves nothing
//! behind but the state directory.

mod closed;
pub mod dns;
mod environment;
mod files;
pub mod layout;
mod listen_sockets;
mod options;
pub mod parts;
mod ports;
pub mod postgres;
mod previous;
pub mod process;
pub mod secrets;
pub mod settings;
pub mod start;
pub mod status;
pub mod stop;
pub mod supervisor;

pub use layout::Layout;
pub use options::UpOptions;

use std::path::PathBuf;

/// Why the platform could not be started, stopped or looked at.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Not root.
    #[error("slipway up makes sandboxes, which needs root: run it with sudo")]
    NotRoot,
    /// A program of the host is missing.
    #[error("{what} is missing: install it with `apt-get install {package}`")]
    Missing {
        /// What was looked for.
        what: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A file or directory of the state.
    #[error("cannot read or write {path}: {}", what_to_do(source))]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {}", what_to_do(source))]
    Spawn {
        /// Which.
        program: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file of the state that holds something else than it should.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The database is there, and what it is sealed with is not.
    #[error(
        "{0} is gone, and the database of this platform is sealed with it: put it back from a copy, or move the directory `postgres` away to begin with an empty platform"
    )]
    KeyLost(PathBuf),
    /// The cluster's keys.
    #[error(
        "the cluster's keys (tls/ in the state directory) cannot be made, read or used; put that directory back from a copy"
    )]
    Identity(#[from] slipway_protocol::identity::IdentityError),
    /// The operator's file of registries.
    #[error("the registries in {path} cannot be used: {detail}\nMend the file, or start without it: --registries none")]
    Registries {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A port that was asked for cannot be had.
    #[error("port {port} on {address} cannot be used: choose another with {flag}")]
    Port {
        /// The address.
        address: std::net::IpAddr,
        /// The port.
        port: u16,
        /// The option to change, as it is written.
        flag: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No port is left for the parts to meet at.
    #[error("no port of {0} is free: end some programs that listen there")]
    NoPort(std::net::IpAddr, #[source] std::io::Error),
    /// Another supervisor holds the state directory.
    #[error("a platform is running from {0} already: see `slipway status`")]
    Running(PathBuf),
    /// A part did not come up.
    #[error("{part} did not start: {detail}\nIts log: {log}")]
    Part {
        /// `postgres`, `controller`, …
        part: String,
        /// What was seen last.
        detail: String,
        /// Where to read more.
        log: PathBuf,
    },
    /// A stack could not be built.
    #[error("the stack could not be built: {0}")]
    Stack(String),
}

impl UpError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    pub(crate) fn spawn(program: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let program = program.into();
        move |source| Self::Spawn { program, source }
    }
}

/// The next step after an error of the system; the error itself follows it as the cause.
fn what_to_do(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied => "run this as root",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space on its disk and try again",
        ErrorKind::ReadOnlyFilesystem => "choose a directory that can be written with --state, or SLIPWAY_STATE",
        ErrorKind::NotFound => "see whether the directory is the right one (--state, or SLIPWAY_STATE)",
        _ => "see the cause, and the logs in logs/ of the state directory",
    }
}

#[cfg(test)]
mod tests {
    use slipway_chassis::chain;

    use super::*;

    #[test]
    fn errors_say_what_failed_and_what_to_do() {
        let path = "/var/lib/slipway/admin-password";
        for (kind, advice) in [
            (std::io::ErrorKind::PermissionDenied, "run this as root"),
            (std::io::ErrorKind::StorageFull, "free some space"),
            (std::io::ErrorKind::Other, "logs/"),
        ] {
            let text = chain(&UpError::file(path)(kind.into())).to_string();
            assert!(text.starts_with(&format!("cannot read or write {path}: ")) && text.contains(advice), "{text}");
        }
        let text = UpError::spawn("/usr/bin/none")(std::io::ErrorKind::NotFound.into()).to_string();
        assert!(text.starts_with("cannot start /usr/bin/none: "), "{text}");
    }
}
