//! A platform of its own for a test: own state directory, ports, network; gone when the value is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use slipway_up::Layout;
use slipway_up::process::ChildRecord;
use tempfile::TempDir;

/// For one answer, on a machine that is busy with builds and starts.
const ANSWER: Duration = Duration::from_secs(60);

/// A running platform.
pub struct Platform {
    program: PathBuf,
    directory: Option<TempDir>,
    http_port: u16,
    /// The filter of what the parts log, when it is not the usual one.
    log: Option<String>,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Both streams, for failures.
    #[must_use]
    pub fn all(&self) -> String {
        format!("exit {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is not.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.all()))
    }
}

impl Platform {
    /// The program under test: `SLIPWAY_BIN`, or the one beside the test's own directory.
    ///
    /// # Errors
    /// When there is none: build it first.
    pub fn program() -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os("SLIPWAY_BIN") {
            return Ok(path.into());
        }
        let own = std::env::current_exe()?;
        let path = own.ancestors().nth(2).map(|directory| directory.join("slipway"));
        path.filter(|path| path.exists())
            .context("build the program first (cargo build -p slipway), or set SLIPWAY_BIN")
    }

    /// Starts a platform and logs in as its administrator.
    ///
    /// # Errors
    /// When a command fails; its output is in the error.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(None)
    }

    /// The same, with this filter for what the parts log.
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub fn start_logging(filter: &str) -> anyhow::Result<Self> {
        Self::start_with(Some(filter.to_owned()))
    }

    /// From the next `up` on the parts log what they usually do.
    pub fn log_usually(&mut self) {
        self.log = None;
    }

    fn start_with(log: Option<String>) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::Builder::new().prefix("slipway-test-").tempdir_in("/var/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
        let mut platform = Self { program: Self::program()?, directory: Some(directory), http_port: 0, log };
        platform.up()?;
        platform.ok(&["login", "--local"])?;
        Ok(platform)
    }

    /// Brings the platform up (again).
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(&mut self) -> anyhow::Result<()> {
        let outcome = if self.http_port == 0 {
            // Log servers of tests listen on loopback.
            self.ok(&["--json", "up", "--http", "0", "--https", "0", "--allow-network", "127.0.0.0/8"])?
        } else {
            self.ok(&["--json", "up"])?
        };
        let running = outcome.json()?;
        let port = running["http_port"].as_u64().context("no http_port")?;
        self.http_port = u16::try_from(port)?;
        Ok(())
    }

    /// Its paths.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(&self.path("state"))
    }

    /// A path in the test's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.as_ref().map_or_else(|| PathBuf::from("/nonexistent"), |directory| directory.path().join(name))
    }

    /// The repository's root.
    #[must_use]
    pub fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
    }

    /// Where its router listens.
    #[must_use]
    pub fn router_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.http_port))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command.env("SLIPWAY_STATE", self.path("state")).env("SLIPWAY_HOME", self.path("home"));
        if let Some(filter) = &self.log {
            command.env("SLIPWAY_LOG", filter);
        }
        command
    }

    /// Runs the program and returns what it did.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        let output = self.command(arguments).output().with_context(|| format!("run {}", self.program.display()))?;
        Ok(Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the program, which must succeed.
    ///
    /// # Errors
    /// When it fails; all it printed is in the error.
    pub fn ok(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        let outcome = self.run(arguments)?;
        if outcome.code != 0 {
            bail!("`slipway {}` failed: {}", arguments.join(" "), outcome.all());
        }
        Ok(outcome)
    }

    /// Runs the program, which must fail and say this.
    ///
    /// # Errors
    /// When it succeeds, or says something else.
    pub fn fails(&self, arguments: &[&str], said: &str) -> anyhow::Result<Outcome> {
        let outcome = self.run(arguments)?;
        if outcome.code == 0 {
            bail!("`slipway {}` should have failed: {}", arguments.join(" "), outcome.all());
        }
        if !outcome.all().contains(said) {
            bail!("`slipway {}` did not say {said:?}: {}", arguments.join(" "), outcome.all());
        }
        Ok(outcome)
    }

    /// Starts the program and leaves it running.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn(&self, arguments: &[&str]) -> anyhow::Result<std::process::Child> {
        Ok(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// `name.slipway.localhost`, for the Host header.
    #[must_use]
    pub fn host(name: &str) -> String {
        format!("{name}.slipway.localhost")
    }

    /// A client that resolves this host to the router.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn client(&self, host: &str) -> anyhow::Result<reqwest::Client> {
        // Two tests in one process may both come here: installed already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(reqwest::Client::builder().resolve(host, self.router_address()).timeout(ANSWER).build()?)
    }

    /// URL of an app.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}:{}", Self::host(name), self.http_port)
    }

    /// GET of an app's path: status and body.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, name: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let client = self.client(&Self::host(name))?;
        let response = client.get(format!("{}{path}", self.url(name))).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// The apps of the space as `apps --json` lists them, once all instances run that should: what is listed before that
    /// changes by itself, for example while the cell comes back to a controller that was started anew.
    ///
    /// # Errors
    /// When some instance does not run.
    pub async fn settled_apps(&self) -> anyhow::Result<String> {
        Self::eventually("all instances run", Duration::from_secs(120), || async {
            let apps = self.ok(&["apps", "--json"])?;
            for app in apps.json()?.as_array().into_iter().flatten().filter(|app| app["state"] == "STARTED") {
                // For example `web:2/3`.
                let counts = app["processes"].as_array().into_iter().flatten().filter_map(Value::as_str);
                for count in counts {
                    let run = count.rsplit(':').next().and_then(|count| count.split_once('/'));
                    ensure!(run.is_some_and(|(run, wanted)| run == wanted), "{}: {count}", app["name"]);
                }
            }
            Ok(apps.stdout)
        })
        .await
    }

    /// The process of a part.
    ///
    /// # Errors
    /// When it does not run.
    pub fn part(&self, part: &str) -> anyhow::Result<ChildRecord> {
        ChildRecord::load(&self.layout().pid(part)).with_context(|| format!("{part} does not run"))
    }

    /// `kill -9` of a part.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, part: &str) -> anyhow::Result<()> {
        self.part(part)?.signal(nix::sys::signal::Signal::SIGKILL);
        Ok(())
    }

    /// Every process of this platform, instances included: whoever has the state directory in its command line or
    /// environment, and whatever runs in its cgroups.
    #[must_use]
    pub fn all_processes(&self) -> Vec<ChildRecord> {
        let mut found = std::collections::BTreeSet::new();
        for part in ["supervisor", "postgres", "controller", "cell", "router"] {
            found.extend(ChildRecord::load(&self.layout().pid(part)).map(|known| known.pid));
        }
        let marker = format!("slipway-{}", self.short_name().unwrap_or_default());
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if cgroups.contains(&marker) {
                found.insert(pid);
            }
        }
        found.into_iter().filter_map(ChildRecord::of).collect()
    }

    /// The name that its cgroups, bridge and table carry.
    ///
    /// # Errors
    /// When the settings cannot be read.
    pub fn short_name(&self) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(self.layout().state("settings.json"))?;
        let settings: slipway_up::settings::Settings = serde_json::from_str(&text)?;
        Ok(settings.short_name())
    }

    /// Asks until `Ok`, or fails after `limit` with the last error.
    ///
    /// # Errors
    /// The last error.
    pub async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut ask: F) -> anyhow::Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        let start = Instant::now();
        loop {
            match ask().await {
                Ok(value) => return Ok(value),
                Err(error) if start.elapsed() > limit => {
                    return Err(error.context(format!("{what}: not within {limit:?}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Stops the platform; the directory goes with the value.
    ///
    /// # Errors
    /// When `slipway down` fails.
    pub fn down(&self) -> anyhow::Result<()> {
        self.ok(&["down"]).map(drop)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("the test's platform was not stopped: {error:#}");
        }
        if std::env::var_os("SLIPWAY_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}
