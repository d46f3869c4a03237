//! The two tenants: org, space, user and app of each.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::clients;
use crate::{Api, Platform, ScriptApp};

const PASSWORD: &str = "a password of the benchmark";
/// Files of the app that floods.
const FILES: [(&str, &str); 4] = [
    ("server.js", include_str!("app/server.js")),
    ("logs.pl", include_str!("app/logs.pl")),
    ("disk.pl", include_str!("app/disk.pl")),
    ("pids.pl", include_str!("app/pids.pl")),
];
/// A server that answers one request after the other.
const SERVER: &str = r#"exec perl -MIO::Socket::INET -e '
$server = IO::Socket::INET->new(Listen => 64, LocalPort => $ENV{PORT}, ReuseAddr => 1) or die;
while ($client = $server->accept) {
  while (<$client>) { last if /^\r?\n$/ }
  print $client "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
  close $client;
}'"#;

/// A user with a token.
pub(super) struct User {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) client: reqwest::Client,
    base: String,
}

impl User {
    /// A request that must be answered with success.
    pub(super) async fn ask(&self, path: &str) -> Result<(), String> {
        let request = self.request(Method::GET, path).send().await;
        success(request).await
    }

    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// Gets another token.
    pub(super) async fn log_in(&self) -> Result<(), String> {
        success(grant(&self.client, &self.base, &self.name, PASSWORD).send().await).await
    }
}

async fn success(answer: reqwest::Result<reqwest::Response>) -> Result<(), String> {
    let answer = answer.map_err(|error| clients::cause(&error))?;
    let status = answer.status();
    answer.bytes().await.map_err(|error| clients::cause(&error))?;
    if status.is_success() { Ok(()) } else { Err(status.to_string()) }
}

/// The question for a token.
pub(super) fn grant(client: &reqwest::Client, base: &str, user: &str, password: &str) -> reqwest::RequestBuilder {
    let form = [("grant_type", "password"), ("username", user), ("password", password)];
    client.post(format!("{base}/oauth/token")).basic_auth("cf", Some("")).form(&form)
}

/// What floods and askers need to know.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) router: SocketAddr,
    pub(super) neighbour_host: String,
    pub(super) neighbour: Arc<User>,
    pub(super) flooder_host: String,
    pub(super) flooder: Arc<User>,
    /// The guid of the app that floods.
    pub(super) flooding_app: String,
    /// Of the API.
    pub(super) base: String,
}

impl Ground {
    pub(super) async fn prepare(platform: &Platform) -> anyhow::Result<Self> {
        let admin = Api::admin(platform).await?;
        let neighbour = tenant(platform, &admin, "neighbour").await?;
        let manifest = "    memory: 64M\n    disk_quota: 64M\n";
        let pushed = ScriptApp { name: "neighbour", script: SERVER, manifest }.push(platform)?;
        ensure!(pushed.code == 0, "{}", pushed.all());
        let flooder = tenant(platform, &admin, "flooder").await?;
        push_flooder(platform, &platform.path("flooder"))?;
        Ok(Self {
            router: platform.router_address(),
            neighbour_host: Platform::host("neighbour"),
            neighbour: Arc::new(neighbour),
            flooder_host: Platform::host("flooder"),
            flooder: Arc::new(flooder),
            flooding_app: admin.find("apps", "flooder").await?,
            base: platform.url("api"),
        })
    }
}

/// Makes org, space and a developer of this name, and targets the space.
async fn tenant(platform: &Platform, admin: &Api, name: &str) -> anyhow::Result<User> {
    let org = admin.make("/v3/organizations", json!({ "name": name })).await?;
    let in_org = json!({ "organization": { "data": { "guid": org } } });
    let space = admin.make("/v3/spaces", json!({ "name": name, "relationships": in_org })).await?;
    let account =
        json!({ "userName": name, "password": PASSWORD, "emails": [{ "value": format!("{name}@bench.test") }] });
    let (status, made) = admin.send(Method::POST, "/Users", account.to_string()).await?;
    ensure!(status == 201, "POST /Users: {status} {made}");
    let user = made["id"].as_str().context("no id")?.to_owned();
    admin.make("/v3/users", json!({ "guid": user })).await?;
    for (role, kind, guid) in [("organization_user", "organization", &org), ("space_developer", "space", &space)] {
        let relationships = json!({ "user": { "data": { "guid": user } }, kind: { "data": { "guid": guid } } });
        admin.make("/v3/roles", json!({ "type": role, "relationships": relationships })).await?;
    }
    platform.ok(&["target", "-o", name, "-s", name])?;
    let (client, base) = (platform.client(&Platform::host("api"))?, platform.url("api"));
    let answer: Value = grant(&client, &base, name, PASSWORD).send().await?.error_for_status()?.json().await?;
    let token = answer["access_token"].as_str().context("no access_token")?.to_owned();
    Ok(User { name: name.to_owned(), token, client, base })
}

fn push_flooder(platform: &Platform, directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (name, text) in FILES {
        std::fs::write(directory.join(name), text)?;
    }
    std::fs::write(directory.join("package.json"), json!({ "name": "flooder", "version": "1.0.0" }).to_string())?;
    let manifest = json!({ "applications": [{
        "name": "flooder", "memory": "768M", "disk_quota": "256M", "command": "node server.js", "health-check-type": "port",
        "buildpacks": ["nodejs_buildpack"],
    }] });
    std::fs::write(directory.join("manifest.yml"), manifest.to_string())?;
    let manifest = directory.join("manifest.yml");
    platform.ok(&["push", "-p", &directory.to_string_lossy(), "-f", &manifest.to_string_lossy()]).map(drop)
}
