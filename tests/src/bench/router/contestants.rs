//! The proxies, each over the same backend, and the backend.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use slipway_protocol::v1::{Pool, PoolEndpoint, Route, WeightedPool};
use slipway_protocol::{ClusterAuthority, Role};
use tempfile::TempDir;
use uuid::Uuid;

use super::controller::OneTable;
use super::processes::Running;
use super::{REPORT, write};

/// The host that is asked for.
pub(super) const HOST: &str = "app.bench.test";
/// For a program to serve.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One proxy that serves.
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) port: u16,
    process: Running,
    log: PathBuf,
    /// Where Slipway's counters are.
    admin: Option<SocketAddr>,
}

impl Contestant {
    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// What it printed last, for errors.
    pub(super) fn last_output(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Access lines that it had no room for; `None` where it does not tell.
    pub(super) fn lines_dropped(&self) -> anyhow::Result<Option<u64>> {
        let Some(admin) = self.admin else { return Ok(None) };
        let page = get(admin, "/metrics")?;
        let count = page.lines().find_map(|line| line.strip_prefix("router_access_lines_dropped_total "));
        Ok(Some(count.context("the router does not count dropped lines")?.parse()?))
    }
}

/// What all contestants share.
pub(super) struct Ground {
    directory: TempDir,
    cores: [usize; 2],
    /// wrk's script.
    pub(super) report: PathBuf,
    backend: u16,
    _backend: Running,
}

impl Ground {
    /// Starts the backend.
    pub(super) fn prepare() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let directory = tempfile::Builder::new().prefix("slipway-bench-").tempdir_in("/var/tmp")?;
        let report = directory.path().join("report.lua");
        write(&report, REPORT)?;
        let backend = free_port()?;
        let own = directory.path().join("backend");
        std::fs::create_dir(&own)?;
        write(
            &own.join("nginx.conf"),
            &format!(
                "daemon off; worker_processes 1; pid {own}/pid; error_log stderr;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; keepalive_requests 1000000000;\n\
                 server {{ listen 127.0.0.1:{backend}; location / {{ return 200 \"{body}\"; }} }} }}\n",
                own = own.display(),
                body = "x".repeat(1000),
            ),
        )?;
        let cores = [0, 1 % cores];
        let process = Running::start(nginx(cores[1], &own), &own.join("log"))?;
        let ground = Self { directory, cores, report, backend, _backend: process };
        serves(backend, &own.join("log"))?;
        Ok(ground)
    }

    pub(super) fn on_second_core(&self, program: &str) -> Command {
        pinned(self.cores[1], program)
    }

    fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let place = self.directory.path().join(name.replace([' ', ','], "-"));
        std::fs::create_dir(&place)?;
        Ok(place)
    }

    /// nginx, with the parameters of its access log.
    pub(super) fn nginx(&self, name: &str, log: &str) -> anyhow::Result<Contestant> {
        let (own, port) = (self.place(name)?, free_port()?);
        write(
            &own.join("nginx.conf"),
            &format!(
                "daemon off; worker_processes 1; pid {own}/pid; error_log stderr;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{\n\
                 log_format like '$host - [$time_iso8601] \"$request\" $status $request_length $bytes_sent \
                 \"$http_referer\" \"$http_user_agent\" \"$remote_addr:$remote_port\" \"$upstream_addr\" \
                 x_forwarded_for:\"$proxy_add_x_forwarded_for\" vcap_request_id:\"$request_id\" \
                 response_time:$request_time';\n\
                 access_log {own}/access.log like{log};\n\
                 keepalive_requests 1000000000;\n\
                 upstream app {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}\n\
                 server {{ listen 127.0.0.1:{port} backlog=4096; location / {{\n\
                 proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
                 proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id;\n\
                 }} }} }}\n",
                own = own.display(),
                backend = self.backend,
            ),
        )?;
        let process = Running::start(nginx(self.cores[0], &own), &own.join("log"))?;
        contestant(name, port, process, own.join("log"), None)
    }

    /// HAProxy; its log goes to its standard output, a file, a line for each request.
    pub(super) fn haproxy(&self) -> anyhow::Result<Contestant> {
        let (own, port) = (self.place("haproxy")?, free_port()?);
        let config = own.join("haproxy.cfg");
        write(
            &config,
            &format!(
                "global\n  nbthread 1\n  maxconn 4096\n  log stdout format raw local0\n\
                 defaults\n  mode http\n  log global\n  option httplog\n  option forwardfor\n  http-reuse always\n  \
                 timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                 frontend in\n  bind 127.0.0.1:{port}\n  capture request header Host len 64\n  \
                 capture request header User-Agent len 128\n  unique-id-format %[uuid()]\n  \
                 unique-id-header X-Request-Id\n  default_backend app\n\
                 backend app\n  server one 127.0.0.1:{backend}\n",
                backend = self.backend,
            ),
        )?;
        let mut command = pinned(self.cores[0], "haproxy");
        command.arg("-db").arg("-f").arg(&config);
        let process = Running::start(command, &own.join("log"))?;
        contestant("HAProxy", port, process, own.join("log"), None)
    }

    /// The router of a program `slipway`.
    pub(super) async fn slipway(&self, name: &str, program: &Path) -> anyhow::Result<Contestant> {
        let own = self.place(name)?;
        let (cluster, router) = (Uuid::new_v4(), Uuid::new_v4());
        let (authority, _) = ClusterAuthority::generate(cluster)?;
        authority.issue(Role::Router, router, &[])?.save(&own.join("tls"))?;
        let controller = OneTable::serve(&authority, cluster, vec![route()], vec![pool(self.backend)]).await?;
        let ready = own.join("ready.json");
        write(
            &own.join("router.toml"),
            &format!(
                "id = \"{router}\"\ncluster_id = \"{cluster}\"\nzone = \"z1\"\ncores = 1\n\
                 http_listen = [\"127.0.0.1:0\"]\nhttps_listen = []\ncontrollers = [\"{controller}\"]\n\
                 tls_directory = \"{own}/tls\"\nstate_directory = \"{own}/state\"\n\
                 query_listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nready_file = \"{ready}\"\n",
                own = own.display(),
                ready = ready.display(),
            ),
        )?;
        let mut command = pinned(self.cores[0], program);
        command.args(["router", "--config"]).arg(own.join("router.toml"));
        let process = Running::start(command, &own.join("log"))?;
        let text = within(&own.join("log"), || Ok(std::fs::read_to_string(&ready)?)).await?;
        let addresses: serde_json::Value = serde_json::from_str(&text)?;
        let address = |value: &serde_json::Value| -> anyhow::Result<SocketAddr> {
            Ok(value.as_str().context("no address in the ready file")?.parse()?)
        };
        let (http, admin) = (address(&addresses["http"][0])?, address(&addresses["admin"])?);
        within(&own.join("log"), || {
            let page = get(admin, "/healthz")?;
            ensure!(page.contains("ok, table"), "{page}");
            Ok(())
        })
        .await?;
        contestant(name, http.port(), process, own.join("log"), Some(admin))
    }
}

fn contestant(
    name: &str,
    port: u16,
    process: Running,
    log: PathBuf,
    admin: Option<SocketAddr>,
) -> anyhow::Result<Contestant> {
    serves(port, &log)?;
    Ok(Contestant { name: name.to_owned(), port, process, log, admin })
}

fn route() -> Route {
    let targets = vec![WeightedPool { pool: "app".into(), weight: 0 }];
    Route { id: "route".into(), host: HOST.into(), targets, ..Route::default() }
}

fn pool(port: u16) -> Pool {
    let endpoint = PoolEndpoint {
        assignment_id: Uuid::new_v4().to_string(),
        host: "127.0.0.1".into(),
        port: port.into(),
        ..PoolEndpoint::default()
    };
    let app_id = Uuid::new_v4().to_string();
    Pool { id: "app".into(), app_id, endpoints: vec![endpoint], ..Pool::default() }
}

fn nginx(core: usize, directory: &Path) -> Command {
    let mut command = pinned(core, "nginx");
    command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "stderr"]);
    command
}

fn pinned(core: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Tries until it succeeds; the error has the program's output.
async fn within<T>(log: &Path, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > TIMEOUT => {
                let output = std::fs::read_to_string(log).unwrap_or_default();
                return Err(error.context(format!("a proxy did not come up:\n{output}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until it answers a request.
#[expect(clippy::disallowed_methods, reason = "a benchmark's set-up: nothing else is to run meanwhile")]
fn serves(port: u16, log: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match get(SocketAddr::from(([127, 0, 0, 1], port)), "/") {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
            other if begun.elapsed() > TIMEOUT => {
                let output = std::fs::read_to_string(log).unwrap_or_default();
                anyhow::bail!("a proxy did not come up: {other:?}\n{output}");
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
