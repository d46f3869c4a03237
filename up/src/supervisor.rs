//! Keeps the parts running: starts them, starts them again when they end, stops them in the right order.
//!
//! The parts do not die with the supervisor: apps and the router go on when it is killed, and the next `slipway up`
//! replaces the parts one by one. A lock on the state directory keeps two supervisors apart.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use slipway_chassis::{Backoff, Shutdown, chain, clock};
use slipway_router::RouterConfig;
use tokio::process::Command;

use crate::UpError;
use crate::layout::Layout;
use crate::listen_sockets::ListenSockets;
use crate::parts;
use crate::postgres::Postgres;
use crate::process::ChildRecord;
use crate::status::SupervisorStatus;
use crate::stop;
use crate::{closed, environment, previous};

/// A log is cut when it has grown beyond this; one older generation is kept.
const LOG_LIMIT: u64 = 16 << 20;
/// A router that has ended this often without having served will not serve in a moment: who waits for it is told so. Less
/// would refuse clients for a disk that stalls; more would keep them waiting for a router that cannot start.
const HOPELESS: u32 = 6;
/// How often logs are looked at. Between two looks a log grows beyond its limit by what one part can write.
const LOG_CHECK: Duration = Duration::from_secs(5);

/// Takes the lock of a state directory.
///
/// # Errors
/// [`UpError::Running`] when somebody holds it.
pub fn lock(layout: &Layout) -> Result<Flock<File>, UpError> {
    let path = layout.state("supervisor.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(UpError::file(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| UpError::Running(layout.state.clone()))
}

type Shared = Arc<Mutex<SupervisorStatus>>;

/// Runs until told to stop, then stops everything and leaves nothing on the host.
///
/// # Errors
/// When another supervisor runs, or Postgres cannot be prepared. A part that fails is started again, not an error.
pub async fn run(layout: Layout, shutdown: Shutdown) -> Result<(), UpError> {
    closed::mask();
    let _lock = lock(&layout)?;
    std::fs::create_dir_all(&layout.run).map_err(UpError::file(&layout.run))?;
    // Postgres' account passes through to its socket.
    std::fs::set_permissions(&layout.run, std::fs::Permissions::from_mode(0o711))
        .map_err(UpError::file(&layout.run))?;
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    if let Some(known) = ChildRecord::of(own) {
        known.save(&layout.pid("supervisor"))?;
    }
    let router = previous::router_config(&layout)?;
    // Left over from a supervisor that was killed: replaced, because their ends would go unnoticed.
    stop::end_parts(&layout).await;
    let postgres = Postgres::find()?;
    postgres.prepare(&layout).await?;
    let status = Shared::default();
    let program = parts::program()?;
    let (server, server_layout) = (postgres, layout.clone());
    let mut tasks =
        vec![tokio::spawn(keep(layout.clone(), "postgres", status.clone(), shutdown.clone(), None, move || {
            server.command(&server_layout)
        }))];
    wait_for_database(&layout, &shutdown).await;
    for part in parts::parts(&layout) {
        let config = layout.config(part);
        let program = program.clone();
        let listen_sockets = if part == previous::ROUTER { Some(replace_router(&layout, &router).await) } else { None };
        tasks.push(tokio::spawn(keep(
            layout.clone(),
            part,
            status.clone(),
            shutdown.clone(),
            listen_sockets,
            move || {
                let mut command = Command::new(&program);
                command.arg(part).arg("--config").arg(&config).current_dir("/");
                command
            },
        )));
    }
    tasks.push(tokio::spawn(keep_logs_short(layout.clone(), shutdown.clone())));
    shutdown.requested().await;
    for task in tasks {
        // The keepers end by themselves once shutdown was requested; they leave their processes to `stop`.
        let _ = task.await;
    }
    stop::everything(&layout).await;
    Ok(())
}

/// Ends the router that an earlier supervisor left, when its successor can start: it needs nobody meanwhile. The sockets of
/// the successor are open before, and take what comes between the two; those of the old one close with it.
async fn replace_router(layout: &Layout, config: &RouterConfig) -> ListenSockets {
    let mut listen_sockets = ListenSockets::of(config);
    open(&mut listen_sockets);
    stop::end_router(layout).await;
    listen_sockets
}

/// Opens the router's sockets. Where that fails, the router tries for itself and says why it cannot.
fn open(listen_sockets: &mut ListenSockets) {
    if let Err(error) = listen_sockets.open() {
        tracing::error!(error = %chain(&error), "the router has to open its sockets itself; while none runs, clients are refused");
    }
}

async fn wait_for_database(layout: &Layout, shutdown: &Shutdown) {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    while !shutdown.is_stopping() {
        match Postgres::ensure_database(layout).await {
            Ok(()) => return,
            Err(error) => {
                tracing::debug!(error = %chain(&error), "Postgres does not answer yet");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Starts a part whenever it does not run, until shutdown. Sockets that it has close with the return, before anybody
/// stops the part: then it is the only one that holds them.
async fn keep(
    layout: Layout,
    part: &'static str,
    status: Shared,
    shutdown: Shutdown,
    mut listen_sockets: Option<ListenSockets>,
    command: impl Fn() -> Command + Send,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut in_vain = 0;
    while !shutdown.is_stopping() {
        let started = tokio::time::Instant::now();
        let mut command = command();
        prepare(&layout, part, &mut command);
        if let Some(listen_sockets) = &mut listen_sockets {
            open(listen_sockets);
            listen_sockets.pass_to(&mut command);
        }
        let end = match spawn(&layout, part, command) {
            Ok(mut child) => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
                if let Some(known) = pid.and_then(ChildRecord::of)
                    && let Err(error) = known.save(&layout.pid(part))
                {
                    tracing::warn!(part, error = %chain(&error), "pid file not written");
                }
                note(&layout, &status, part, |entry| {
                    entry.pid = pid;
                    entry.since = clock::since_1970().as_secs();
                });
                tokio::select! {
                    end = child.wait() => end.map_or_else(|error| error.to_string(), |end| end.to_string()),
                    () = shutdown.requested() => return,
                }
            }
            Err(error) => chain(&error).to_string(),
        };
        tracing::error!(part, end, "a part has ended; it is started again");
        note(&layout, &status, part, |entry| {
            entry.pid = None;
            entry.restarts += 1;
            entry.last_end = Some(end);
        });
        if started.elapsed() > Duration::from_secs(30) {
            backoff.reset();
        }
        // Written once it serves, removed before it starts.
        in_vain = if layout.ready(part).exists() { 0 } else { in_vain + 1 };
        if in_vain >= HOPELESS
            && let Some(listen_sockets) = &mut listen_sockets
        {
            listen_sockets.close();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// What a part inherits: of the environment what it needs, and how its files are closed.
fn prepare(layout: &Layout, part: &str, command: &mut Command) {
    let credentials = previous::registry_variables(layout);
    command.env_clear().envs(environment::of_part(part, &credentials, environment::own()));
    if part == "cell" {
        let open = || {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(closed::CELL_MASK));
            Ok(())
        };
        // SAFETY: between fork and exec it only sets the mask, which is async-signal-safe.
        unsafe { command.pre_exec(open) };
    }
}

fn note(layout: &Layout, status: &Shared, part: &str, change: impl FnOnce(&mut crate::status::PartStatus)) {
    let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
    change(status.parts.entry(part.to_owned()).or_default());
    if let Err(error) = status.save(layout) {
        tracing::warn!(part, error = %chain(&error), "status not written");
    }
}

fn spawn(layout: &Layout, part: &str, mut command: Command) -> Result<tokio::process::Child, UpError> {
    let ready = layout.ready(part);
    match std::fs::remove_file(&ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(UpError::File { path: ready, source: error });
        }
        _ => {}
    }
    let path = layout.log(part);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(UpError::file(directory))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(UpError::file(&path))?;
    let errors = log.try_clone().map_err(UpError::file(&path))?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).kill_on_drop(false);
    command.spawn().map_err(UpError::spawn(part))
}

async fn keep_logs_short(layout: Layout, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOG_CHECK) => {}
            () = shutdown.requested() => return,
        }
        let layout = layout.clone();
        // Copying takes a moment, in which the one thread of the supervisor could not look after the parts.
        if let Err(error) = tokio::task::spawn_blocking(move || cut_logs(&layout)).await {
            tracing::warn!(error = %chain(&error), "logs not cut");
        }
    }
}

/// Also those of parts that do not run, and the supervisor's own.
fn cut_logs(layout: &Layout) {
    for part in parts::parts(layout).into_iter().chain(["postgres", "supervisor"]) {
        cut_log(&layout.log(part));
    }
}

/// Keeps what there is beside a fresh start. The writer appends, so cutting under it is safe.
fn cut_log(path: &Path) {
    let Ok(size) = std::fs::metadata(path).map(|metadata| metadata.len()) else { return };
    if size <= LOG_LIMIT {
        return;
    }
    let older = path.with_extension("log.1");
    let cut = std::fs::copy(path, &older)
        .and_then(|_| OpenOptions::new().write(true).open(path))
        .and_then(|file| file.set_len(0));
    if let Err(error) = cut {
        tracing::warn!(path = %path.display(), %error, "log not cut");
    }
}

/// Asks a running supervisor to stop everything; `None` when there is none.
#[must_use]
pub fn running(layout: &Layout) -> Option<ChildRecord> {
    ChildRecord::load(&layout.pid("supervisor"))
}

/// Tells a supervisor to stop and waits for it; kills it after `grace`.
pub async fn ask_to_stop(known: ChildRecord, grace: Duration) -> bool {
    known.end(Signal::SIGTERM, grace).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_inherit_what_they_need_and_the_cell_makes_files_for_apps() {
        closed::mask();
        // Each test is a process of its own only with some runners: nothing here depends on it.
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let mask_of = async |part: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "umask; env"]).env("AWS_SECRET_ACCESS_KEY", "x");
            prepare(&layout, part, &mut command);
            let output = command.output().await.expect("a shell");
            String::from_utf8(output.stdout).expect("text")
        };
        for (part, mask) in [("controller", "0027"), ("postgres", "0027"), ("router", "0027"), ("cell", "0022")] {
            let said = mask_of(part).await;
            assert!(said.starts_with(mask) && said.contains("PATH="), "{part}: {said}");
            assert!(!said.contains("AWS_SECRET") && !said.contains("CARGO"), "{part}: {said}");
        }
    }

    #[test]
    fn every_log_is_cut_the_supervisor_s_too() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        std::fs::create_dir_all(layout.state("logs")).expect("logs");
        for (part, size) in [("supervisor", LOG_LIMIT + 1), ("postgres", LOG_LIMIT + 1), ("router", LOG_LIMIT)] {
            // Sparse: it takes no room.
            std::fs::File::create(layout.log(part)).and_then(|file| file.set_len(size)).expect("log");
        }
        cut_logs(&layout);
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        for part in ["supervisor", "postgres"] {
            let log = layout.log(part);
            assert_eq!(size(&log), Some(0), "{part}");
            assert_eq!(size(&log.with_extension("log.1")), Some(LOG_LIMIT + 1), "{part}");
        }
        assert_eq!(size(&layout.log("router")), Some(LOG_LIMIT), "not yet");
    }
}
