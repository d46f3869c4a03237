//! Files behind nginx. `Staticfile` turns features on; the port is put into the configuration at launch.

mod nginx;
mod options;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Needs, Workspace, web};
use crate::contract::{BuildRequest, ProcessType};
use crate::errors::Problem;
use crate::source::Source;
use crate::versions;

use self::options::Options;

const MARK: &str = "Staticfile";
const PASSWORDS: &str = "Staticfile.auth";
/// What makes a directory without a `Staticfile` a site, when nothing else is in it that anybody knows.
const PAGE: &str = "index.html";
/// Where the files of a site are put that names no place.
const PUBLIC: &str = "public";
/// Stay at the top of the app when its files move to `public`.
const RETAINED_FILES: [&str; 7] =
    [MARK, PASSWORDS, "manifest.yml", "Procfile", ".profile", ".profile.d", "public.slipway"];
/// The system's list of media types.
const TYPES: &str = "/etc/nginx/mime.types";

pub(super) fn detects(source: &dyn Source) -> bool {
    source.has(MARK)
}

/// A page and no word about how to start something: asked when no buildpack has taken the app.
pub(super) fn is_site(request: &BuildRequest, source: &dyn Source) -> bool {
    source.has(PAGE) && request.command.is_none() && !source.has("Procfile")
}

pub(super) fn needs<'c>(request: &'c BuildRequest, source: &dyn Source) -> Result<Needs<'c>, Problem> {
    let options = options::read(source)?;
    let nginx = versions::highest(&request.catalogue, "nginx")?;
    Ok(Needs { layers: vec![(nginx, false)], notes: options.notes, says: "staticfile".into(), ..Needs::default() })
}

pub(super) fn build(work: &Workspace<'_>, source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
    let options = options::read(source)?;
    if !work.last {
        // As on Cloud Foundry: nginx is there, and the app's files stay where the last buildpack looks for them.
        work.runner.headline("nginx is there; the last buildpack decides what is served");
        return Ok(Vec::new());
    }
    let root = match &options.root {
        Some(root) if !work.app.join(root).is_dir() => return Err(no_directory(root)),
        Some(root) => root.clone(),
        None => {
            to_public(work.app).map_err(unarranged)?;
            PUBLIC.to_owned()
        }
    };
    serve(work, source, &options, &root)
}

/// Serves the pages that a build has made in a directory of the app, or those of the place that a `Staticfile` names.
pub(super) fn serve_built(work: &Workspace<'_>, source: &dyn Source, made: &str) -> Result<Vec<ProcessType>, Problem> {
    let options = options::read(source)?;
    match options.root.as_deref() {
        Some(root) if !work.app.join(root).is_dir() => Err(no_directory(root)),
        root => serve(work, source, &options, root.unwrap_or(made)),
    }
}

fn no_directory(root: &str) -> Problem {
    Problem::BadFile { file: MARK.into(), detail: format!("root: {root:?} is not a directory of the app") }
}

fn unarranged(error: std::io::Error) -> Problem {
    Problem::Platform(format!("the app's files could not be arranged: {error}"))
}

/// Moves the site away from the top, since what is not served must not lie beside what is.
fn to_public(app: &Path) -> std::io::Result<()> {
    let public = app.join("public.slipway");
    fs::create_dir(&public)?;
    let configures = app.join("nginx/conf").is_dir();
    for entry in fs::read_dir(app)? {
        let entry = entry?;
        let stays = RETAINED_FILES.iter().any(|name| entry.file_name() == *name)
            || (configures && entry.file_name() == "nginx");
        if !stays {
            fs::rename(entry.path(), public.join(entry.file_name()))?;
        }
    }
    fs::rename(&public, app.join(PUBLIC))
}

/// A file of the app, with its directories; a link in its place is replaced, not followed.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Problem> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        if path.is_symlink() {
            fs::remove_file(path)?;
        }
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write().map_err(unarranged)
}

/// Configures nginx for a directory of the app.
fn serve(
    work: &Workspace<'_>,
    source: &dyn Source,
    options: &Options,
    root: &str,
) -> Result<Vec<ProcessType>, Problem> {
    let what =
        if options.root.is_none() && root == PUBLIC { "the site".to_owned() } else { format!("the files of {root}") };
    work.runner.headline(&format!("Serving {what}"));
    let passwords = match source.read(PASSWORDS) {
        Some(text) => {
            work.runner.detail(&format!("Visitors need a password that is listed in {PASSWORDS}"));
            Some(work.put("staticfile/passwords", &text)?.display().to_string())
        }
        None => None,
    };
    let directory = work.app.join(root);
    let configuration = work.app.join("nginx/conf/nginx.conf");
    let own = directory.join("mime.types");
    let types = if own.is_file() { own.display().to_string() } else { TYPES.to_owned() };
    if directory.join("nginx.conf").is_file() {
        work.runner.detail(&format!(
            "{root}/nginx.conf is served as a file: only a Staticfile configures the web server here"
        ));
    }
    let text = nginx::configuration(options, &directory.display().to_string(), passwords.as_deref(), &types);
    write(&configuration, &text, 0o644)?;
    work.put("profile.d/staticfile.sh", "export APP_ROOT=$HOME\n")?;
    // Its name and place are Cloud Foundry's: commands in manifests end with `&& $HOME/boot.sh`. An app's own is replaced there too.
    write(&work.app.join("boot.sh"), &nginx::boot(options.http2), 0o755)?;
    Ok(web("$HOME/boot.sh".to_owned()))
}
