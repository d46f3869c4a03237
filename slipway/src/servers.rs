//! The commands of whoever runs a platform: the embedded default, its parts, its layers.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use slipway_chassis::{Shutdown, chain, config, telemetry};
use slipway_cli::GlobalOptions;
use slipway_up::{Layout, UpOptions};

/// Commands of whoever runs a platform.
#[derive(Subcommand)]
pub(crate) enum PlatformCommand {
    /// Start a whole platform on this machine
    Up(UpOptions),
    /// Stop the platform of this machine; its state stays
    Down(StateArg),
    /// Show what runs on this machine, and why anything does not
    Status(StateArg),
    /// Make the layers that apps run on
    #[command(subcommand)]
    Stack(StackCommand),
    /// Run a controller
    Controller(ConfigArg),
    /// Run a cell agent
    Cell {
        #[command(flatten)]
        config: ConfigArg,
        /// End every instance and remove all that the cell made on this host, then exit
        #[arg(long)]
        teardown: bool,
    },
    /// Run a router
    Router(ConfigArg),
    /// Answer DNS for the platform's names
    #[command(hide = true)]
    Dns(ConfigArg),
    /// Keep the parts of `slipway up` running
    #[command(hide = true)]
    Supervise(StateArg),
}

/// Which platform of this machine.
#[derive(clap::Args)]
pub(crate) struct StateArg {
    /// Where everything is kept [default: /var/lib/slipway]
    #[arg(long, env = "SLIPWAY_STATE")]
    state: Option<PathBuf>,
}

impl StateArg {
    fn layout(&self) -> Layout {
        Layout::new(&self.state.clone().unwrap_or_else(Layout::default_state))
    }
}

/// A server part's file.
#[derive(clap::Args)]
pub(crate) struct ConfigArg {
    /// Configuration file (TOML)
    #[arg(long)]
    config: PathBuf,
}

/// Commands about layers.
#[derive(Subcommand)]
pub(crate) enum StackCommand {
    /// Build stack, runtime and build layers from their recipes; what is there already is kept
    Build {
        /// Only these layers, e.g. debian12 node-22
        only: Vec<String>,
        /// Build again although nothing changed, to take in new package versions
        #[arg(long)]
        refresh: bool,
        /// Where layers are kept [default: /var/cache/slipway/stacks]
        #[arg(long, env = "SLIPWAY_STACK_DIR")]
        directory: Option<PathBuf>,
    },
}

/// Runs a platform command; errors go to standard error with what to do.
pub(crate) fn run(command: PlatformCommand, globals: &GlobalOptions) -> ExitCode {
    match execute(command, globals) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: PlatformCommand, globals: &GlobalOptions) -> anyhow::Result<ExitCode> {
    match command {
        PlatformCommand::Up(options) => up(&options, globals)?,
        PlatformCommand::Down(state) => {
            let ran = small_runtime()?.block_on(slipway_up::stop::down(&state.layout()))?;
            if !globals.quiet {
                eprintln!(
                    "{}",
                    if ran { "The platform is stopped; its state is kept." } else { "Nothing was running." }
                );
            }
        }
        PlatformCommand::Status(state) => return status(&state.layout(), globals),
        PlatformCommand::Stack(StackCommand::Build { only, refresh, directory }) => {
            build_layers(&directory.unwrap_or_else(default_stacks), only, refresh, globals)?;
        }
        PlatformCommand::Controller(file) => {
            telemetry::init_with("controller", Some(slipway_controller::store::query_times::layer()));
            let config = config::load(&file.config)?;
            serve(|shutdown| slipway_controller::run::run(config, shutdown))?;
        }
        PlatformCommand::Cell { config: file, teardown } => {
            telemetry::init("cell");
            let config = config::load(&file.config)?;
            if teardown {
                small_runtime()?.block_on(slipway_cell_agent::teardown(config))?;
            } else {
                serve(|shutdown| slipway_cell_agent::run(config, shutdown))?;
            }
        }
        PlatformCommand::Router(file) => {
            // Before anything else is opened: what was passed is told by its number.
            let inherited = slipway_router::Inherited::from_environment();
            telemetry::init("router");
            let (config, inherited) = (config::load(&file.config)?, inherited?);
            serve(|shutdown| slipway_router::run(config, inherited, shutdown))?;
        }
        PlatformCommand::Dns(file) => {
            telemetry::init("dns");
            let config = config::load(&file.config)?;
            small_runtime()?.block_on(async {
                let shutdown = Shutdown::new();
                shutdown.on_signals()?;
                slipway_up::dns::run(config, shutdown).await.map_err(anyhow::Error::from)
            })?;
        }
        PlatformCommand::Supervise(state) => {
            telemetry::init("supervisor");
            let layout = state.layout();
            small_runtime()?.block_on(async move {
                let shutdown = Shutdown::new();
                shutdown.on_signals()?;
                slipway_up::supervisor::run(layout, shutdown).await.map_err(anyhow::Error::from)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a server part until SIGTERM; a part that ends in an error exits with 1 and is started again by its supervisor.
fn serve<F, Fut, E>(part: F) -> anyhow::Result<()>
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        part(shutdown).await.map_err(anyhow::Error::from)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn small_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn default_stacks() -> PathBuf {
    UpOptions::default().stack_directory()
}

fn up(options: &UpOptions, globals: &GlobalOptions) -> anyhow::Result<()> {
    let stacks = options.stack_directory();
    if !stacks.join("index.json").exists() {
        eprintln!("There are no layers in {} yet: they are built now, once.", stacks.display());
        build_layers(&stacks, Vec::new(), false, globals)?;
    }
    let has_run = options.layout().state("settings.json").exists();
    let running = slipway_up::start::up(options, !globals.quiet && !globals.no_progress)?;
    if globals.json {
        show(&format!("{}\n", serde_json::to_string_pretty(&running)?));
        return Ok(());
    }
    let layout = options.layout();
    let state = &layout.state;
    eprintln!("{}", if running.started { "The platform is up." } else { "The platform is running already." });
    if running.started && has_run {
        eprintln!("  apps   what ran before is started again now; `slipway apps` shows how far it is");
    }
    eprintln!("  API    {}", running.api);
    match slipway_up::secrets::password_advice(&layout) {
        None => {
            eprintln!("  log in slipway login --local            (as root, on this machine)");
            eprintln!(
                "         cf login -a {} -u admin -p \"$(cat {})\"",
                running.api,
                running.password_file.display()
            );
        }
        Some(advice) => {
            eprintln!("  log in cf login -a {} -u admin", running.api);
            eprintln!("         {advice}");
        }
    }
    for warning in &running.warnings {
        eprintln!("  note   {warning}");
    }
    for ignored in &running.ignored {
        eprintln!("  note   {ignored}: `slipway down` first, then `slipway up` with it");
    }
    let [first, second] = running.names_hint();
    eprintln!("  names  {first}");
    eprintln!("         {second}");
    eprintln!("  HTTPS  port {}; its certificates are signed by {}", running.https_port, running.authority.display());
    eprintln!("  state  {}; `slipway status` shows what runs, `slipway down` stops it", state.display());
    Ok(())
}

fn status(layout: &Layout, globals: &GlobalOptions) -> anyhow::Result<ExitCode> {
    let lines = slipway_up::status::report(layout);
    let running = slipway_up::start::Running::load(layout).ok();
    let url = |part: &str| running.as_ref().and_then(|running| address(running, part));
    if globals.json {
        let mut all = serde_json::to_value(&lines)?;
        for line in all.as_array_mut().into_iter().flatten() {
            line["url"] = line["part"].as_str().and_then(url).into();
        }
        show(&format!("{}\n", serde_json::to_string_pretty(&all)?));
    } else {
        for line in &lines {
            let mut facts = Vec::new();
            facts.extend(line.pid.map(|pid| format!("pid {pid}")));
            facts.extend(line.resident_bytes.map(|bytes| format!("{} MiB", bytes >> 20)));
            facts.extend(line.up_seconds.map(|seconds| format!("up {}", slipway_up::status::duration(seconds))));
            if line.restarts > 0 {
                facts.push(format!("{} restarts", line.restarts));
            }
            facts.extend(url(&line.part).filter(|_| line.state == "ready"));
            if line.part == "router" && line.state == "ready" {
                facts.extend(running.as_ref().map(|running| format!("HTTPS on port {}", running.https_port)));
            }
            show(&format!("{:<11} {:<12} {}\n", line.part, line.state, facts.join(", ")));
            for note in &line.notes {
                show(&format!("            {note}\n"));
            }
        }
        if running.is_some() {
            show("apps        `slipway apps` lists those of a space\n");
        }
    }
    let all = lines.iter().all(|line| line.state == "ready");
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// On standard output. Who closes it has seen enough, as `head` does.
fn show(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Where a part is reached.
fn address(running: &slipway_up::start::Running, part: &str) -> Option<String> {
    match part {
        "controller" => Some(running.api.clone()),
        "router" => {
            let port = if running.http_port == 80 { String::new() } else { format!(":{}", running.http_port) };
            Some(format!("http://APP.{}{port}", running.domain)).filter(|_| !running.domain.is_empty())
        }
        _ => None,
    }
}

fn build_layers(
    directory: &std::path::Path,
    only: Vec<String>,
    refresh: bool,
    globals: &GlobalOptions,
) -> anyhow::Result<()> {
    let tell = |line: &str| {
        if !globals.quiet {
            eprintln!("{line}");
        }
    };
    let mut options = slipway_stacks::BuildOptions::new(directory, &tell);
    options.only = only;
    options.refresh = refresh;
    let summary = slipway_stacks::build(&options)?;
    tell(&format!("{} layers made, {} kept, in {}", summary.made.len(), summary.present.len(), directory.display()));
    Ok(())
}
