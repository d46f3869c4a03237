//! `slipway up`: prepares, starts the supervisor, waits until the platform answers.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::UpError;
use crate::files::write_atomically;
use crate::layout::Layout;
use crate::options::UpOptions;
use crate::parts;
use crate::postgres::Postgres;
use crate::process::ChildRecord;
use crate::settings::Settings;
use crate::status::SupervisorStatus;
use crate::{closed, environment, previous, secrets, supervisor};

/// What a person needs after the start.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Running {
    /// `http://api.slipway.localhost`.
    pub api: String,
    /// The admin's name.
    pub user: String,
    /// File with the admin's password.
    pub password_file: PathBuf,
    /// Certificate of the web's authority, for HTTPS clients.
    pub authority: PathBuf,
    /// Port of plain HTTP.
    pub http_port: u16,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Domain of the platform and of its apps.
    #[serde(default)]
    pub domain: String,
    /// The address of the router.
    #[serde(default = "loopback")]
    pub address: IpAddr,
    /// Where the platform's names are answered; `None` = nowhere.
    #[serde(default)]
    pub dns: Option<SocketAddr>,
    /// False when it ran already.
    pub started: bool,
    /// Options that a running platform does not take, each with what it has instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// What holds and should not be so, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Running {
    /// How programs on this machine find the platform's names, in two lines for a person.
    #[must_use]
    pub fn names_hint(&self) -> [String; 2] {
        let Self { domain, address, .. } = self;
        match self.dns {
            Some(dns) if dns.port() == 53 => [
                format!(
                    "{dns} answers for {domain} and all below it: put `nameserver {}` first in /etc/resolv.conf,",
                    dns.ip()
                ),
                format!(
                    "or `DNS={}` and `Domains=~{domain}` below `[Resolve]` in /etc/systemd/resolved.conf.d/slipway.conf",
                    dns.ip()
                ),
            ],
            Some(dns) => [
                format!("{dns} answers for {domain} and all below it; /etc/resolv.conf knows only port 53, so"),
                format!(
                    "put `DNS={dns}` and `Domains=~{domain}` below `[Resolve]` in /etc/systemd/resolved.conf.d/slipway.conf"
                ),
            ],
            None => [
                format!("programs that do not know {domain} need this line in /etc/hosts, with each app's name added:"),
                format!(
                    "{address} api.{domain} login.{domain} uaa.{domain} log-cache.{domain}   (or use `slipway up --dns`)"
                ),
            ],
        }
    }

    /// What the last start of this state directory left for its clients.
    ///
    /// # Errors
    /// When there was none, or its file cannot be read.
    pub fn load(layout: &Layout) -> Result<Self, UpError> {
        let path = layout.state("public.json");
        let bytes = std::fs::read(&path).map_err(UpError::file(&path))?;
        serde_json::from_slice(&bytes).map_err(|error| UpError::Damaged { path, detail: error.to_string() })
    }
}

/// Starts the platform, or finds it running. Layers must have been built: the caller sees to it.
///
/// # Errors
/// When the host lacks something, a port is taken, or a part does not come up within two minutes.
pub fn up(options: &UpOptions, progress: bool) -> Result<Running, UpError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(UpError::NotRoot);
    }
    check_host()?;
    let layout = options.layout();
    std::fs::create_dir_all(&layout.state).map_err(UpError::file(&layout.state))?;
    closed::mask();
    closed::tighten(&layout)?;
    if supervisor::running(&layout).is_some() {
        let current = stored_settings(&layout)?;
        wait_until_ready(&layout, &current, progress, None)?;
        return Ok(Running { ignored: current.differing(options), ..running(&layout, &current, false) });
    }
    // Held only until here: the supervisor takes it itself. Two `up` at once meet there.
    drop(supervisor::lock(&layout)?);
    let settings = Settings::load_or_decide(&layout, options)?;
    secrets::ensure(&layout, &settings)?;
    parts::write_configs(&layout, &settings, &options.stack_directory())?;
    // The developer's client finds its API and the authority here.
    let found = running(&layout, &settings, true);
    let public = serde_json::to_vec_pretty(&Running { warnings: Vec::new(), ..found.clone() })
        .map_err(|error| UpError::File { path: layout.state("public.json"), source: std::io::Error::other(error) })?;
    write_atomically(&layout.state("public.json"), &public, 0o644)?;
    // Not when another `up` was faster: then they may be those of the parts that it waits for.
    if let Ok(_lock) = supervisor::lock(&layout) {
        forget_ready(&layout)?;
    }
    let mut supervisor = spawn_supervisor(&layout)?;
    wait_until_ready(&layout, &settings, progress, Some(&mut supervisor))?;
    Ok(found)
}

fn stored_settings(layout: &Layout) -> Result<Settings, UpError> {
    let path = layout.state("settings.json");
    let bytes = std::fs::read(&path).map_err(UpError::file(&path))?;
    serde_json::from_slice(&bytes).map_err(|error| UpError::Damaged { path, detail: error.to_string() })
}

fn running(layout: &Layout, settings: &Settings, started: bool) -> Running {
    Running {
        api: settings.api_url(),
        user: "admin".to_owned(),
        password_file: secrets::password_file(layout),
        authority: layout.state(closed::WEB_AUTHORITY),
        http_port: settings.http_port,
        https_port: settings.https_port,
        domain: settings.domain.clone(),
        address: settings.reached_at(),
        dns: settings.dns_port.map(|port| SocketAddr::new(settings.reached_at(), port)),
        started,
        ignored: Vec::new(),
        warnings: settings.open_files().iter().map(|path| open_file(path)).collect(),
    }
}

fn open_file(path: &Path) -> String {
    let path = path.display();
    format!(
        "other accounts of this machine may read {path}, which belongs to the registries' credentials: chmod 600 {path}"
    )
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// Everything the parts call on, looked for before anything is started.
fn check_host() -> Result<(), UpError> {
    Postgres::find()?;
    for (program, package) in [("nft", "nftables"), ("mkfs.btrfs", "btrfs-progs"), ("ip", "iproute2")] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
        if !found {
            return Err(UpError::Missing { what: format!("the program `{program}`"), package });
        }
    }
    Ok(())
}

/// Parts that a killed supervisor left are ready still, but about to be replaced: it is their successors that count.
fn forget_ready(layout: &Layout) -> Result<(), UpError> {
    for part in parts::parts(layout) {
        let path = layout.ready(part);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(UpError::File { path, source }),
            _ => {}
        }
    }
    Ok(())
}

fn spawn_supervisor(layout: &Layout) -> Result<Child, UpError> {
    let path = layout.log("supervisor");
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(UpError::file(directory))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(UpError::file(&path))?;
    let errors = log.try_clone().map_err(UpError::file(&path))?;
    let mut command = Command::new(parts::program()?);
    command.arg("supervise").arg("--state").arg(&layout.state);
    command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/");
    command.env_clear().envs(environment::of_supervisor(&previous::registry_variables(layout), environment::own()));
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    command.spawn().map_err(UpError::spawn("slipway supervise"))
}

/// Every part serves, and the API answers by its name: the router has its route. `started` is the supervisor that was
/// started for it.
fn wait_until_ready(
    layout: &Layout,
    settings: &Settings,
    progress: bool,
    mut started: Option<&mut Child>,
) -> Result<(), UpError> {
    const LIMIT: Duration = Duration::from_secs(120);
    let bar = if progress { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let start = Instant::now();
    loop {
        let mut missing = parts::parts(layout);
        missing.retain(|part| !layout.ready(part).exists());
        if missing.is_empty() {
            if api_answers(settings) {
                bar.finish_and_clear();
                return Ok(());
            }
            missing.push("router");
        }
        let first = missing.first().copied().unwrap_or("router");
        bar.set_message(format!("waiting for {}", missing.join(", ")));
        // One that was started here and still runs may not have written down its number yet. When it has ended, another
        // `up` may have started one at the same moment.
        let ended = started.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|end| end.is_some()));
        let supervisor_gone =
            ended && start.elapsed() > Duration::from_secs(5) && supervisor::running(layout).is_none();
        if start.elapsed() > LIMIT || supervisor_gone {
            bar.finish_and_clear();
            return Err(not_ready(layout, if supervisor_gone { "supervisor" } else { first }));
        }
        wait_a_moment();
    }
}

/// Asks for the API's front page through the router, as every client will.
fn api_answers(settings: &Settings) -> bool {
    let address = match settings.listen {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    let ask = || -> std::io::Result<bool> {
        const PAUSE_LIMIT: Duration = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, settings.http_port), PAUSE_LIMIT)?;
        stream.set_read_timeout(Some(PAUSE_LIMIT))?;
        stream.set_write_timeout(Some(PAUSE_LIMIT))?;
        write!(stream, "GET / HTTP/1.1\r\nhost: api.{}\r\nconnection: close\r\n\r\n", settings.domain)?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin)?;
        Ok(begin.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// `up` is a plain program without a runtime: it may block.
#[expect(clippy::disallowed_methods, reason = "no runtime here; the condition is files of other processes")]
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(25));
}

fn not_ready(layout: &Layout, part: &str) -> UpError {
    let status = SupervisorStatus::load(layout);
    let detail =
        match (status.parts.get(part).and_then(|entry| entry.last_end.clone()), ChildRecord::load(&layout.pid(part))) {
            (Some(end), _) => format!("it ended with {end}"),
            (None, Some(known)) => format!("process {} runs, but is not ready", known.pid),
            (None, None) => "it was not started".to_owned(),
        };
    UpError::Part { part: part.to_owned(), detail, log: layout.log(part) }
}
