//! One function for each command. They look things up by name, ask the API, and print.

mod account;
mod apps;
mod curl;
mod events;
mod lifecycle;
mod logs;
mod platform;
mod push;
mod routes;
mod tasks;
mod variables;

use std::sync::Arc;

use serde_json::Value;

use crate::args::DeveloperCommand;
use crate::client::views::App;
use crate::client::{Client, query};
use crate::environment::Environment;
use crate::error::{CliError, Target};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::settings::{Named, Settings, SettingsFile};

/// What every command has at hand.
pub(crate) struct Session {
    pub(crate) environment: Environment,
    pub(crate) printer: Arc<Printer>,
    pub(crate) file: SettingsFile,
    pub(crate) settings: Settings,
    client: Option<Client>,
}

impl Session {
    fn open(environment: Environment, printer: Arc<Printer>) -> Result<Self, CliError> {
        let file = SettingsFile::of(&environment)?;
        let settings = file.load()?;
        let logged_in = !settings.access_token.0.is_empty() && !settings.api.is_empty();
        let client = if logged_in { Some(Client::open(&settings, file.clone(), Arc::clone(&printer))?) } else { None };
        Ok(Self { environment, printer, file, settings, client })
    }

    /// The client of the stored login.
    pub(crate) fn client(&self) -> Result<&Client, CliError> {
        self.client.as_ref().ok_or(CliError::NotLoggedIn)
    }

    /// The targeted org.
    pub(crate) fn org(&self) -> Result<&Named, CliError> {
        self.client()?;
        self.settings.org.as_ref().ok_or(CliError::NoTarget(Target::Org))
    }

    /// The targeted space.
    pub(crate) fn space(&self) -> Result<&Named, CliError> {
        self.org()?;
        self.settings.space.as_ref().ok_or(CliError::NoTarget(Target::Space))
    }

    /// An app of the targeted space.
    pub(crate) async fn app(&self, name: &str) -> Result<App, CliError> {
        let space = self.space()?;
        let path = query("/v3/apps", &[("names", name), ("space_guids", &space.guid)]);
        let found = self.client()?.list_as(&path).await?;
        found.into_iter().next().ok_or_else(|| CliError::Missing {
            kind: "App",
            name: name.to_owned(),
            place: format!(" in space '{}'", space.name),
        })
    }

    /// Asks before something is lost.
    async fn confirm(&self, force: bool, question: &str) -> Result<(), CliError> {
        if force {
            return Ok(());
        }
        let answer = self.environment.ask(false, &format!("{question} [y/N] ")).await.map_err(CliError::Prompt)?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(CliError::Declined)
        }
    }

    /// Prints a list: as it came with `--json`, else as a table of what `row` picks.
    fn show(
        &self,
        resources: Vec<Value>,
        header: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
        empty: &str,
    ) -> Result<(), CliError> {
        if self.printer.wants_json() {
            return self.printer.json(&resources);
        }
        self.printer.table(header, resources.iter().map(row).collect(), empty)
    }
}

/// A member of a resource as text; nothing when it is absent.
fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Does a command.
pub(crate) async fn dispatch(
    command: DeveloperCommand,
    environment: Environment,
    printer: Arc<Printer>,
) -> Result<Exit, CliError> {
    use DeveloperCommand as C;
    if let C::Login(args) = command {
        return account::login(args, environment, printer).await.map(|()| Exit::Success);
    }
    let session = Session::open(environment, printer)?;
    match command {
        C::Login(_) => {}
        C::Logout => account::logout(&session).await?,
        C::Target(args) => account::target(&session, args).await?,
        C::Orgs => account::orgs(&session).await?,
        C::Spaces => account::spaces(&session).await?,
        C::CreateOrg(args) => account::create_org(&session, args).await?,
        C::CreateSpace(args) => account::create_space(&session, args).await?,
        C::Push(args) => Box::pin(push::push(&session, &args)).await?,
        C::Apps(args) => apps::apps(&session, args).await?,
        C::App(args) => apps::app(&session, &args.name).await?,
        C::Scale(args) => apps::scale(&session, args).await?,
        C::Delete(args) => apps::delete(&session, args).await?,
        C::Start(args) => lifecycle::start(&session, &args.name).await?,
        C::Stop(args) => lifecycle::stop(&session, &args.name).await?,
        C::Restart(args) => lifecycle::restart(&session, &args.name).await?,
        C::Restage(args) => lifecycle::restage(&session, &args.name).await?,
        C::RestartAppInstance(args) => lifecycle::restart_instance(&session, args).await?,
        C::Logs(args) => logs::logs(&session, args).await?,
        C::Env(args) => variables::env(&session, &args.name).await?,
        C::SetEnv(args) => variables::set(&session, args).await?,
        C::UnsetEnv(args) => variables::unset(&session, args).await?,
        C::Routes => routes::routes(&session).await?,
        C::CreateRoute(args) => routes::create(&session, args).await?,
        C::MapRoute(args) => routes::map(&session, args).await?,
        C::UnmapRoute(args) => routes::unmap(&session, args).await?,
        C::DeleteRoute(args) => routes::delete(&session, args).await?,
        C::Domains => routes::domains(&session).await?,
        C::Events(args) => events::events(&session, &args.name).await?,
        C::RunTask(args) => tasks::run(&session, args).await?,
        C::Tasks(args) => tasks::tasks(&session, &args.name).await?,
        C::Buildpacks => platform::buildpacks(&session).await?,
        C::Stacks => platform::stacks(&session).await?,
        C::Curl(args) => curl::curl(&session, args).await?,
    }
    Ok(Exit::Success)
}
