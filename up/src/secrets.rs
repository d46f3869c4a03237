//! Keys and passwords of one platform: made at the first start, read at each.

use std::path::Path;

use rand::Rng as _;
use slipway_protocol::{ClusterAuthority, Role, WebAuthority};

use crate::UpError;
use crate::closed::WEB_AUTHORITY;
use crate::files::write_atomically;
use crate::layout::Layout;
use crate::postgres::Postgres;
use crate::settings::Settings;

/// Makes what is missing: authority, certificates of the three parts, the web's authority and certificate, the encryption key, the
/// admin's password. That only for a database that does not exist yet: one that does knows another, which may
/// have been noted elsewhere and removed here on purpose.
///
/// # Errors
/// When a file cannot be written or an existing one is damaged; when the encryption key of an existing database is gone.
pub fn ensure(layout: &Layout, settings: &Settings) -> Result<(), UpError> {
    let (certificate, key) = (layout.state("tls/ca.pem"), layout.state("tls/ca.key"));
    // Whoever lost the authority has certificates that it cannot vouch for any more: they are all made again.
    let lost = !(certificate.exists() && key.exists());
    let authority = if !lost {
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
        if lost || !directory.join("key.pem").exists() {
            authority.issue(role, id, &["127.0.0.1".to_owned()])?.save(&directory)?;
        }
    }
    web_certificate(layout, settings)?;
    let encryption = layout.state("encryption.key");
    if !encryption.exists() {
        if Postgres::has_data(layout) {
            // A new one would open nothing of what is there: no environment, no credentials, no spec of any app.
            return Err(UpError::KeyLost(encryption));
        }
        let key: [u8; 32] = rand::rng().random();
        write_atomically(&encryption, hex::encode(key).as_bytes(), 0o600)?;
    }
    let password = password_file(layout);
    if !password.exists() && !Postgres::has_data(layout) {
        write_atomically(&password, random_password().as_bytes(), 0o600)?;
    }
    Ok(())
}

/// Authority and certificate for end users; both are made again when the domain changes, for which alone the authority may
/// speak. A platform of before had its certificate from the cluster's authority, and gets one of its own here.
fn web_certificate(layout: &Layout, settings: &Settings) -> Result<(), UpError> {
    let names = [settings.domain.clone(), format!("*.{}", settings.domain)];
    let (marker, shown, key) =
        (layout.state("tls/web/names"), layout.state("tls/web/cert.pem"), layout.state("tls/web/key.pem"));
    let (public, secret) = (layout.state(WEB_AUTHORITY), layout.state("tls/web/ca.key"));
    let wanted = names.join("\n");
    let as_wanted = std::fs::read_to_string(&marker).is_ok_and(|names| names == wanted);
    let authority = if as_wanted && public.exists() && secret.exists() {
        if shown.exists() && key.exists() {
            return Ok(());
        }
        WebAuthority::load(&public, &secret)?
    } else {
        // What was written half is made again.
        remove(&marker)?;
        let (authority, key_pem) = WebAuthority::generate(&settings.domain)?;
        write_atomically(&secret, key_pem.expose().as_bytes(), 0o600)?;
        write_atomically(&public, authority.certificate_pem().as_bytes(), 0o644)?;
        authority
    };
    let (certificate, key_pem) = authority.issue(&names)?;
    let chain = format!("{certificate}{}", authority.certificate_pem());
    write_atomically(&shown, chain.as_bytes(), 0o644)?;
    write_atomically(&key, key_pem.expose().as_bytes(), 0o600)?;
    write_atomically(&marker, wanted.as_bytes(), 0o644)
}

fn remove(path: &Path) -> Result<(), UpError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(UpError::file(path)(error)),
        _ => Ok(()),
    }
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

/// What a person does who has no password of the admin, when its file is not there.
#[must_use]
pub fn password_advice(layout: &Layout) -> Option<String> {
    let file = password_file(layout);
    let waiting = slipway_controller::auth::waiting_password(&file);
    (!file.exists()).then(|| {
        format!(
            "{} is not there; the password of admin is what it was. To set another, write it to {} (for root alone), \
             then `slipway down` and `slipway up`",
            file.display(),
            waiting.display()
        )
    })
}

/// Reads a small secret file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<String, UpError> {
    Ok(std::fs::read_to_string(path).map_err(UpError::file(path))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_existing_database_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        ensure(&layout, &settings).expect("the first start");
        let key = layout.state("encryption.key");
        // Before there is a database, nothing is lost.
        std::fs::remove_file(&key).expect("removed");
        ensure(&layout, &settings).expect("the first start, again");
        std::fs::create_dir(layout.state("postgres")).expect("made");
        std::fs::write(layout.state("postgres/PG_VERSION"), "17").expect("written");
        let before = read(&key).expect("a key");
        ensure(&layout, &settings).expect("a later start");
        assert_eq!(read(&key).expect("a key"), before);
        std::fs::remove_file(&key).expect("removed");
        let refused = ensure(&layout, &settings).expect_err("no key");
        assert!(matches!(&refused, UpError::KeyLost(path) if *path == key), "{refused}");
        assert!(!key.exists());
    }

    #[test]
    fn a_database_does_not_get_a_password_that_it_does_not_know() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        let file = password_file(&layout);
        ensure(&layout, &settings).expect("the first start");
        assert_eq!(read(&file).expect("a password").len(), 24);
        assert_eq!(password_advice(&layout), None);
        // Before there is a database, there is nobody whose password it is.
        std::fs::remove_file(&file).expect("removed");
        ensure(&layout, &settings).expect("the first start, again");
        assert!(file.exists());
        std::fs::create_dir(layout.state("postgres")).expect("made");
        std::fs::write(layout.state("postgres/PG_VERSION"), "17").expect("written");
        std::fs::remove_file(&file).expect("removed");
        ensure(&layout, &settings).expect("a later start");
        assert!(!file.exists());
        let advice = password_advice(&layout).expect("advice");
        assert!(advice.contains("admin-password.new") && advice.contains("slipway up"), "{advice}");
    }

    #[test]
    fn a_new_authority_issues_new_certificates() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        let settings = crate::settings::tests::example();
        ensure(&layout, &settings).expect("the first start");
        let part = || std::fs::read_to_string(layout.tls("cell").join("ca.pem")).expect("the authority of a part");
        let cell = part();
        ensure(&layout, &settings).expect("a later start");
        assert_eq!(part(), cell);
        std::fs::remove_file(layout.state("tls/ca.key")).expect("removed");
        ensure(&layout, &settings).expect("with a new authority");
        assert_eq!(part(), std::fs::read_to_string(layout.state("tls/ca.pem")).expect("the authority"));
        assert_ne!(part(), cell);
    }

    #[test]
    fn the_web_has_an_authority_of_its_own_for_its_domain() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        let mut settings = crate::settings::tests::example();
        let text = |name: &str| std::fs::read_to_string(layout.state(name)).expect(name);
        ensure(&layout, &settings).expect("the first start");
        let (shown, authority) = (text("tls/web/cert.pem"), text(WEB_AUTHORITY));
        assert!(shown.ends_with(&authority) && authority != text("tls/ca.pem"));
        ensure(&layout, &settings).expect("a later start");
        assert_eq!((text("tls/web/cert.pem"), text(WEB_AUTHORITY)), (shown.clone(), authority.clone()));
        // One that was lost is issued again by the same authority.
        std::fs::remove_file(layout.state("tls/web/key.pem")).expect("removed");
        ensure(&layout, &settings).expect("a later start");
        assert!(text("tls/web/cert.pem") != shown && text("tls/web/cert.pem").ends_with(&authority));
        // Another domain is nothing that it may speak for.
        settings.domain = "other.test".to_owned();
        ensure(&layout, &settings).expect("with another domain");
        assert_ne!(text(WEB_AUTHORITY), authority);
        assert!(text("tls/web/cert.pem").ends_with(&text(WEB_AUTHORITY)));
        // A platform of before: what it shows is of the cluster's authority.
        std::fs::write(layout.state("tls/web/cert.pem"), text("tls/ca.pem")).expect("written");
        for gone in [WEB_AUTHORITY, "tls/web/ca.key"] {
            std::fs::remove_file(layout.state(gone)).expect("removed");
        }
        ensure(&layout, &settings).expect("the first start with an authority of its own");
        assert!(text("tls/web/cert.pem").ends_with(&text(WEB_AUTHORITY)));
    }
}
