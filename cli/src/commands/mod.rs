//! One function for each command. They look things up by name, ask the API, and print.

mod access_line;
mod account;
mod app_settings;
mod apps;
mod buildpacks;
mod curl;
mod deployments;
mod domains;
mod events;
mod flags;
mod lifecycle;
mod logs;
mod names;
mod orgs;
mod people;
mod push;
mod quotas;
mod routes;
mod run;
mod security;
mod services;
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
use crate::manifest;
use crate::printer::Printer;
use crate::settings::{Named, Settings, SettingsFile};
use crate::under_way::UnderWay;

pub(crate) use names::closest;
pub(crate) use variables::{is_variable, unusual_variable};

/// What a command gets from outside.
#[derive(Clone)]
pub(crate) struct World {
    /// Variables, directories, prompts.
    pub(crate) environment: Environment,
    /// `ORG/SPACE` for this command only.
    pub(crate) place: Option<String>,
    /// Where what goes on without this program is noted.
    pub(crate) under_way: UnderWay,
}

/// What every command has at hand.
pub(crate) struct Session {
    pub(crate) environment: Environment,
    pub(crate) printer: Arc<Printer>,
    pub(crate) file: SettingsFile,
    pub(crate) settings: Settings,
    pub(crate) under_way: UnderWay,
    client: Option<Client>,
}

impl Session {
    /// The stored login with its target, another one when that is asked for.
    pub(crate) fn open(world: World, printer: Arc<Printer>) -> Result<Self, CliError> {
        let World { environment, place: _, under_way } = world;
        let file = SettingsFile::of(&environment)?;
        let settings = file.load()?;
        let logged_in = !settings.access_token.0.is_empty() && !settings.api.is_empty();
        let client = if logged_in { Some(Client::open(&settings, file.clone(), Arc::clone(&printer))?) } else { None };
        Ok(Self { environment, printer, file, settings, under_way, client })
    }

    /// Works on another org and space than the stored ones, for this command only.
    async fn retarget(&mut self, place: Option<String>) -> Result<(), CliError> {
        let named = place.or_else(|| self.environment.variable("SLIPWAY_TARGET").map(str::to_owned));
        let Some(place) = named else { return Ok(()) };
        let (org, space) = names::split_place(&place)?;
        let org = self.org_named(org).await?;
        self.settings.space = match space {
            Some(space) => Some(self.space_named(&org, space).await?.into()),
            None => None,
        };
        self.settings.org = Some(org.into());
        Ok(())
    }

    /// The name of the app that is meant: the one given, else the one of the manifest or of the directory.
    pub(crate) fn app_name(&self, given: Option<String>) -> Result<String, CliError> {
        match given {
            Some(name) => Ok(name),
            None => Ok(manifest::default_name(&self.environment)?),
        }
    }

    /// The app that is meant, see [`app_name`](Self::app_name).
    pub(crate) async fn app_or_default(&self, given: Option<String>) -> Result<App, CliError> {
        self.space()?;
        let is_given = given.is_some();
        let name = self.app_name(given)?;
        match self.app(&name).await {
            Err(CliError::Missing { kind, name, place }) if !is_given => {
                let place =
                    format!("{place}; the name is that of the manifest or the directory here, as none was given");
                Err(CliError::Missing { kind, name, place })
            }
            other => other,
        }
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
        let found: Vec<App> = self.client()?.list_as(&path).await?;
        if let Some(app) = found.into_iter().next() {
            return Ok(app);
        }
        let path = query("/v3/apps", &[("space_guids", &space.guid), ("per_page", "1000"), ("page", "1")]);
        // A suggestion that cannot be made is not worth another error.
        let all: Vec<App> = self.client()?.list_as(&path).await.unwrap_or_default();
        let meant = names::closest(name, all.iter().map(|app| app.name.as_str()));
        let meant = meant.map(|meant| format!(" (did you mean '{meant}'?)")).unwrap_or_default();
        let place = format!(" in space '{}'{meant}", space.name);
        Err(CliError::Missing { kind: "App", name: name.to_owned(), place })
    }

    /// Asks before something is lost. `consequence` is a sentence that says what happens then.
    async fn confirm(&self, force: bool, consequence: &str) -> Result<(), CliError> {
        if force {
            return Ok(());
        }
        let asked = self.environment.ask(false, &format!("{consequence} Go on? [y/N] ")).await;
        let answer = match asked {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(CliError::NeedsForce { consequence: consequence.to_owned() });
            }
            other => other.map_err(CliError::Prompt)?,
        };
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

/// A number for people: `1 route`, `2 routes`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Does a command.
pub(crate) async fn dispatch(command: DeveloperCommand, world: World, printer: Arc<Printer>) -> Result<Exit, CliError> {
    use DeveloperCommand as C;
    let place = world.place.clone();
    if let C::Login(mut args) = command {
        args.at = place;
        return account::login(args, world.environment, printer).await.map(|()| Exit::Success);
    }
    let mut session = Session::open(world, printer)?;
    if !matches!(command, C::Logout) {
        session.retarget(place).await?;
    }
    let session = session;
    match command {
        C::Login(_) => {}
        C::Logout => account::logout(&session).await?,
        C::Target(args) => account::target(&session, args).await?,
        C::Passwd => people::passwd(&session).await?,
        C::Push(args) => Box::pin(push::push(&session, &args)).await?,
        C::Apps(args) => apps::apps(&session, args).await?,
        C::App(args) => apps::app(&session, args.name).await?,
        C::Scale(args) => apps::scale(&session, args).await?,
        C::Rename(args) => app_settings::rename(&session, args).await?,
        C::Delete(args) => apps::delete(&session, args).await?,
        C::SetHealthCheck(args) => app_settings::set_health_check(&session, args).await?,
        C::CreateAppManifest(args) => app_settings::create_manifest(&session, args).await?,
        C::Start(args) => Box::pin(lifecycle::start(&session, args.name)).await?,
        C::Stop(args) => lifecycle::stop(&session, args.name).await?,
        C::Restart(args) => Box::pin(lifecycle::restart(&session, args)).await?,
        C::Restage(args) => Box::pin(lifecycle::restage(&session, args)).await?,
        C::RestartAppInstance(args) => lifecycle::restart_instance(&session, args).await?,
        C::Logs(args) => logs::logs(&session, args).await?,
        C::Events(args) => events::events(&session, args).await?,
        C::Run(args) => return Box::pin(run::run(&session, args)).await,
        C::RunTask(args) => return Box::pin(tasks::run(&session, args)).await,
        C::Tasks(args) => tasks::tasks(&session, args.name).await?,
        C::TerminateTask(args) => tasks::terminate(&session, args).await?,
        C::Revisions(args) => deployments::revisions(&session, args.name).await?,
        C::Rollback(args) => Box::pin(deployments::rollback(&session, args)).await?,
        C::CancelDeployment(args) => Box::pin(deployments::cancel(&session, args.name)).await?,
        C::ContinueDeployment(args) => Box::pin(deployments::proceed(&session, args.name)).await?,
        C::Env(args) => variables::env(&session, args.name).await?,
        C::SetEnv(args) => variables::set(&session, args).await?,
        C::UnsetEnv(args) => variables::unset(&session, args).await?,
        C::EnvGroup(args) => variables::group(&session, args).await?,
        C::SetEnvGroup(args) => variables::set_group(&session, args).await?,
        C::Routes => routes::routes(&session).await?,
        C::CreateRoute(args) => routes::create(&session, args).await?,
        C::MapRoute(args) => routes::map(&session, args).await?,
        C::UnmapRoute(args) => routes::unmap(&session, args).await?,
        C::DeleteRoute(args) => routes::delete(&session, args).await?,
        C::DeleteOrphanedRoutes(args) => routes::delete_orphaned(&session, args.force).await?,
        C::Domains => domains::domains(&session).await?,
        C::CreateDomain(args) => domains::create(&session, args).await?,
        C::DeleteDomain(args) => domains::delete(&session, args).await?,
        C::ShareDomain(args) => domains::share(&session, args, true).await?,
        C::UnshareDomain(args) => domains::share(&session, args, false).await?,
        C::Services => services::services(&session).await?,
        C::Service(args) => services::service(&session, &args.name).await?,
        C::CreateUserProvidedService(args) => services::create(&session, args).await?,
        C::UpdateUserProvidedService(args) => services::update(&session, args).await?,
        C::DeleteService(args) => services::delete(&session, args).await?,
        C::BindService(args) => services::bind(&session, args).await?,
        C::UnbindService(args) => services::unbind(&session, args).await?,
        C::BindRouteService(args) => services::bind_route(&session, args).await?,
        C::UnbindRouteService(args) => services::unbind_route(&session, args).await?,
        C::Orgs => account::orgs(&session).await?,
        C::Org(args) => orgs::org(&session, &args.name).await?,
        C::CreateOrg(args) => account::create_org(&session, args).await?,
        C::RenameOrg(args) => orgs::rename_org(&session, args).await?,
        C::DeleteOrg(args) => orgs::delete_org(&session, args).await?,
        C::Spaces => account::spaces(&session).await?,
        C::Space(args) => orgs::space(&session, &args.name).await?,
        C::CreateSpace(args) => account::create_space(&session, args).await?,
        C::RenameSpace(args) => orgs::rename_space(&session, args).await?,
        C::DeleteSpace(args) => orgs::delete_space(&session, args).await?,
        C::Users => people::users(&session).await?,
        C::CreateUser(args) => people::create(&session, args).await?,
        C::DeleteUser(args) => people::delete(&session, args).await?,
        C::Roles => people::roles(&session).await?,
        C::SetRole(args) => people::set_role(&session, args).await?,
        C::UnsetRole(args) => people::unset_role(&session, args).await?,
        C::Buildpacks => buildpacks::buildpacks(&session).await?,
        C::CreateBuildpack(args) => buildpacks::create(&session, args).await?,
        C::UpdateBuildpack(args) => buildpacks::update(&session, args).await?,
        C::DeleteBuildpack(args) => buildpacks::delete(&session, args).await?,
        C::Stacks => buildpacks::stacks(&session).await?,
        C::ClearCache(args) => buildpacks::clear_cache(&session, args).await?,
        C::Quotas => quotas::quotas(&session).await?,
        C::CreateQuota(args) => quotas::create(&session, args).await?,
        C::UpdateQuota(args) => quotas::update(&session, args).await?,
        C::DeleteQuota(args) => quotas::delete(&session, args).await?,
        C::SetQuota(args) => quotas::set(&session, args).await?,
        C::SecurityGroups => security::groups(&session).await?,
        C::SecurityGroup(args) => security::group(&session, &args.name).await?,
        C::CreateSecurityGroup(args) => security::create(&session, args).await?,
        C::UpdateSecurityGroup(args) => security::update(&session, args).await?,
        C::DeleteSecurityGroup(args) => security::delete(&session, args).await?,
        C::BindSecurityGroup(args) => security::bind(&session, args, true).await?,
        C::UnbindSecurityGroup(args) => security::bind(&session, args, false).await?,
        C::FeatureFlags => flags::flags(&session).await?,
        C::SetFeatureFlag(args) => flags::set(&session, args).await?,
        C::Curl(args) => curl::curl(&session, args).await?,
    }
    Ok(Exit::Success)
}
