//! Developer commands on the platform's own machine: the API, its authority and the administrator's password are known.

use std::process::ExitCode;

use slipway_chassis::chain;
use slipway_cli::{DeveloperCommand, Environment, Exit, GlobalOptions};
use slipway_up::Layout;
use slipway_up::start::Running;

/// What `login` offers when no platform runs on this machine.
const DEFAULT_API: &str = "http://api.slipway.localhost";

/// Runs a developer command; `login --local` is filled in from the state directory first.
pub(crate) fn run_developer(command: DeveloperCommand, globals: GlobalOptions) -> ExitCode {
    let is_local = matches!(&command, DeveloperCommand::Login(login) if login.local);
    if let Some(advice) = is_local.then(|| Layout::new(&Layout::default_state())).and_then(|layout| down(&layout)) {
        eprintln!("Error: {advice}");
        return Exit::Unavailable.into();
    }
    match prepare(command) {
        Ok((command, environment)) => {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return fail(&error),
            };
            let exit = runtime.block_on(slipway_cli::run(command, globals, environment));
            // A prompt may still be waiting for its line in a thread that nobody can wake.
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => fail(error.as_ref()),
    }
}

/// Why nobody can log in to the platform of this machine: it was started once, and does not run now.
fn down(layout: &Layout) -> Option<String> {
    Running::load(layout).ok()?;
    let supervisor = slipway_up::status::report(layout).into_iter().find(|line| line.part == "supervisor")?;
    (supervisor.state != "ready").then(|| {
        format!(
            "The platform of {} does not run.\nHint: Start it with `slipway up`; `slipway status` shows what runs.",
            layout.state.display()
        )
    })
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {}", chain(error));
    Exit::General.into()
}

fn prepare(command: DeveloperCommand) -> anyhow::Result<(DeveloperCommand, Environment)> {
    prepare_at(command, &Layout::new(&Layout::default_state()))
}

fn prepare_at(mut command: DeveloperCommand, layout: &Layout) -> anyhow::Result<(DeveloperCommand, Environment)> {
    let running = Running::load(layout);
    if let DeveloperCommand::Login(login) = &mut command
        && login.local
    {
        let running = running.as_ref().map_err(|error| {
            anyhow::anyhow!(
                "no platform was started from {}: start one with `slipway up`, or set SLIPWAY_STATE to the directory \
                 of the one that you mean ({})",
                layout.state.display(),
                chain(error)
            )
        })?;
        if let Some(advice) = slipway_up::secrets::password_advice(layout) {
            anyhow::bail!("`--local` needs the password of admin, which `slipway login -u admin` asks for: {advice}");
        }
        let password = slipway_up::secrets::read(&running.password_file)?;
        login.api.get_or_insert_with(|| running.api.clone());
        login.user.get_or_insert_with(|| running.user.clone());
        login.password.get_or_insert(password);
        login.org.get_or_insert_with(|| "dev".to_owned());
        login.space.get_or_insert_with(|| "dev".to_owned());
    }
    if let (DeveloperCommand::Login(login), Ok(running)) = (&mut command, &running) {
        let given = login.api.as_ref().or(login.address.as_ref());
        if given.is_none_or(|given| given.trim_end_matches('/') == running.api) {
            login.listens_at = Some(running.address);
        }
    }
    let (api, authority) = match running {
        Ok(running) => (running.api, Some(running.authority)),
        Err(_) => (DEFAULT_API.to_owned(), None),
    };
    Ok((command, Environment::of_process(api, authority)?))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: DeveloperCommand,
    }

    #[test]
    fn a_login_without_a_platform_says_where_it_looked() {
        let directory = tempfile::tempdir().expect("directory");
        let line = Line::try_parse_from(["slipway", "login", "--local"]).expect("a command");
        let Err(error) = prepare_at(line.command, &Layout::new(directory.path())) else { panic!("there is none") };
        let text = error.to_string();
        let place = directory.path().display().to_string();
        assert!(text.contains(&place) && text.contains("SLIPWAY_STATE") && text.contains("slipway up"), "{text}");
    }

    #[test]
    fn a_login_at_a_platform_that_is_down_says_so() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        assert_eq!(down(&layout), None, "there is none, which is told in another place");
        let running = serde_json::json!({
            "api": "http://api.slipway.localhost", "user": "admin", "password_file": layout.state("admin-password"),
            "authority": "", "http_port": 80, "https_port": 443, "started": true,
        });
        std::fs::write(layout.state("public.json"), running.to_string()).expect("written");
        let text = down(&layout).expect("down");
        assert!(text.contains("does not run") && text.contains("slipway up"), "{text}");
    }

    #[test]
    fn a_login_without_the_password_file_says_how_to_set_one() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let running = serde_json::json!({
            "api": "http://api.slipway.localhost", "user": "admin", "password_file": layout.state("admin-password"),
            "authority": "", "http_port": 80, "https_port": 443, "started": true,
        });
        std::fs::write(layout.state("public.json"), running.to_string()).expect("written");
        let login = || {
            let line = Line::try_parse_from(["slipway", "login", "--local"]).expect("a command");
            prepare_at(line.command, &layout)
        };
        let Err(error) = login() else { panic!("there is no password") };
        assert!(error.to_string().contains("admin-password.new"), "{error}");
        std::fs::write(layout.state("admin-password"), "secret").expect("written");
        assert!(login().is_ok());
    }

    #[test]
    fn a_login_at_the_platform_of_this_machine_goes_where_that_listens() {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(directory.path());
        let running = serde_json::json!({
            "api": "http://api.slipway.localhost", "user": "admin", "password_file": layout.state("admin-password"),
            "authority": "", "http_port": 80, "https_port": 443, "started": true, "address": "127.0.0.9",
        });
        std::fs::write(layout.state("public.json"), running.to_string()).expect("written");
        std::fs::write(layout.state("admin-password"), "secret").expect("written");
        let goes_to = |arguments: &[&str]| {
            let line = Line::try_parse_from(["slipway", "login"].iter().chain(arguments)).expect("a command");
            let Ok((DeveloperCommand::Login(login), _)) = prepare_at(line.command, &layout) else { panic!("a login") };
            login.listens_at.map(|address| address.to_string())
        };
        let there = Some("127.0.0.9".to_owned());
        assert_eq!(goes_to(&["--local"]), there);
        assert_eq!(goes_to(&["-u", "admin"]), there);
        assert_eq!(goes_to(&["http://api.slipway.localhost/"]), there);
        assert_eq!(goes_to(&["http://api.example.com"]), None);
    }
}
