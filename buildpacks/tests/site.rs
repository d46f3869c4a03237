//! Sites as a visitor's browser meets them: built, packed, unpacked and served by the nginx of the platform's own layer.
//! That layer is in `SLIPWAY_STACK_DIR`, where `./test` makes it; `SLIPWAY_TEST_NGINX` names another root with an nginx.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use slipway_buildpacks::contract::{BuildPaths, BuildRequest};
use slipway_buildpacks::langs::{Builtin, Workspace};
use slipway_buildpacks::run::Runner;
use slipway_buildpacks::source::Directory;
use slipway_layers::{LayerIndex, Limits, Owners, PackOptions, Times, pack, unpack_droplet, unpack_layer};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The root that nginx lies in; `None` where no layers were made.
fn layer(below: &Path) -> Option<PathBuf> {
    if let Some(root) = std::env::var_os("SLIPWAY_TEST_NGINX") {
        return Some(root.into());
    }
    let stacks = PathBuf::from(std::env::var_os("SLIPWAY_STACK_DIR")?);
    let index = LayerIndex::read(&stacks).expect("the layers can be read");
    let entry = index.line("nginx-1.22")?;
    Some(unpack_layer(&stacks.join(&entry.file), entry.meta.digest, below).expect("the layer can be unpacked"))
}

/// A site and its web server, which ends with it.
struct Site {
    directory: tempfile::TempDir,
    nginx: PathBuf,
    server: Option<(Child, u16)>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct SiteResponse {
    status: u16,
    /// As they came, with names in small letters.
    fields: Vec<(String, String)>,
    body: String,
}

impl SiteResponse {
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    }

    fn field(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }
}

impl Site {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let Some(nginx) = layer(&directory.path().join("layers")) else {
            eprintln!("there is no layer with nginx in SLIPWAY_STACK_DIR: not run");
            return None;
        };
        Some(Self { directory, nginx, server: None })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn stop(&mut self) {
        if let Some((mut server, _)) = self.server.take() {
            // Its workers too; they may have ended by themselves.
            let group = i32::try_from(server.id()).ok().and_then(Pid::from_raw).expect("a process");
            let _ = kill_process_group(group, Signal::KILL);
            let _ = server.wait();
        }
    }

    /// What a push does: the files are built, packed, and unpacked at the place where they are started.
    fn push(&mut self, files: &[(&str, &str)], variables: &[(&str, &str)]) {
        self.stop();
        for directory in ["home", "packed"] {
            if self.at(directory).exists() {
                fs::remove_dir_all(self.at(directory)).unwrap();
            }
        }
        for directory in ["home/app", "home/deps/0", "home/tmp", "cache", "packed"] {
            fs::create_dir_all(self.at(directory)).unwrap();
        }
        for (name, text) in files {
            let path = self.at("home/app").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let paths = BuildPaths { app: self.at("home/app"), deps: self.at("home/deps"), ..BuildPaths::default() };
        let request: BuildRequest =
            serde_json::from_value(serde_json::json!({ "stack": "debian12", "buildpacks": [], "paths": paths }))
                .unwrap();
        let runner = Runner::new(PATIENCE, 1 << 20);
        let work = Workspace {
            request: &request,
            app: &request.paths.app,
            deps: self.at("home/deps/0"),
            cache: self.at("cache"),
            runner: &runner,
            own: BTreeMap::new(),
            env: BTreeMap::new(),
            last: true,
        };
        Builtin::Staticfile.build(&work, &Directory(self.at("home/app"))).unwrap();
        let options = PackOptions {
            owners: Owners::Fixed(0, 0),
            times: Times::Content,
            take: &|_| true,
            skip_special: false,
            max_bytes: u64::MAX,
            durable: false,
        };
        pack(&self.at("home"), &self.at("packed/droplet"), &options).unwrap();
        fs::remove_dir_all(self.at("home")).unwrap();
        fs::create_dir(self.at("home")).unwrap();
        unpack_droplet(&self.at("packed/droplet"), "tar.zst", &self.at("home"), Limits::default(), None).unwrap();
        self.start(variables);
    }

    /// Starts the site with its own script, on nginx where it lies here.
    fn start(&mut self, variables: &[(&str, &str)]) {
        for (file, system, here) in [
            ("home/app/boot.sh", "/usr/sbin/nginx", "usr/sbin/nginx"),
            ("home/app/nginx/conf/nginx.conf", "/etc/nginx/mime.types", "etc/nginx/mime.types"),
        ] {
            let text = fs::read_to_string(self.at(file)).unwrap();
            let text = text.replace(system, &self.nginx.join(here).display().to_string());
            // Started by root, nginx would hand its work to an account that cannot read this directory.
            let text = text.replace("/dev/stdout", "/dev/null").replace("worker_processes", "#USER#worker_processes");
            let user = if rustix::process::geteuid().is_root() { "user root; " } else { "" };
            fs::write(self.at(file), text.replace("#USER#", user)).unwrap();
        }
        let begun = Instant::now();
        loop {
            // Somebody else may take the port before nginx does.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut shell = Command::new("sh");
            shell.arg(self.at("home/app/boot.sh")).stdout(Stdio::null()).process_group(0);
            shell.env("HOME", self.at("home/app")).env("TMPDIR", self.at("home/tmp")).env("PORT", port.to_string());
            shell.env_remove("FORCE_HTTPS").env_remove("ENABLE_HTTP2").envs(variables.iter().copied());
            let mut server = shell.spawn().unwrap();
            while server.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    self.server = Some((server, port));
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "nginx does not listen");
                #[expect(clippy::disallowed_methods, reason = "no runtime here; the condition is another process's")]
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(begun.elapsed() < PATIENCE, "nginx ends");
        }
    }

    fn get(&self, path: &str, fields: &[(&str, &str)]) -> SiteResponse {
        let port = self.server.as_ref().unwrap().1;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n{fields}\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        SiteResponse { status, fields, body: body.to_owned() }
    }
}

#[test]
fn a_client_with_an_old_page_gets_the_changed_one() {
    let Some(mut site) = Site::new() else { return };
    let page = |word: &str| [("Staticfile", String::new()), ("index.html", format!("<h1>{word}</h1>"))];
    let push = |site: &mut Site, word: &str| {
        let files = page(word);
        site.push(&files.each_ref().map(|(name, text)| (*name, text.as_str())), &[]);
    };
    push(&mut site, "Afloat");
    let first = site.get("/", &[]);
    assert_eq!((first.status, first.body.as_str()), (200, "<h1>Afloat</h1>"));
    assert_eq!(first.all("cache-control"), ["no-cache"], "the browser asks each time");
    assert!(first.all("last-modified").is_empty(), "no date from which somebody would guess an age: {first:?}");
    assert_eq!(first.field("content-type"), "text/html; charset=utf-8");
    let known = first.field("etag").to_owned();
    let again = site.get("/", &[("If-None-Match", &known)]);
    assert_eq!((again.status, again.all("cache-control")), (304, vec!["no-cache"]));

    push(&mut site, "Afloat");
    assert_eq!(site.get("/", &[("If-None-Match", &known)]).status, 304, "the same page is the same after a push");
    push(&mut site, "Awash!");
    let changed = site.get("/", &[("If-None-Match", &known)]);
    assert_eq!((changed.status, changed.body.as_str()), (200, "<h1>Awash!</h1>"));
    assert_ne!(changed.field("etag"), known);
}

#[test]
fn settings_of_a_staticfile_are_applied() {
    let Some(mut site) = Site::new() else { return };
    let options = "root: public\nlocation_include: includes/h.conf\nstatus_codes:\n  4xx: missing.html\n\
                   http_strict_transport_security: true\nhttp_strict_transport_security_preload: true\n";
    let include = "add_header X-Inc yes;\nadd_header Cache-Control \"max-age=60\";\n";
    let files = [
        ("Staticfile", options),
        ("nginx/conf/includes/h.conf", include),
        ("public/index.html", "hi"),
        ("public/docs/index.html", "docs"),
        ("public/missing.html", "not here"),
        ("public/module.mjs", "export {}"),
        ("public/style.css", "p {}"),
        ("public/.secret", "secret"),
    ];
    site.push(&files, &[]);
    let page = site.get("/", &[]);
    assert_eq!((page.body.as_str(), page.field("x-inc")), ("hi", "yes"));
    assert_eq!(page.all("cache-control"), ["max-age=60"], "the site's own policy stands alone");
    assert_eq!(page.field("strict-transport-security"), "max-age=31536000; preload");
    let moved = site.get("/docs", &[("X-Forwarded-Proto", "https")]);
    assert_eq!((moved.status, moved.field("location")), (301, "/docs/"), "scheme and port are the visitor's");
    for (path, kind) in
        [("/module.mjs", "application/javascript; charset=utf-8"), ("/style.css", "text/css; charset=utf-8")]
    {
        assert_eq!(site.get(path, &[]).field("content-type"), kind);
    }
    for path in ["/nowhere", "/.secret", "/nginx/conf/includes/h.conf", "/includes/h.conf"] {
        let answer = site.get(path, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (404, "not here"), "{path}");
    }
}

#[test]
fn https_passwords_and_single_pages() {
    let Some(mut site) = Site::new() else { return };
    let files = [("Staticfile", "pushstate: enabled\ndirectory: visible\n"), ("index.html", "app"), ("all/a.txt", "a")];
    site.push(&files, &[("FORCE_HTTPS", "true")]);
    let moved = site.get("/deep?x=1", &[]);
    assert_eq!((moved.status, moved.field("location")), (301, "https://site.test/deep?x=1"));
    for forwarded in ["http", "http, https", "httpsx"] {
        assert_eq!(site.get("/", &[("X-Forwarded-Proto", forwarded)]).status, 301, "{forwarded}");
    }
    for forwarded in ["https", "https, http", "HTTPS"] {
        assert_eq!(site.get("/", &[("X-Forwarded-Proto", forwarded)]).status, 200, "{forwarded}");
    }
    let https = [("X-Forwarded-Proto", "https")];
    assert_eq!(site.get("/deep/link", &https).body, "app");
    assert!(site.get("/all/", &https).body.contains("a.txt"));

    let files = [("Staticfile", ""), ("Staticfile.auth", "me:{PLAIN}secret\n"), ("index.html", "inside")];
    site.push(&files, &[]);
    assert_eq!(site.get("/", &[]).status, 401);
    // me:secret
    assert_eq!(site.get("/", &[("Authorization", "Basic bWU6c2VjcmV0")]).body, "inside");
    assert_eq!(site.get("/Staticfile.auth", &[("Authorization", "Basic bWU6c2VjcmV0")]).status, 404);
}
