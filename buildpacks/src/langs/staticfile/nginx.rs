//! The web server's configuration, and the script that starts it.
//!
//! The configuration lies where Cloud Foundry's buildpack has it, `nginx/conf/nginx.conf` of the app, so that what a site
//! includes is found and commands that change it before the start go on working. What is known only at the start
//! (`@…@`, and the line that `FORCE_HTTPS` turns on) is put in by the script.

use std::fmt::Write as _;

use super::options::Options;

/// Names of types that the system's list does not have.
const TYPES: &str = "types { application/javascript mjs; application/manifest+json webmanifest; }";
/// Types that are text, whose letters a browser would otherwise guess.
const TEXTS: &str =
    "text/css text/csv text/javascript text/markdown text/plain text/xml application/javascript application/rss+xml";

/// What is fixed at the start of nginx, and for all sites.
///
/// A visitor's copy is asked after each time (`no-cache`), unless the site says something else itself: a page keeps its name
/// when it changes. It is compared by `ETag`, which follows from the content: files have times that do (`layers::Times::Content`).
/// As a date those times mean nothing, so they are not told.
///
/// Requests are lines of the platform's router already. A site that wants nginx's own includes `access_log`, for which the
/// format of Cloud Foundry's buildpack is here.
const HEAD: &str = r#"worker_processes 1;
daemon off;
error_log stderr warn;
pid @TMP@/nginx.pid;
events { worker_connections 1024; }
http {
  client_body_temp_path @TMP@/body;
  proxy_temp_path @TMP@/proxy;
  fastcgi_temp_path @TMP@/fastcgi;
  uwsgi_temp_path @TMP@/uwsgi;
  scgi_temp_path @TMP@/scgi;
  default_type application/octet-stream;
  log_format cloudfoundry '$http_x_forwarded_for - $http_referer - [$time_local] "$request" $status $body_bytes_sent';
  access_log off;
  log_not_found off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 75;
  absolute_redirect off;
  server_tokens off;
  charset utf-8;
  gzip on;
  gzip_static always;
  gunzip on;
  gzip_vary on;
  gzip_proxied any;
  gzip_types text/plain text/css text/javascript text/xml application/json application/javascript application/xml image/svg+xml;
  map $sent_http_cache_control $revalidated { "" no-cache; }
  map $http_x_forwarded_proto $by_https { default 0; "~*^https(,|$)" 1; }
"#;

/// Ends the part of a location. It comes behind what the site includes, so that it sees what that has set.
const POLICY: &str = r#"add_header Cache-Control $revalidated always; add_header Last-Modified "" always;"#;

const REDIRECT: &str = "if ($by_https = 0) { return 301 https://$host$request_uri; }";

/// The configuration for the files of `root`, with the passwords of a file and the media types of a file.
pub(super) fn configuration(options: &Options, root: &str, passwords: Option<&str>, types: &str) -> String {
    let mut text = HEAD.to_owned();
    let mut line = |depth: usize, line: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:width$}{line}", "", width = 2 * depth);
    };
    line(1, &format!("charset_types {TEXTS};"));
    line(1, &format!("include {types};"));
    line(1, TYPES);
    line(1, "server {");
    line(2, "listen @LISTEN@;");
    line(2, "server_name _;");
    line(2, &format!("root {root};"));
    line(2, &format!("{}{REDIRECT}", if options.force_https { "" } else { "#FORCE_HTTPS#" }));
    for (codes, page) in &options.pages {
        let codes: Vec<String> = codes.iter().map(u16::to_string).collect();
        line(2, &format!("error_page {} {page};", codes.join(" ")));
    }
    if !options.dot_files {
        line(2, "location ~ /\\. { deny all; return 404; }");
    }
    line(2, "location / {");
    if options.pushstate {
        line(3, "if (!-e $request_filename) { rewrite ^(.*)$ / break; }");
    }
    line(3, "index index.html index.htm Default.htm;");
    for (on, directive) in [(options.listing, "autoindex on;"), (options.ssi, "ssi on;")] {
        if on {
            line(3, directive);
        }
    }
    if let Some(value) = &options.hsts {
        line(3, &format!("add_header Strict-Transport-Security \"{value}\";"));
    }
    if let Some(path) = passwords {
        line(3, "auth_basic \"Restricted\";");
        line(3, &format!("auth_basic_user_file {path};"));
    }
    if let Some(include) = &options.include {
        line(3, &format!("include {include};"));
    }
    line(3, POLICY);
    line(2, "}");
    line(1, "}");
    text + "}\n"
}

/// The script that completes the configuration and runs nginx. The platform stops an app with SIGTERM, at which nginx cuts
/// off what it is sending; at SIGQUIT it sends that to its end. So the script stays and hands one on as the other. A signal
/// ends the shell's `wait`, which is begun again for as long as nginx is there.
pub(super) fn boot(http2: bool) -> String {
    let listen = if http2 { "\"$PORT http2\"" } else { "\"$PORT${ENABLE_HTTP2:+ http2}\"" };
    format!(
        r#"#!/bin/sh
set -eu
directory="${{TMPDIR:-/tmp}}/nginx"
configuration="$HOME/nginx/conf/nginx.conf"
mkdir -p "$directory"
listen={listen}
case "${{FORCE_HTTPS:-false}}" in
  false) redirect='#FORCE_HTTPS#' ;;
  *) redirect='' ;;
esac
sed -i -e "s|@LISTEN@|$listen|g" -e "s|@TMP@|$directory|g" -e "s|#FORCE_HTTPS#|$redirect|" "$configuration"
/usr/sbin/nginx -e stderr -p "$HOME/nginx" -c "$configuration" &
nginx=$!
trap 'kill -QUIT "$nginx"' TERM
while :; do
  status=0
  wait "$nginx" || status=$?
  kill -0 "$nginx" 2>/dev/null || exit "$status"
done
"#
    )
}
