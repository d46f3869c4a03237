//! The proxy for registries, over the wire: what builds get, and what nobody gets.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use serde_json::{Value, json};
use sha2::Digest as _;
use slipway_cell_agent::registries::{Admission, Registries, Setup};
use slipway_cell_agent::staging::host_settings::OutgoingSettings;
use slipway_chassis::Shutdown;
use slipway_protocol::ClusterAuthority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::registry_upstream::{Upstream, UpstreamResponse};
use crate::world::LIMIT;

const TOKEN: &str = "Bearer the-secret-of-the-operator";

/// A proxy over a cache that outlives it.
struct Proxy {
    home: tempfile::TempDir,
    registries: Option<Registries>,
    base: String,
    shutdown: Shutdown,
    said: Arc<Mutex<Vec<String>>>,
    way_out: OutgoingSettings,
}

impl Proxy {
    async fn new(file: &str) -> Self {
        Self::trusting(file, OutgoingSettings::default()).await
    }

    async fn trusting(file: &str, way_out: OutgoingSettings) -> Self {
        let home = tempfile::tempdir().expect("directory");
        let secret = TOKEN.strip_prefix("Bearer ").expect("a token");
        std::fs::write(home.path().join("token"), format!("{secret}\n")).expect("written");
        let mut proxy = Self {
            home,
            registries: None,
            base: String::new(),
            shutdown: Shutdown::new(),
            said: Arc::default(),
            way_out,
        };
        proxy.start(file).await;
        proxy
    }

    /// Ends it and starts another one with this file.
    async fn start(&mut self, file: &str) {
        assert_eq!(std::mem::replace(&mut self.shutdown, Shutdown::new()).finish(LIMIT).await, 0);
        let path = self.home.path().join("registries.toml");
        std::fs::write(&path, file.replace("TOKEN", &self.token().display().to_string())).expect("written");
        let said = Arc::clone(&self.said);
        let setup = Setup {
            file: &path,
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            state: self.home.path(),
            way_out: &self.way_out,
            say: Arc::new(move |_, line| said.lock().expect("lines").push(line.to_owned())),
        };
        let registries = Registries::start(setup, &self.shutdown).await.expect("a proxy");
        let door = registries.proxy().npm.clone().or_else(|| registries.proxy().pypi.clone()).expect("a door");
        self.base = door.split("/npm/").next().and_then(|door| door.split("/pypi/").next()).expect("a base").to_owned();
        self.registries = Some(registries);
    }

    fn token(&self) -> PathBuf {
        self.home.path().join("token")
    }

    fn admit(&self) -> Admission {
        self.registries.as_ref().expect("a proxy").admit(Ipv4Addr::LOCALHOST, Uuid::nil())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, "*/*").await
    }

    async fn get_as(&self, path: &str, accept: &str) -> (u16, String) {
        let response = reqwest::Client::builder().no_proxy().build().expect("a client");
        let path = path.strip_prefix(&self.base).unwrap_or(path);
        let response =
            response.get(format!("{}{path}", self.base)).header("accept", accept).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.unwrap_or_else(|_| "BROKEN OFF".to_owned()))
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// What a request written by hand brings.
    async fn raw(&self, request: &str) -> String {
        let address = self.base.strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).await.expect("connected");
        // Where nobody listens to it, the answer is that there is none.
        stream.write_all(request.as_bytes()).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn header<'a>(response: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

fn document(base: &str, content: &[u8]) -> Vec<u8> {
    document_of(base, "left-pad", content)
}

fn document_of(base: &str, name: &str, content: &[u8]) -> Vec<u8> {
    json!({ "name": name, "versions": { "1.0.0": { "dist": dist(base, name, content) } } }).to_string().into_bytes()
}

fn dist(base: &str, name: &str, content: &[u8]) -> Value {
    json!({
        "tarball": format!("{base}{name}/-/{name}-1.0.0.tgz"),
        "shasum": hex::encode(sha1::Sha1::digest(content)),
    })
}

fn npm(upstream: &Upstream) -> String {
    format!("[npm]\nupstream = \"http://{}/root\"\ntoken_file = \"TOKEN\"\n", upstream.address)
}

#[tokio::test]
async fn packages_come_with_the_credential_and_later_from_the_cache() {
    let mut upstream = Upstream::plain(Some(TOKEN)).await;
    let base = format!("http://{}/root/", upstream.address);
    upstream.put("/root/left-pad", UpstreamResponse::Content("\"1\"", document(&base, b"archive")));
    upstream.put("/root/left-pad/-/left-pad-1.0.0.tgz", UpstreamResponse::Content("\"a\"", b"archive".to_vec()));
    let mut proxy = Proxy::new(&npm(&upstream)).await;
    let _build = proxy.admit();
    let found = proxy.json("/npm/left-pad").await;
    let tarball = found["versions"]["1.0.0"]["dist"]["tarball"].as_str().expect("an address").to_owned();
    assert_eq!(tarball, format!("{}/npm/left-pad/-/left-pad-1.0.0.tgz", proxy.base));
    assert_eq!(proxy.get(&tarball).await, (200, "archive".to_owned()));
    assert_eq!(proxy.get("/npm/root/left-pad/-/left-pad-1.0.0.tgz").await.0, 200, "as a lock file names it");
    assert!(upstream.requests().iter().all(|request| request.authorization.as_deref() == Some(TOKEN)));
    assert_eq!(upstream.count("/root/left-pad/-/left-pad-1.0.0.tgz"), 1);
    assert_eq!(proxy.get("/npm/right-pad").await.0, 404);

    // After a restart the registry is asked whether its document has changed, and the archive is here.
    proxy.start(&npm(&upstream)).await;
    let _build = proxy.admit();
    assert_eq!(proxy.json("/npm/left-pad").await["name"], "left-pad");
    assert!(upstream.requests().last().expect("a request").known, "{:?}", upstream.requests());
    assert_eq!(proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await.0, 200);
    assert_eq!(upstream.count("/root/left-pad/-/left-pad-1.0.0.tgz"), 1);

    // Without its registry the last word of it holds.
    upstream.leave().await;
    proxy.start(&npm(&upstream)).await;
    let _build = proxy.admit();
    assert_eq!(proxy.json("/npm/left-pad").await["name"], "left-pad");
    let (status, text) = proxy.get("/npm/right-pad").await;
    assert!(status == 504 && text.contains("cannot be reached"), "{status} {text}");

    // Switched off, nobody is asked, and the build is told.
    proxy.said.lock().expect("lines").clear();
    proxy.start(&format!("offline = true\n{}", npm(&upstream))).await;
    let _build = proxy.admit();
    assert_eq!(proxy.json("/npm/left-pad").await["name"], "left-pad");
    let short = proxy.get_as("/npm/left-pad", "application/vnd.npm.install-v1+json").await;
    assert_eq!(short.0, 200, "in another form than it was asked for before: {}", short.1);
    assert_eq!(proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await, (200, "archive".to_owned()));
    for _ in 0..2 {
        let (status, text) = proxy.get("/npm/@corp%2fnone").await;
        assert!(status == 504 && text.contains("npm package @corp/none is not in the platform's cache"), "{text}");
    }
    let said = proxy.said.lock().expect("lines").clone();
    assert!(said.len() == 1 && said[0].starts_with("registry proxy: npm package @corp/none is not in"), "{said:?}");
}

#[tokio::test]
async fn a_not_modified_response_changes_nothing_of_the_cached_document() {
    let upstream = Upstream::plain(None).await;
    let base = format!("http://{}/root/", upstream.address);
    upstream.put("/root/left-pad", UpstreamResponse::Content("\"1\"", document(&base, b"archive")));
    upstream.put("/simple/six/", UpstreamResponse::Content("\"1\"", b"<a href=\"six-1.0.tar.gz\">six</a>".to_vec()));
    let pypi = format!("[pypi]\nupstream = \"http://{}/simple/\"\n", upstream.address);
    let proxy = Proxy::new(&format!("{}{pypi}", npm(&upstream))).await;
    let _build = proxy.admit();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for path in ["/npm/left-pad", "/pypi/simple/six/"] {
        let request = || client.get(format!("{}{path}", proxy.base));
        let first = request().send().await.expect("an answer");
        let tag = header(&first, "etag").expect("a tag").to_owned();
        assert!(first.status() == 200 && header(&first, "content-type").is_some(), "{first:?}");
        let second = request().header("if-none-match", &tag).send().await.expect("an answer");
        assert_eq!((second.status().as_u16(), header(&second, "etag")), (304, Some(&*tag)));
        assert_eq!(header(&second, "cache-control"), Some("no-cache"));
        for name in ["content-type", "content-length"] {
            assert_eq!(header(&second, name), None, "{path}: {name} would replace the document's own");
        }
    }
}

#[tokio::test]
async fn packages_with_a_wrong_digest_reach_no_build() {
    let upstream = Upstream::plain(Some(TOKEN)).await;
    let base = format!("http://{}/root/", upstream.address);
    let path = "/root/left-pad/-/left-pad-1.0.0.tgz";
    let right = vec![b'a'; 1 << 20];
    let mut wrong = right.clone();
    wrong[700_000] = b'b';
    upstream.put("/root/left-pad", UpstreamResponse::Content("\"1\"", document(&base, &right)));
    let proxy = Proxy::new(&npm(&upstream)).await;
    let _build = proxy.admit();
    // Nobody has asked for the document, as with a lock file, and yet it says what the archive must be.
    for answer in
        [UpstreamResponse::Content("\"a\"", wrong), UpstreamResponse::CutOff(right.len(), right[..900_000].to_vec())]
    {
        upstream.put(path, answer);
        let (status, text) = proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await;
        assert!(status != 200 || text == "BROKEN OFF", "{status} {}", text.len());
    }
    let said = proxy.said.lock().expect("lines").join("\n");
    assert!(said.contains("another digest") && said.contains("broke off"), "what broke off is told: {said}");
    upstream.put(path, UpstreamResponse::Content("\"a\"", right.clone()));
    assert_eq!(proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await.1.into_bytes(), right);
    assert_eq!(upstream.count(path), 3);
    assert_eq!(proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await.0, 200);
    assert_eq!(upstream.count(path), 3, "what is right is kept");
}

#[tokio::test]
async fn a_login_page_does_not_replace_a_cached_document() {
    let upstream = Upstream::plain(None).await;
    let base = format!("http://{}/root/", upstream.address);
    let login = b"<html><a href=\"/forgotten\">forgotten your password?</a></html>".to_vec();
    upstream.put("/login", UpstreamResponse::Content("\"l\"", login));
    let expired = || {
        for path in ["/root/left-pad", "/root/left-pad/-/left-pad-1.0.0.tgz", "/simple/six/"] {
            upstream.put(path, UpstreamResponse::Redirect("/login".to_owned()));
        }
    };
    expired();
    let pypi = format!("[pypi]\nupstream = \"http://{}/simple/\"\n", upstream.address);
    let file = format!("{}{pypi}", npm(&upstream));
    let mut proxy = Proxy::new(&file).await;
    let _build = proxy.admit();
    let paths = ["/npm/left-pad", "/npm/left-pad/-/left-pad-1.0.0.tgz", "/pypi/simple/six/"];
    for path in paths {
        let (status, text) = proxy.get(path).await;
        assert!(status == 502 && text.contains("something else than a document"), "{path}: {status} {text}");
    }
    upstream.put("/root/left-pad", UpstreamResponse::Content("\"1\"", document(&base, b"archive")));
    upstream.put("/root/left-pad/-/left-pad-1.0.0.tgz", UpstreamResponse::Content("\"a\"", b"archive".to_vec()));
    upstream.put("/simple/six/", UpstreamResponse::Content("\"1\"", b"<a href=\"six-1.0.tar.gz\">six</a>".to_vec()));
    for path in paths {
        assert_eq!(proxy.get(path).await.0, 200, "{path}");
    }
    expired();
    proxy.start(&file).await;
    let _build = proxy.admit();
    assert_eq!(proxy.get("/npm/left-pad").await.0, 502, "it is told");
    assert_eq!(proxy.get("/pypi/simple/six/").await.0, 502);
    proxy.start(&format!("offline = true\n{file}")).await;
    let _build = proxy.admit();
    assert_eq!(proxy.json("/npm/left-pad").await["name"], "left-pad", "the last good one is still there");
    assert!(proxy.get("/pypi/simple/six/").await.1.contains("six-1.0.tar.gz"));
    assert_eq!(proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await, (200, "archive".to_owned()));
}

#[tokio::test]
async fn files_without_a_digest_are_passed_on_and_not_cached() {
    let upstream = Upstream::plain(None).await;
    let proxy = Proxy::new(&npm(&upstream)).await;
    let _build = proxy.admit();
    for content in ["first", "second"] {
        upstream.put(
            "/root/left-pad/-/left-pad-1.0.0.tgz",
            UpstreamResponse::Content("\"a\"", content.as_bytes().to_vec()),
        );
        assert_eq!(proxy.get("/npm/left-pad/-/left-pad-1.0.0.tgz").await, (200, content.to_owned()));
    }
    assert_eq!(walk(&proxy.home.path().join("registries")), "");
    let drafts = proxy.home.path().join("registries/drafts");
    while std::fs::read_dir(&drafts).expect("drafts").count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_version_that_its_registry_has_replaced_is_fetched_anew() {
    let upstream = Upstream::plain(None).await;
    let base = format!("http://{}/root/", upstream.address);
    let path = "/npm/left-pad/-/left-pad-1.0.0.tgz";
    let publish = |tag: &'static str, content: &[u8]| {
        upstream.put("/root/left-pad", UpstreamResponse::Content(tag, document(&base, content)));
        upstream.put("/root/left-pad/-/left-pad-1.0.0.tgz", UpstreamResponse::Content(tag, content.to_vec()));
    };
    publish("\"1\"", b"first");
    let mut proxy = Proxy::new(&npm(&upstream)).await;
    let _build = proxy.admit();
    proxy.json("/npm/left-pad").await;
    // The document that is kept says something else than what comes, and the registry's newest one does not.
    publish("\"2\"", b"second");
    assert_eq!(proxy.get(path).await, (200, "second".to_owned()));
    publish("\"3\"", b"third");
    assert_eq!(proxy.get(path).await, (200, "second".to_owned()), "which is what the document says");
    proxy.start(&npm(&upstream)).await;
    let _build = proxy.admit();
    proxy.json("/npm/left-pad").await;
    assert_eq!(proxy.get(path).await, (200, "third".to_owned()), "what is kept has another digest");
    // What stays wrong is no reason to ask without end.
    upstream.put("/root/left-pad", UpstreamResponse::Content("\"4\"", document(&base, b"fourth")));
    proxy.start(&npm(&upstream)).await;
    let _build = proxy.admit();
    proxy.json("/npm/left-pad").await;
    let before = upstream.requests().len();
    let (status, text) = proxy.get(path).await;
    assert!(status == 502 && text.contains("another digest"), "{status} {text}");
    assert_eq!(upstream.requests().len(), before + 2, "the archive, and the document once more");
}

#[tokio::test]
async fn concurrent_requests_for_one_file_fetch_it_once() {
    let upstream = Upstream::plain(Some(TOKEN)).await;
    let large = vec![b'x'; 3 << 20];
    upstream.put("/root/large/-/large-1.0.0.tgz", UpstreamResponse::Content("\"a\"", large.clone()));
    let proxy = Proxy::new(&npm(&upstream)).await;
    let _build = proxy.admit();
    // A document too large for the memory of many answers comes from the disk.
    let versions = (0..4000).map(|number| {
        (
            format!("{number}.0.0"),
            json!({ "dist": { "tarball": format!("https://files.example/a.tgz?{}", "x".repeat(300)) } }),
        )
    });
    let mut versions: serde_json::Map<String, Value> = versions.collect();
    let base = format!("http://{}/root/", upstream.address);
    versions.insert("1.0.0".to_owned(), json!({ "dist": dist(&base, "large", &large) }));
    let document = json!({ "name": "large", "versions": versions }).to_string().into_bytes();
    assert!(document.len() > 1 << 20);
    upstream.put("/root/large", UpstreamResponse::Content("\"d\"", document));
    let documents = join_all((0..8).map(|_| proxy.json("/npm/large"))).await;
    assert!(documents.iter().all(|document| document["versions"].as_object().is_some_and(|all| all.len() == 4000)));
    assert!(documents.iter().all(|document| !document.to_string().contains("xxx")), "and its addresses lead back");
    assert_eq!(upstream.count("/root/large"), 1);
    let all = join_all((0..8).map(|_| proxy.get("/npm/large/-/large-1.0.0.tgz"))).await;
    assert!(all.iter().all(|(status, text)| *status == 200 && text.as_bytes() == large));
    assert_eq!(upstream.count("/root/large/-/large-1.0.0.tgz"), 1);
}

#[tokio::test]
async fn one_build_s_packages_do_not_wait_for_another_s() {
    let upstream = Upstream::plain(Some(TOKEN)).await;
    let proxy = Proxy::new(&npm(&upstream)).await;
    let _greedy = proxy.admit();
    let modest = Ipv4Addr::new(127, 0, 0, 2);
    let _modest = proxy.registries.as_ref().expect("a proxy").admit(modest, Uuid::from_u128(2));
    let base = format!("http://{}/root/", upstream.address);
    upstream.put("/root/left-pad", UpstreamResponse::Content("\"1\"", document(&base, b"archive")));
    let slow = |number: usize| format!("slow-{number}");
    for number in 0..20 {
        upstream.put(&format!("/root/{}", slow(number)), UpstreamResponse::Silence);
    }
    let address = proxy.base.strip_prefix("http://").expect("an address");
    let ask = async |name: &str| {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(format!("GET /npm/{name} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sent");
        stream
    };
    // It has all of its turns, and wants what others want, too.
    let mut open = Vec::new();
    for number in 0..20 {
        open.push(ask(&slow(number)).await);
    }
    while upstream.requests().len() < 16 {
        tokio::task::yield_now().await;
    }
    open.push(ask("left-pad").await);
    assert_eq!(proxy.get("/npm/-/whoami").await.0, 404, "what came before has been read");
    let client = reqwest::Client::builder().no_proxy().local_address(IpAddr::V4(modest)).build().expect("a client");
    let answer = client.get(format!("{}/npm/left-pad", proxy.base)).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.requests().len(), 17, "the greedy one waits for itself");
    drop(open);
}

#[tokio::test]
async fn a_build_gets_an_error_when_it_has_too_many_connections() {
    let upstream = Upstream::plain(None).await;
    let proxy = Proxy::new(&npm(&upstream)).await;
    let _build = proxy.admit();
    let address = proxy.base.strip_prefix("http://").expect("an address");
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(TcpStream::connect(address).await.expect("connected"));
    }
    for _ in 0..2 {
        assert_eq!(proxy.raw("GET /npm/left-pad HTTP/1.1\r\nhost: x\r\n\r\n").await, "");
    }
    let said = proxy.said.lock().expect("lines").clone();
    assert!(said.len() == 1 && said[0].contains("too many connections"), "{said:?}");
    drop(open.pop());
    while !proxy
        .raw("GET /npm/left-pad HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .starts_with("HTTP/1.1 404")
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_builds_get_an_answer_and_only_of_packages() {
    let upstream = Upstream::plain(Some(TOKEN)).await;
    let other = Upstream::plain(None).await;
    other.put("/secret", UpstreamResponse::Content("\"1\"", b"SECRET".to_vec()));
    upstream.put("/root/secret", UpstreamResponse::Content("\"1\"", b"SECRET".to_vec()));
    upstream.put("/secret", UpstreamResponse::Content("\"1\"", b"SECRET".to_vec()));
    let proxy = Proxy::new(&npm(&upstream)).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(proxy.raw(&get("/npm/left-pad")).await, "", "no build is admitted yet");

    let build = proxy.admit();
    assert!(proxy.raw(&get("/npm/left-pad")).await.starts_with("HTTP/1.1 404"));
    for path in [
        "/secret",
        "/npm/../secret",
        "/npm/%2e%2e/secret",
        "/npm/..%2fsecret",
        "/npm/secret?write=true",
        "/npm/-/whoami",
        "//secret",
        &format!("http://{}/secret", other.address),
        &format!("http://{}/npm/left-pad", other.address),
        &format!("/http://{}/secret", other.address),
    ] {
        let answer = proxy.raw(&get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("SECRET"), "{path}: {answer}");
    }
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        let answer = proxy.raw(&get("/npm/left-pad").replace("GET", method)).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
    let connect = format!("CONNECT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", other.address);
    assert!(proxy.raw(&connect).await.starts_with("HTTP/1.1 4"));
    assert_eq!(other.requests().len(), 0, "another host is never asked");
    assert!(upstream.requests().iter().all(|request| request.path == "/root/left-pad"), "{:?}", upstream.requests());

    // Whoever has the address after the build finds nothing open of it.
    let address = proxy.base.strip_prefix("http://").expect("an address");
    let mut open = TcpStream::connect(address).await.expect("connected");
    open.write_all(b"GET /npm/left-pad HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut first = [0; 12];
    open.read_exact(&mut first).await.expect("an answer");
    drop(build);
    open.read_to_end(&mut Vec::new()).await.ok();
    assert_eq!(proxy.raw(&get("/npm/left-pad")).await, "");
}

#[tokio::test]
async fn the_credential_goes_to_its_own_registry_alone() {
    let (authority, _) = ClusterAuthority::generate(Uuid::new_v4()).expect("an authority");
    let upstream = Upstream::tls(Some(TOKEN), &authority).await;
    let named = Upstream::tls(None, &authority).await;
    let unnamed = Upstream::tls(None, &authority).await;
    let plain = Upstream::plain(None).await;
    let at = |upstream: &Upstream, path: &str| format!("https://localhost:{}{path}", upstream.address.port());
    named.put("/files/a.tgz", UpstreamResponse::Content("\"1\"", b"elsewhere".to_vec()));
    upstream.put("/a", UpstreamResponse::Content("\"1\"", document_of(&at(&upstream, "/"), "a", b"elsewhere")));
    upstream.put("/a/-/a-1.0.0.tgz", UpstreamResponse::Redirect(at(&named, "/files/a.tgz")));
    upstream.put("/b/-/b-1.0.0.tgz", UpstreamResponse::Redirect(at(&unnamed, "/files/b.tgz")));
    upstream.put("/c/-/c-1.0.0.tgz", UpstreamResponse::Redirect(format!("http://{}/files/c.tgz", plain.address)));
    upstream.put("/d/-/d-1.0.0.tgz", UpstreamResponse::Redirect("/e/-/e-1.0.0.tgz".to_owned()));
    upstream.put("/e/-/e-1.0.0.tgz", UpstreamResponse::Content("\"1\"", b"own".to_vec()));
    upstream.put("/f/-/f-1.0.0.tgz", UpstreamResponse::Redirect("/f/-/f-1.0.0.tgz".to_owned()));
    upstream.put("/g/-/g-1.0.0.tgz", UpstreamResponse::Status(403));
    let file = format!(
        "[npm]\nupstream = \"{}\"\ntoken_file = \"TOKEN\"\nfile_hosts = [\"localhost:{}\"]\n",
        at(&upstream, ""),
        named.address.port()
    );
    let bundle = authority.certificate_pem().as_bytes().to_vec();
    let proxy = Proxy::trusting(&file, OutgoingSettings { bundle, ..OutgoingSettings::default() }).await;
    let _build = proxy.admit();
    let get = async |name: &str| proxy.get(&format!("/npm/{name}/-/{name}-1.0.0.tgz")).await;
    assert_eq!(get("a").await, (200, "elsewhere".to_owned()));
    assert_eq!(get("d").await, (200, "own".to_owned()));
    for (name, words) in
        [("b", "leads to localhost"), ("c", "plain http"), ("f", "sends on more than"), ("g", "credential")]
    {
        let (status, text) = get(name).await;
        assert!(status == 502 && text.contains(words), "{name}: {status} {text}");
        assert!(!text.contains("the-secret"), "{text}");
    }
    assert!(named.requests().iter().all(|request| request.authorization.is_none()) && named.requests().len() == 1);
    assert!(unnamed.requests().is_empty() && plain.requests().is_empty());

    // Another token holds without a restart, and one that cannot be read is told without a word of it.
    std::fs::write(proxy.token(), "another").expect("written");
    assert!(get("h").await.1.contains("renew the credential"));
    std::fs::remove_file(proxy.token()).expect("removed");
    assert!(get("i").await.1.contains("its credential cannot be read"));
    let content = walk(&proxy.home.path().join("registries"));
    assert!(content.contains("elsewhere") && !content.contains("the-secret"), "nothing kept has the credential");
}

fn walk(directory: &Path) -> String {
    let files = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    files
        .filter(|path| path.is_file())
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("read")).into_owned())
        .collect()
}

#[tokio::test]
async fn python_projects_come_by_their_index_and_files_by_their_digest() {
    let mut upstream = Upstream::plain(Some(TOKEN)).await;
    let digest = hex::encode(sha2::Sha256::digest(b"wheel"));
    let about = hex::encode(sha2::Sha256::digest(b"about"));
    let page = format!(
        "<html><a href=\"../../files/six-1.0-py3-none-any.whl#sha256={digest}\" data-core-metadata=\"sha256={about}\">1.0</a>\
         <a href=\"../../files/six-2.0-py3-none-any.whl#sha256={}\" data-core-metadata=\"true\">six-2.0-py3-none-any.whl</a>\
         <a href=\"http://169.254.169.254/six-3.0-py3-none-any.whl\">six-3.0-py3-none-any.whl</a></html>",
        "0".repeat(64)
    );
    upstream.put("/simple/six/", UpstreamResponse::Content("\"1\"", page.into_bytes()));
    upstream.put("/files/six-1.0-py3-none-any.whl", UpstreamResponse::Content("\"a\"", b"wheel".to_vec()));
    upstream.put("/files/six-1.0-py3-none-any.whl.metadata", UpstreamResponse::Content("\"a\"", b"about".to_vec()));
    upstream.put("/files/six-2.0-py3-none-any.whl", UpstreamResponse::Content("\"a\"", b"other".to_vec()));
    let file = format!("[pypi]\nupstream = \"http://{}/simple\"\ntoken_file = \"TOKEN\"\n", upstream.address);
    let mut proxy = Proxy::new(&file).await;
    let _build = proxy.admit();
    let (status, page) = proxy.get("/pypi/simple/Six/").await;
    let links: Vec<&str> = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!((status, links.len()), (200, 3), "{page}");
    assert!(links.iter().all(|link| link.starts_with(&format!("{}/pypi/files/six/", proxy.base))), "{links:?}");
    let (address, fragment) = links[0].split_once('#').expect("a digest");
    assert_eq!(fragment, format!("sha256={digest}"));
    assert_eq!(proxy.get(address).await, (200, "wheel".to_owned()));
    assert_eq!(proxy.get(&format!("{address}.metadata")).await, (200, "about".to_owned()));
    assert_eq!(page.matches("data-core-metadata").count(), 2, "{page}");
    for (link, words) in [(links[1], "another digest"), (links[2], "169.254.169.254")] {
        let (status, text) = proxy.get(link.split('#').next().expect("an address")).await;
        assert!(status == 502 && text.contains(words), "{status} {text}");
    }
    let path = address.strip_prefix(&proxy.base).expect("a path").to_owned();
    let forged = path.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(proxy.get(&forged).await.0, 404, "an address that no page has named");
    upstream.leave().await;
    proxy.start(&format!("offline = true\n{file}")).await;
    let _build = proxy.admit();
    let (status, page) = proxy.get("/pypi/simple/six/").await;
    assert_eq!(
        (status, page.matches("data-core-metadata").count()),
        (200, 1),
        "what is not here is not announced: {page}"
    );
    assert_eq!(proxy.get(&path).await, (200, "wheel".to_owned()));
    assert_eq!(proxy.get(&format!("{path}.metadata")).await, (200, "about".to_owned()));
    assert_eq!(proxy.get("/pypi/simple/seven/").await.0, 504);
}
