//! Builds whose packages come from a registry that wants to know who asks. The credential is the operator's, and no build sees it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use serde_json::json;
use sha2::Digest as _;
use slipway_tests::api::{Entry, zip_of};
use slipway_tests::{Outcome, Platform};

const SECRET: &str = "the-secret-of-the-operator";
const STAGING: i32 = 7;

/// A registry of npm and Python packages on this host's loopback. Gone with the value.
struct Registry {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    /// Paths that were asked for by somebody who did not log in.
    strangers: Arc<Mutex<Vec<String>>>,
    /// Of its npm package, as lock files have it.
    integrity: String,
    server: Option<JoinHandle<()>>,
}

impl Registry {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (archive, wheel) = (archive()?, wheel()?);
        let integrity = integrity(&archive);
        let document = document(address, &integrity).to_string().into_bytes();
        let digest = hex(&sha2::Sha256::digest(&wheel));
        let name = "corpwheel-1.0.0-py3-none-any.whl";
        let page = format!("<a href=\"/files/{name}#sha256={digest}\">{name}</a>").into_bytes();
        let files = [
            ("/@corp%2fgreeting".to_owned(), document),
            ("/@corp/greeting/-/greeting-1.0.0.tgz".to_owned(), archive),
            ("/simple/corpwheel/".to_owned(), page),
            (format!("/files/{name}"), wheel),
        ];
        let (ends, strangers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let (stop, asked) = (Arc::clone(&ends), Arc::clone(&strangers));
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // What broke off is asked for again, or fails the test there.
                let _ = answer(stream, &files, &asked);
            }
        });
        Ok(Self { address, ends, strangers, integrity, server: Some(server) })
    }

    fn leave(&mut self) {
        if let Some(server) = self.server.take() {
            self.ends.store(true, Ordering::Relaxed);
            drop(TcpStream::connect(self.address));
            drop(server.join());
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.leave();
    }
}

fn answer(mut stream: TcpStream, files: &[(String, Vec<u8>)], asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let known = head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {SECRET}")));
    let found = files.iter().find(|(name, _)| *name == path).map(|(_, content)| content.as_slice());
    let (status, content) = match (known, found) {
        (false, _) => {
            asked.lock().map_err(|_| std::io::ErrorKind::Other)?.push(path);
            ("401 Unauthorized", &b"SECRET PACKAGES"[..])
        }
        (true, None) => ("404 Not Found", &b""[..]),
        (true, Some(content)) => ("200 OK", content),
    };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len())?;
    stream.write_all(content)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The npm package `@corp/greeting`.
fn archive() -> anyhow::Result<Vec<u8>> {
    let home = tempfile::tempdir()?;
    let package = home.path().join("package");
    std::fs::create_dir(&package)?;
    std::fs::write(package.join("package.json"), json!({ "name": "@corp/greeting", "version": "1.0.0" }).to_string())?;
    std::fs::write(package.join("index.js"), "module.exports = 'hello from corp'\n")?;
    let mut tar = Command::new("tar");
    let made = tar.args(["cz", "-C"]).arg(home.path()).arg("package").stdin(Stdio::null()).output()?;
    ensure!(made.status.success(), "tar: {}", String::from_utf8_lossy(&made.stderr));
    Ok(made.stdout)
}

fn integrity(archive: &[u8]) -> String {
    format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(archive)))
}

fn document(address: SocketAddr, integrity: &str) -> serde_json::Value {
    let tarball = format!("http://{address}/@corp/greeting/-/greeting-1.0.0.tgz");
    let version = json!({
        "name": "@corp/greeting", "version": "1.0.0", "dist": { "tarball": tarball, "integrity": integrity },
    });
    json!({ "name": "@corp/greeting", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } })
}

/// The Python package `corpwheel`.
fn wheel() -> anyhow::Result<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    let about = "corpwheel-1.0.0.dist-info";
    zip_of(&[
        Entry::File("corpwheel.py", text("GREETING = 'hello from corp'\n")),
        Entry::File(&format!("{about}/METADATA"), text("Metadata-Version: 2.1\nName: corpwheel\nVersion: 1.0.0\n")),
        Entry::File(&format!("{about}/WHEEL"), text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")),
        Entry::File(&format!("{about}/RECORD"), text("corpwheel.py,,\n")),
    ])
}

/// Answers with what the package says, and what a connection to the registries' port brings.
const SERVER: &str = r#"const net = require('net'), greeting = require('@corp/greeting')
require('http').createServer((request, response) => {
  const far = net.connect({ host: process.env.GATEWAY, port: 4873, timeout: 5000 })
  const end = (word) => { far.destroy(); if (!response.writableEnded) response.end(`${greeting}, ${word}`) }
  far.on('connect', () => end('reached')).on('error', () => end('refused')).on('timeout', () => end('refused'))
}).listen(process.env.PORT)
"#;

/// Shows what a build has, and tries the proxy as a way to other places. The words that are looked for are no part of the script.
const LOOKS: &str = r#"env; cat /etc/slipway/registry/*; tr '\0' '\n' < /proc/self/environ
echo "CHECK found $(grep -rlsa 'the-secret'-of / --include='*' --exclude-dir=proc --exclude-dir=dev | wc -l)"
for way in "-x http://$GATEWAY:4873 http://$REGISTRY/simple/corpwheel/" "http://$GATEWAY:4873/npm/http://$REGISTRY/" \
  "--path-as-is http://$GATEWAY:4873/npm/../simple/corpwheel/" "http://$REGISTRY/simple/corpwheel/"; do
  echo "CHECK $(curl -s -m 10 -o /dev/null -w '%{http_code}' $way)"
done
"#;

struct World<'p> {
    platform: &'p Platform,
    gateway: String,
    registry: SocketAddr,
}

impl World<'_> {
    fn app(&self, name: &str, buildpack: &str, files: &[(&str, String)]) -> anyhow::Result<PathBuf> {
        let directory = self.platform.path("apps").join(name);
        std::fs::create_dir_all(&directory)?;
        for (name, text) in files {
            std::fs::write(directory.join(name), text)?;
        }
        // By name: a buildpack of an earlier scenario may still be going.
        let manifest = format!(
            "applications:\n- name: {name}\n  buildpacks: [{buildpack}]\n  memory: 128M\n  disk_quota: 256M\n  env:\n    \
             GATEWAY: {}\n    REGISTRY: {}\n",
            self.gateway, self.registry
        );
        std::fs::write(directory.join("manifest.yml"), manifest)?;
        Ok(directory)
    }

    fn node(&self, name: &str, dependency: &str, lock: Option<String>) -> anyhow::Result<PathBuf> {
        let package = json!({
            "name": name, "version": "1.0.0", "dependencies": { dependency: "1.0.0" },
            "scripts": { "start": "node server.js", "heroku-prebuild": "bash looks.sh" },
        });
        let mut files = vec![
            ("package.json", package.to_string()),
            ("server.js", SERVER.to_owned()),
            ("looks.sh", LOOKS.to_owned()),
        ];
        files.extend(lock.map(|lock| ("package-lock.json", lock)));
        self.app(name, "nodejs_buildpack", &files)
    }

    fn python(&self, name: &str, package: &str) -> anyhow::Result<PathBuf> {
        let server = "import corpwheel, os, http.server\n\nclass Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        \
                      self.send_response(200)\n        self.end_headers()\n        self.wfile.write(corpwheel.GREETING.encode())\n\n\
                      http.server.HTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()\n";
        let files = [
            ("requirements.txt", format!("{package}==1.0.0\n")),
            ("server.py", server.to_owned()),
            ("Procfile", "web: python server.py\n".to_owned()),
        ];
        self.app(name, "python_buildpack", &files)
    }

    fn push(&self, directory: &Path) -> anyhow::Result<Outcome> {
        let (source, manifest) = (directory.to_string_lossy(), directory.join("manifest.yml"));
        let pushed = self.platform.run(&["push", "-p", &source, "-f", &manifest.to_string_lossy()])?;
        ensure!(!pushed.all().contains(SECRET), "a build has the credential: {}", pushed.all());
        Ok(pushed)
    }

    async fn works(&self, name: &str, directory: &Path, said: &str) -> anyhow::Result<Outcome> {
        let pushed = self.push(directory)?;
        ensure!(pushed.code == 0, "{name}: {}", pushed.all());
        let (status, body) = self.platform.get(name, "/").await?;
        ensure!(status == 200 && body == said, "{name}: {status} {body}");
        Ok(pushed)
    }
}

pub(crate) async fn private_packages_come_without_a_credential_in_the_build(
    platform: &mut Platform,
) -> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let outcome = scenario(platform, &mut registry).await;
    // The scenarios after this one reach registries as before.
    platform.ok(&["down"])?;
    platform.ok(&["--json", "up", "--registries", "none"])?;
    outcome
}

async fn scenario(platform: &Platform, registry: &mut Registry) -> anyhow::Result<()> {
    let (file, token) = (platform.path("registries.toml"), platform.path("registry-token"));
    std::fs::write(&token, SECRET)?;
    let config = |offline: bool| {
        let address = registry.address;
        format!(
            "offline = {offline}\n[npm]\nupstream = \"http://{address}/\"\ntoken_file = {token:?}\n\
             [pypi]\nupstream = \"http://{address}/simple/\"\ntoken_file = {token:?}\n"
        )
    };
    let (online, offline) = (config(false), config(true));
    std::fs::write(&file, online.replace("token_file", "token_fiel"))?;
    let path = file.to_string_lossy().into_owned();
    platform.ok(&["down"])?;
    platform.fails(&["up", "--registries", &path], "token_fiel")?;
    std::fs::write(&file, online)?;
    let started = platform.ok(&["up", "--registries", &path])?;
    ensure!(started.all().contains("chmod 600"), "files that all may read are told: {}", started.all());

    let settings = std::fs::read_to_string(platform.layout().state("settings.json"))?;
    let settings: slipway_up::settings::Settings = serde_json::from_str(&settings)?;
    let network: ipnet::Ipv4Net = settings.network.parse()?;
    let gateway = network.hosts().next().context("an address")?.to_string();
    let world = World { platform, gateway, registry: registry.address };
    let lock = json!({
        "name": "locked", "version": "1.0.0", "lockfileVersion": 3, "packages": {
            "": { "name": "locked", "version": "1.0.0", "dependencies": { "@corp/greeting": "1.0.0" } },
            "node_modules/@corp/greeting": {
                "version": "1.0.0", "integrity": registry.integrity,
                "resolved": format!("http://{}/@corp/greeting/-/greeting-1.0.0.tgz", registry.address),
            },
        },
    });
    // By its lock file, whose addresses are the registry's own, and by the newest versions.
    let locked = world.node("locked", "@corp/greeting", Some(lock.to_string()))?;
    let pushed = world.works("locked", &locked, "hello from corp, refused").await?;
    let said = pushed.all();
    ensure!(said.contains("npm ci") && said.contains("CHECK found 0"), "{said}");
    ensure!(said.contains(&format!("registry=http://{}:4873/npm/", world.gateway)), "{said}");
    let ways: Vec<&str> = said.lines().filter_map(|line| line.split("CHECK ").nth(1)).skip(1).map(str::trim).collect();
    ensure!(ways == ["404", "404", "404", "000"], "the proxy is a way to other places: {ways:?} in {said}");
    let floating = world.node("floating", "@corp/greeting", None)?;
    world.works("floating", &floating, "hello from corp, refused").await?;
    let python = world.python("wheeled", "corpwheel")?;
    world.works("wheeled", &python, "hello from corp").await?;
    ensure!(registry.strangers.lock().is_ok_and(|strangers| strangers.is_empty()), "somebody asked without the token");

    // With the registry gone and switched off other apps, which have no cache of their own, get the same packages.
    registry.leave();
    platform.ok(&["down"])?;
    std::fs::write(&file, offline)?;
    platform.ok(&["up"])?;
    let lock = lock.to_string().replace("\"locked\"", "\"again\"");
    world.works("again", &world.node("again", "@corp/greeting", Some(lock))?, "hello from corp, refused").await?;
    world.works("wheeled-again", &world.python("wheeled-again", "corpwheel")?, "hello from corp").await?;
    let node = (world.node("no-node", "@corp/nothing", None)?, "npm package @corp/nothing");
    let python = (world.python("no-python", "corpnothing")?, "Python project corpnothing");
    for (app, what) in [node, python] {
        let pushed = world.push(&app)?;
        let line = format!("registry proxy: {what} is not in the platform's cache");
        ensure!(pushed.code == STAGING && pushed.all().contains(&line), "{}", pushed.all());
    }
    for app in ["locked", "floating", "wheeled", "again", "wheeled-again", "no-node", "no-python"] {
        platform.ok(&["delete", app, "-f", "-r"])?;
    }
    Ok(())
}
