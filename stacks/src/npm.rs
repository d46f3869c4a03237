//! Packages of the npm registry: the highest release in a range, fetched with curl and checked by the registry's digest.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest as _, Sha512};
use slipway_layers::Package;

use crate::host::NpmSettings;
use crate::recipe::Npm;
use crate::run::{RunError, run};

/// Why a package is not there.
#[derive(Debug, thiserror::Error)]
pub enum NpmError {
    /// Fetching failed.
    #[error("{what} could not be fetched; check the registry, proxy and certificate settings of npm on this host")]
    Fetch {
        /// What.
        what: String,
        /// The cause.
        #[source]
        source: RunError,
    },
    /// The registry's answer is not what was expected.
    #[error("the registry's description of {package} cannot be used: {detail}")]
    Description {
        /// The package.
        package: String,
        /// What is wrong.
        detail: String,
    },
    /// What came is not what the registry announced.
    #[error("{package} does not have the digest that the registry announced; it was damaged or replaced on its way")]
    Digest {
        /// The package.
        package: String,
    },
    /// The archive or the disk.
    #[error("{package} could not be unpacked")]
    Unpack {
        /// The package.
        package: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
struct Description {
    versions: std::collections::BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    dist: Dist,
}

#[derive(Deserialize)]
struct Dist {
    tarball: String,
    integrity: Option<String>,
}

/// Fetches a package and puts its parts below `root`. Tarballs are kept in `cache` by digest.
pub(crate) fn install(
    npm: &Npm,
    root: &Path,
    cache: &Path,
    settings: &NpmSettings,
    log: &Path,
) -> Result<Package, NpmError> {
    let package = &npm.package;
    let description = |detail: String| NpmError::Description { package: package.clone(), detail };
    let io = |source| NpmError::Unpack { package: package.clone(), source };
    fs::create_dir_all(cache).map_err(io)?;
    let answer = cache.join(format!("{}.json", package.replace('/', "+")));
    fetch(&format!("{}{package}", settings.registry()), &answer, settings, log)?;
    let text = fs::read(&answer).map_err(io)?;
    let parsed: Description = serde_json::from_slice(&text).map_err(|error| description(error.to_string()))?;
    let range = semver::VersionReq::parse(&npm.range).map_err(|error| description(error.to_string()))?;
    let (version, chosen) = parsed
        .versions
        .into_iter()
        .filter_map(|(text, version)| Some((semver::Version::parse(&text).ok()?, version)))
        .filter(|(version, _)| range.matches(version))
        .max_by(|(a, _), (b, _)| a.cmp(b))
        .ok_or_else(|| description(format!("no release is in the range {}", npm.range)))?;
    let integrity = chosen.dist.integrity.ok_or_else(|| description("it has no sha512 digest".into()))?;
    let expected = integrity
        .split_whitespace()
        .find_map(|part| part.strip_prefix("sha512-"))
        .ok_or_else(|| description("it has no sha512 digest".into()))?;
    let tarball = cache.join(format!("{}-{version}.tgz", package.replace('/', "+")));
    if !tarball.exists() || sha512(&tarball).map_err(io)? != expected {
        fetch(&chosen.dist.tarball, &tarball, settings, log)?;
    }
    if sha512(&tarball).map_err(io)? != expected {
        fs::remove_file(&tarball).map_err(io)?;
        return Err(NpmError::Digest { package: format!("{package} {version}") });
    }
    unpack(npm, &tarball, root).map_err(io)?;
    Ok(Package {
        name: package.clone(),
        version: version.to_string(),
        source: "npm".into(),
        integrity: Some(integrity.clone()),
    })
}

fn fetch(address: &str, target: &Path, settings: &NpmSettings, log: &Path) -> Result<(), NpmError> {
    // Options go through standard input: arguments are seen by everybody on the host.
    let mut config = format!("url = \"{address}\"\n");
    if address.starts_with(&settings.registry())
        && let Some(token) = settings.token()
    {
        config += &format!("header = \"Authorization: Bearer {token}\"\n");
    }
    if let Some(file) = settings.certificates() {
        config += &format!("cacert = \"{file}\"\n");
    }
    if let Some(proxy) = settings.proxy() {
        config += &format!("proxy = \"{proxy}\"\n");
    }
    let partial = target.with_extension("part");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--location", "--retry", "3", "--connect-timeout", "20"]);
    command.args(["--header", "Accept: application/vnd.npm.install-v1+json, */*;q=0.5", "--config", "-", "--output"]);
    command.arg(&partial);
    run(&mut command, Some(&config), log).map_err(|source| NpmError::Fetch { what: address.to_owned(), source })?;
    fs::rename(&partial, target).map_err(|source| NpmError::Unpack { package: address.to_owned(), source })
}

fn sha512(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha512::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(base64(&hash.finalize()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let value = chunk.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(ALPHABET[(value >> (18 - 6 * place) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// The tarball was checked against the registry's digest, but its names are still its maker's: only plain relative paths
/// below `package/` are taken.
fn unpack(npm: &Npm, tarball: &Path, root: &Path) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(tarball)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inside: PathBuf = path.components().skip(1).collect();
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || !entry.header().entry_type().is_file() {
            continue;
        }
        for put in &npm.put {
            let Ok(rest) = inside.strip_prefix(&put.from) else { continue };
            let target = root.join(&put.to).join(rest);
            // `join` of an empty rest leaves a slash behind a file's name.
            let target: PathBuf = target.components().collect();
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            let executable = entry.header().mode()? & 0o111 != 0 || inside.starts_with("bin");
            let time = entry.header().mtime()?;
            let mut file = File::create(&target)?;
            std::io::copy(&mut entry, &mut file)?;
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time))?;
            let mode = if executable { 0o755 } else { 0o644 };
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Put;

    #[test]
    fn base64_is_the_usual_one() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn parts_go_where_the_recipe_says() {
        let directory = tempfile::tempdir().unwrap();
        let tarball = directory.path().join("p.tgz");
        let gz = flate2::write::GzEncoder::new(File::create(&tarball).unwrap(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gz);
        for name in ["package/bin/node", "package/share/doc/x", "package/LICENSE"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            header.set_mtime(7);
            builder.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        let npm = Npm {
            package: "p".into(),
            range: "1".into(),
            put: vec![
                Put { from: "bin/node".into(), to: "usr/local/bin/node".into() },
                Put { from: "LICENSE".into(), to: "usr/share/LICENSE".into() },
            ],
        };
        let root = directory.path().join("root");
        unpack(&npm, &tarball, &root).unwrap();
        assert!(root.join("usr/local/bin/node").is_file() && root.join("usr/share/LICENSE").is_file());
        assert!(!root.join("share").exists());
    }
}
