//! How the static buildpack turns a site's directory into a droplet.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{TYPES, nginx, options};
use crate::langs::Builtin;
use crate::langs::testing::Builds;
use crate::source::Listing;

fn configuration(staticfile: &str, passwords: Option<&str>) -> String {
    let options = options::read(&Listing::of(&[("Staticfile", staticfile), ("nginx/conf/h.conf", "")])).unwrap();
    let text = nginx::configuration(&options, "/home/vcap/app/dist", passwords, TYPES);
    assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    text
}

#[test]
fn options_become_configuration() {
    let all = configuration(
        "root: dist\npushstate: enabled\ndirectory: visible\nssi: enabled\nhttp_strict_transport_security: true\n\
         location_include: h.conf\nforce_https: true\nstatus_codes:\n  404: missing.html\n",
        Some("/p"),
    );
    for part in [
        "root /home/vcap/app/dist;",
        "rewrite ^(.*)$ / break;",
        "autoindex on;",
        "ssi on;",
        "add_header Strict-Transport-Security \"max-age=31536000\";",
        "error_page 404 /missing.html;",
        "listen @LISTEN@;",
        "access_log off;",
        "auth_basic_user_file /p;",
        "include h.conf;",
        "    if ($by_https = 0)",
        "deny all;",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    let place = |part: &str| all.find(part).unwrap();
    assert!(place("include h.conf;") < place("add_header Cache-Control $revalidated"), "the site's own policy wins");
    let none = configuration("host_dot_files: true", None);
    for part in ["rewrite", "autoindex", "ssi on", "Strict-Transport", "error_page", "auth_basic", "deny all"] {
        assert!(!none.contains(part), "{part} in {none}");
    }
    assert!(none.contains("    #FORCE_HTTPS#if"), "the variable turns it on at the start");
}

/// What stands in for nginx writes down the signal that it gets, takes its time and ends with a status of its own.
#[test]
fn a_stop_lets_nginx_end_what_it_is_sending() {
    let builds = Builds::new(Builtin::Staticfile, &[("Staticfile", ""), ("index.html", "hello")], &[]);
    builds.stage().unwrap();
    let home = builds.at("home/app");
    let text = fs::read_to_string(home.join("boot.sh")).unwrap();
    let nginx = home.join("nginx-stand-in");
    fs::write(
        &nginx,
        // A shell cannot do it: those that a shell runs in the background ignore SIGQUIT until they say otherwise.
        "#!/usr/bin/perl\n$| = 1; $SIG{QUIT} = sub { print qq(QUIT\\n); sleep 1; exit 7 };\n\
         $SIG{TERM} = sub { print qq(TERM\\n); exit 1 }; print qq(ready\\n); sleep 1 while getppid() > 1; exit 9\n",
    )
    .unwrap();
    fs::set_permissions(&nginx, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(home.join("boot.sh"), text.replace("/usr/sbin/nginx", nginx.to_str().unwrap())).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.arg(home.join("boot.sh")).env("HOME", &home).env("TMPDIR", builds.at("home/tmp")).env("PORT", "8080");
    let mut shell = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(shell.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    std::process::Command::new("kill").arg(shell.id().to_string()).status().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "QUIT");
    assert_eq!(shell.wait().unwrap().code(), Some(7), "the script waits and ends as nginx does");
}

/// Runs the start script of a site with an nginx that shows its configuration.
fn started(builds: &Builds, variables: &[(&str, &str)]) -> String {
    let home = builds.at("home/app");
    let text = fs::read_to_string(home.join("boot.sh")).unwrap();
    assert!(text.contains("\n/usr/sbin/nginx "));
    fs::write(home.join("boot.sh"), text.replace("\n/usr/sbin/nginx ", "\necho ")).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.arg(home.join("boot.sh")).env("HOME", &home).env("TMPDIR", builds.at("home/tmp")).env("PORT", "8080");
    shell.env_remove("FORCE_HTTPS").env_remove("ENABLE_HTTP2").envs(variables.iter().copied());
    let output = shell.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains(&format!("-p {}/nginx", home.display())), "{said}");
    fs::read_to_string(home.join("nginx/conf/nginx.conf")).unwrap()
}

#[test]
fn variables_of_the_app_count_when_it_starts() {
    let app = [("Staticfile", ""), ("index.html", "hello")];
    for (variables, listen, redirects) in [
        (&[][..], "listen 8080;", false),
        (&[("FORCE_HTTPS", "true")], "listen 8080;", true),
        (&[("FORCE_HTTPS", "false")], "listen 8080;", false),
        (&[("FORCE_HTTPS", ""), ("ENABLE_HTTP2", "1")], "listen 8080 http2;", false),
    ] {
        let builds = Builds::new(Builtin::Staticfile, &app, &[]);
        builds.stage().unwrap();
        let text = started(&builds, variables);
        assert!(text.contains(listen), "{variables:?}: {text}");
        assert_eq!(text.contains("    if ($by_https = 0) { return 301"), redirects, "{variables:?}: {text}");
        assert!(!text.contains('@'), "{text}");
    }
    let mut builds = Builds::new(Builtin::Staticfile, &app, &[]);
    builds.file("Staticfile", "enable_http2: true\nforce_https: enabled\n");
    builds.stage().unwrap();
    let text = started(&builds, &[]);
    assert!(text.contains("listen 8080 http2;") && text.contains("    if ($by_https = 0)"), "{text}");
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

/// The include is beside the configuration, where nginx looks for it, and not among what is served.
#[test]
fn files_that_a_site_includes_are_not_served() {
    for root in ["", "root: public\n"] {
        let mut builds =
            Builds::new(Builtin::Staticfile, &[("nginx/conf/includes/h.conf", "add_header X-Inc yes;")], &[]);
        builds.file("Staticfile", &format!("{root}location_include: includes/h.conf\n"));
        builds.file(if root.is_empty() { "index.html" } else { "public/index.html" }, "hello");
        builds.stage().unwrap();
        let conf = builds.at("home/app/nginx/conf");
        assert!(fs::read_to_string(conf.join("nginx.conf")).unwrap().contains("include includes/h.conf;"));
        assert!(conf.join("includes/h.conf").is_file());
        assert!(builds.at("home/app/public/index.html").is_file() && !builds.at("home/app/public/nginx").exists());
    }
    // A directory of the site that only has this name is the site's.
    let builds = Builds::new(Builtin::Staticfile, &[("Staticfile", ""), ("nginx/index.html", "about nginx")], &[]);
    builds.stage().unwrap();
    assert!(builds.at("home/app/public/nginx/index.html").is_file());
}

#[test]
fn passwords_and_media_types_are_the_sites() {
    let app = [("Staticfile", ""), ("Staticfile.auth", "me:$apr1$x"), ("mime.types", "types {}"), ("index.html", "")];
    let builds = Builds::new(Builtin::Staticfile, &app, &[]);
    builds.stage().unwrap();
    let text = fs::read_to_string(builds.at("home/app/nginx/conf/nginx.conf")).unwrap();
    let passwords = builds.at("home/deps/0/staticfile/passwords");
    assert_eq!(fs::read_to_string(&passwords).unwrap(), "me:$apr1$x");
    assert!(text.contains(&format!("auth_basic_user_file {};", passwords.display())), "{text}");
    assert!(text.contains(&format!("include {}/mime.types;", builds.at("home/app/public").display())), "{text}");
    assert!(!builds.at("home/app/public/Staticfile.auth").exists());
}

#[test]
fn a_missing_root_is_reported() {
    let builds = Builds::new(Builtin::Staticfile, &[("Staticfile", "root: dist"), ("index.html", "")], &[]);
    let error = builds.stage().unwrap_err().to_error();
    assert!(error.text.contains("dist") && error.text.contains("Staticfile"), "{}", error.text);
}
