//! Keys and passwords of one platform: made at the first start, read at each.

use std::path::Path;

use rand::Rng as _;
use slipway_protocol::{ClusterAuthority, Role};

use crate::UpError;
use crate::layout::Layout;
use crate::settings::{Settings, write_atomically};

/// Makes what is missing: authority, certificates of the three parts, the web certificate, the encryption key, the
/// admin's password. Returns the password's file when it was made now.
///
/// # Errors
/// When a file cannot be written or an existing one is damaged.
pub fn ensure(layout: &Layout, settings: &Settings) -> Result<(), UpError> {
    let (certificate, key) = (layout.state("tls/ca.pem"), layout.state("tls/ca.key"));
    let authority = if certificate.exists() && key.exists() {
        ClusterAuthority::load(settings.cluster_id, &certificate, &key)?
    } else {
        let (authority, key_pem) = ClusterAuthority::generate(settings.cluster_id)?;
        write_atomically(&key, key_pem.expose().as_bytes(), 0o600)?;
        write_atomically(&certificate, authority.certificate_pem().as_bytes(), 0o644)?;
        authority
    };
    for (part, role, id) in [
        ("controller", Role::Controller, settings.controller_id),
        ("cell", Role::Cell, settings.cell_id),
        ("router", Role::Router, settings.router_id),
    ] {
        let directory = layout.tls(part);
        if !directory.join("key.pem").exists() {
            authority.issue(role, id, &["127.0.0.1".to_owned()])?.save(&directory)?;
        }
    }
    web_certificate(layout, settings, &authority)?;
    let encryption = layout.state("encryption.key");
    if !encryption.exists() {
        let key: [u8; 32] = rand::rng().random();
        write_atomically(&encryption, hex::encode(key).as_bytes(), 0o600)?;
    }
    let password = layout.state("admin-password");
    if !password.exists() {
        write_atomically(&password, random_password().as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The certificate for end users; made again when the domain changes.
fn web_certificate(layout: &Layout, settings: &Settings, authority: &ClusterAuthority) -> Result<(), UpError> {
    let names = [settings.domain.clone(), format!("*.{}", settings.domain)];
    let marker = layout.state("tls/web/names");
    let wanted = names.join("\n");
    if std::fs::read_to_string(&marker).is_ok_and(|names| names == wanted) {
        return Ok(());
    }
    let (certificate, key) = authority.issue_web(&names)?;
    let chain = format!("{certificate}{}", authority.certificate_pem());
    write_atomically(&layout.state("tls/web/cert.pem"), chain.as_bytes(), 0o644)?;
    write_atomically(&layout.state("tls/web/key.pem"), key.expose().as_bytes(), 0o600)?;
    write_atomically(&marker, wanted.as_bytes(), 0o644)
}

/// 24 characters without look-alikes: 137 bits.
fn random_password() -> String {
    const ALPHABET: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut random = rand::rng();
    (0..24).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

/// Where the admin's password lies.
#[must_use]
pub fn password_file(layout: &Layout) -> std::path::PathBuf {
    layout.state("admin-password")
}

/// Reads a small secret file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<String, UpError> {
    Ok(std::fs::read_to_string(path).map_err(UpError::file(path))?.trim().to_owned())
}
