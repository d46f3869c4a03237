//! Files behind nginx. `Staticfile` turns features on; the port is put into the configuration at launch.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde::Deserialize;
use serde_norway::Value;

use super::{Needs, Workspace, web};
use crate::contract::{BuildRequest, ProcessType};
use crate::errors::Problem;
use crate::source::Source;
use crate::versions;

/// Stay at the top of the app when its files move to `public`.
const KEPT: [&str; 7] =
    ["Staticfile", "Staticfile.auth", "manifest.yml", "Procfile", ".profile", ".profile.d", "public.slipway"];

/// The options, as on Cloud Foundry. Switches are `enabled` or `true`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    root: Option<String>,
    directory: Option<String>,
    ssi: Option<Value>,
    pushstate: Option<Value>,
    http_strict_transport_security: Option<Value>,
    http_strict_transport_security_include_subdomains: Option<Value>,
    http_strict_transport_security_preload: Option<Value>,
    host_dot_files: Option<Value>,
    force_https: Option<Value>,
    location_include: Option<String>,
    status_codes: Option<std::collections::BTreeMap<u16, String>>,
}

fn on(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) => ["enabled", "true", "visible"].contains(&text.as_str()),
        _ => false,
    }
}

pub(super) fn detects(source: &dyn Source) -> bool {
    source.has("Staticfile")
}

fn options(source: &dyn Source) -> Result<Options, Problem> {
    let bad = |file: &str, detail: String| Problem::BadFile { file: file.into(), detail };
    let text = source.read("Staticfile").unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(Options::default());
    }
    let options: Option<Options> =
        serde_norway::from_str(&text).map_err(|error| bad("Staticfile", error.to_string()))?;
    let options = options.unwrap_or_default();
    // These become part of a configuration file: nothing that could end a line or leave the app.
    let words = [("root", &options.root), ("location_include", &options.location_include)];
    let words = words.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.as_str())));
    let codes = options.status_codes.iter().flatten().map(|(_, page)| ("status_codes", page.as_str()));
    for (name, value) in words.chain(codes) {
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "._-/*".contains(c));
        if value.is_empty() || !plain || value.split('/').any(|part| part == "..") {
            return Err(bad("Staticfile", format!("{name}: {value:?} is no path inside the app")));
        }
    }
    Ok(options)
}

pub(super) fn needs<'c>(request: &'c BuildRequest, source: &dyn Source) -> Result<Needs<'c>, Problem> {
    options(source)?;
    let (nginx, _) = versions::choose(&request.catalogue, "nginx", "nginx", "Staticfile", None, 2)?;
    Ok(Needs { layers: vec![(nginx, false)], notes: Vec::new(), says: "staticfile".into() })
}

pub(super) fn build(work: &Workspace<'_>, source: &dyn Source) -> Result<Vec<ProcessType>, Problem> {
    let options = options(source)?;
    if !work.last {
        // As on Cloud Foundry: nginx is there, and the app's files stay where the last buildpack looks for them.
        work.runner.headline("nginx is there; the last buildpack decides what is served");
        return Ok(Vec::new());
    }
    let io = |error: std::io::Error| Problem::Platform(format!("the app's files could not be arranged: {error}"));
    let root = match options.root.as_deref().map(|root| root.trim_matches('/')).filter(|root| *root != ".") {
        Some(root) if !work.app.join(root).is_dir() => {
            return Err(Problem::BadFile {
                file: "Staticfile".into(),
                detail: format!("root: {root:?} is no directory of the app"),
            });
        }
        Some(root) => root.to_owned(),
        None => {
            // What is not served must not lie beside what is.
            let public = work.app.join("public.slipway");
            fs::create_dir(&public).map_err(io)?;
            for entry in fs::read_dir(work.app).map_err(io)? {
                let entry = entry.map_err(io)?;
                if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
                    fs::rename(entry.path(), public.join(entry.file_name())).map_err(io)?;
                }
            }
            fs::rename(&public, work.app.join("public")).map_err(io)?;
            "public".to_owned()
        }
    };
    work.runner.headline(&format!("Serving the files of {root}"));
    let passwords = match source.read("Staticfile.auth") {
        Some(text) => Some(work.put("staticfile/passwords", &text)?),
        None => None,
    };
    let directory = work.app.join(&root);
    let text =
        configuration(&options, &directory.display().to_string(), passwords.map(|path| path.display().to_string()));
    let template = work.put("staticfile/nginx.conf", &text)?;
    // Its name and place are Cloud Foundry's: commands in manifests end with `&& $HOME/boot.sh`. An app's own is replaced there too.
    let start = work.app.join("boot.sh");
    if start.is_symlink() {
        fs::remove_file(&start).map_err(io)?;
    }
    fs::write(&start, boot(&template.display().to_string())).map_err(io)?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).map_err(io)?;
    Ok(web("$HOME/boot.sh".to_owned()))
}

/// The script that makes the configuration of the template and becomes nginx.
fn boot(template: &str) -> String {
    format!(
        "#!/bin/sh\nset -eu\ndirectory=\"${{TMPDIR:-/tmp}}/nginx\"\nmkdir -p \"$directory\"\n\
         sed -e \"s|@PORT@|$PORT|g\" -e \"s|@TMP@|$directory|g\" '{template}' > \"$directory/nginx.conf\"\n\
         exec /usr/sbin/nginx -e stderr -p \"$directory\" -c \"$directory/nginx.conf\"\n"
    )
}

fn configuration(options: &Options, root: &str, passwords: Option<String>) -> String {
    let mut inner = String::new();
    let mut line = |text: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(inner, "      {text}");
    };
    if on(options.pushstate.as_ref()) {
        line("if (!-e $request_filename) { rewrite ^(.*)$ / break; }");
    }
    line("index index.html index.htm Default.htm;");
    if options.directory.as_deref() == Some("visible") {
        line("autoindex on;");
    }
    if on(options.ssi.as_ref()) {
        line("ssi on;");
    }
    if on(options.force_https.as_ref()) {
        line("if ($http_x_forwarded_proto = http) { return 301 https://$host$request_uri; }");
    }
    if on(options.http_strict_transport_security.as_ref()) {
        let mut value = "max-age=31536000".to_owned();
        if on(options.http_strict_transport_security_include_subdomains.as_ref()) {
            value += "; includeSubDomains";
        }
        if on(options.http_strict_transport_security_preload.as_ref()) {
            value += "; preload";
        }
        line(&format!("add_header Strict-Transport-Security \"{value}\";"));
    }
    if let Some(path) = passwords {
        line("auth_basic \"Restricted\";");
        line(&format!("auth_basic_user_file {path};"));
    }
    if let Some(include) = &options.location_include {
        line(&format!("include {root}/{include};"));
    }
    let mut outer = String::new();
    if !on(options.host_dot_files.as_ref()) {
        outer += "    location ~ /\\. { deny all; return 404; }\n";
    }
    for (code, page) in options.status_codes.iter().flatten() {
        let _ = writeln!(outer, "    error_page {code} /{};", page.trim_start_matches('/'));
    }
    format!(
        "worker_processes 1;\ndaemon off;\nerror_log stderr notice;\npid @TMP@/nginx.pid;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  include /etc/nginx/mime.types;\n  default_type application/octet-stream;\n  \
         log_format cloudfoundry '$http_x_forwarded_for - $http_referer - [$time_local] \"$request\" $status $body_bytes_sent';\n  \
         access_log /dev/stdout cloudfoundry;\n  \
         client_body_temp_path @TMP@/body;\n  proxy_temp_path @TMP@/proxy;\n  fastcgi_temp_path @TMP@/fastcgi;\n  \
         uwsgi_temp_path @TMP@/uwsgi;\n  scgi_temp_path @TMP@/scgi;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_timeout 75;\n  \
         port_in_redirect off;\n  server_tokens off;\n  gzip on;\n  gzip_static on;\n  gzip_vary on;\n  gzip_proxied any;\n  \
         gzip_types text/plain text/css text/javascript text/xml application/json application/javascript application/xml \
         image/svg+xml;\n  server {{\n    listen @PORT@;\n    server_name _;\n    root {root};\n{outer}    location / {{\n{inner}    \
         }}\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::langs::Builtin;
    use crate::langs::testing::Builds;
    use crate::source::Listing;

    fn of(text: &str) -> Result<Options, Problem> {
        options(&Listing::of(&[("Staticfile", text)]))
    }

    #[test]
    fn options_become_configuration() {
        let options = of("root: dist\npushstate: enabled\ndirectory: visible\nhttp_strict_transport_security: true\n\
                          status_codes:\n  404: /missing.html\n")
        .unwrap();
        let text = configuration(&options, "/home/vcap/app/dist", None);
        for part in [
            "root /home/vcap/app/dist;",
            "rewrite",
            "autoindex on",
            "max-age",
            "error_page 404 /missing.html",
            "listen @PORT@",
            "access_log /dev/stdout cloudfoundry;",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("deny all"), "dot files are hidden");
        let open = configuration(&of("host_dot_files: true").unwrap(), "/x", Some("/p".into()));
        assert!(!open.contains("deny all") && open.contains("auth_basic_user_file /p;"));
        assert_eq!(open.matches('{').count(), open.matches('}').count());
    }

    /// Manifests of Cloud Foundry call `$HOME/boot.sh` after something of their own.
    #[test]
    fn the_start_command_is_that_of_cloud_foundry() {
        let app = [("Staticfile", ""), ("index.html", "hello"), ("boot.sh", "a file of the site")];
        let mut builds = Builds::new(Builtin::Staticfile, &app, &[]);
        let processes = builds.stage().unwrap();
        assert_eq!((processes[0].kind.as_str(), processes[0].command.as_str()), ("web", "$HOME/boot.sh"));
        let (script, served) = (builds.at("home/app/boot.sh"), builds.at("home/app/public"));
        assert!(fs::read_to_string(&script).unwrap().contains("nginx"));
        assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_to_string(served.join("index.html")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(served.join("boot.sh")).unwrap(), "a file of the site");

        builds.file("Staticfile", "root: dist\n");
        builds.file("dist/index.html", "hello");
        builds.stage().unwrap();
        assert!(fs::read_to_string(&script).unwrap().contains("nginx"), "an app's own is replaced");
    }

    #[test]
    fn a_staticfile_cannot_inject_configuration() {
        for text in [
            "root: ../..",
            "root: 'x; } evil {'",
            "location_include: \"a\\nb\"",
            "status_codes: {404: 'x y'}",
            "root: [",
        ] {
            assert!(matches!(of(text), Err(Problem::BadFile { .. })), "{text}");
        }
        for text in ["", "\n", "root: a/b", "unknown: 1"] {
            assert!(of(text).is_ok(), "{text}");
        }
    }
}
