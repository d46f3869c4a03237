//! Logging in and out; orgs and spaces.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use url::Url;

use super::names::split_place;
use super::{Session, text};
use crate::args::{CreateOrgArgs, CreateSpaceArgs, LoginArgs, TargetArgs};
use crate::client::views::NamedResource;
use crate::client::{Body, Client, ClientError, api_url, discover, identity, query};
use crate::environment::Environment;
use crate::error::CliError;
use crate::printer::Printer;
use crate::settings::{Named, Secret, Settings, SettingsFile};

/// Passwords asked for before giving up, as the `cf` command line does it.
const TRIES: u32 = 3;

impl From<NamedResource> for Named {
    fn from(thing: NamedResource) -> Self {
        Self { guid: thing.guid, name: thing.name }
    }
}

pub(super) async fn login(args: LoginArgs, environment: Environment, printer: Arc<Printer>) -> Result<(), CliError> {
    let file = SettingsFile::of(&environment)?;
    // A damaged login is no obstacle: this command replaces it.
    let old = file.load().unwrap_or_default();
    let stored = Some(old.api.clone()).filter(|api| !api.is_empty());
    let given = args.api.or(args.address);
    let address = given.or(stored).unwrap_or_else(|| environment.default_api.clone());
    let api = api_url(&address)?;
    let mut settings = Settings {
        api: api.as_str().trim_end_matches('/').to_owned(),
        skip_ssl_validation: args.skip_ssl_validation,
        ca: authority(&environment)?,
        localhost: args.listens_at,
        ..Settings::default()
    };
    // The authority of an earlier login stays good for the same platform.
    if settings.ca.is_none() && settings.api == old.api {
        settings.ca = old.ca;
    }
    if settings.localhost.is_none() && settings.api == old.api {
        settings.localhost = old.localhost;
    }
    let platform = match discover(&api, &settings).await {
        // Who waited for one address shall not wait for another one that was not typed.
        Err(ClientError::Unreachable { address, source }) if source.is_timeout() => {
            return Err(ClientError::Unreachable { address, source }.into());
        }
        Err(error) => return Err(with_api(&api, &settings).await.unwrap_or_else(|| error.into())),
        Ok(platform) => platform,
    };
    settings.login = platform.login.as_str().trim_end_matches('/').to_owned();
    settings.log_cache = platform.log_cache.as_str().trim_end_matches('/').to_owned();

    let asks = |flag: &Option<String>, variable| flag.is_none() && environment.variable(variable).is_none();
    if asks(&args.user, "SLIPWAY_USERNAME") || asks(&args.password, "SLIPWAY_PASSWORD") {
        // Whoever types a password must see where it goes.
        printer.say(&format!("API: {}", settings.api));
    }
    let user = match args.user.or_else(|| environment.variable("SLIPWAY_USERNAME").map(str::to_owned)) {
        Some(user) => user,
        None => asked("The user name", "SLIPWAY_USERNAME", environment.ask(false, "User: ").await)?,
    };
    let given = args.password.or_else(|| environment.variable("SLIPWAY_PASSWORD").map(str::to_owned)).map(Secret);
    let tokens = match given {
        Some(password) => platform.password(&user, &password).await?,
        None => {
            let mut tries = 0;
            loop {
                tries += 1;
                let typed = asked("The password", "SLIPWAY_PASSWORD", environment.ask(true, "Password: ").await)?;
                match platform.password(&user, &Secret(typed)).await {
                    Err(error @ ClientError::BadCredentials { .. }) if tries < TRIES => {
                        printer.warn(&error.to_string())
                    }
                    other => break other?,
                }
            }
        }
    };
    settings.access_token = tokens.access;
    settings.refresh_token = tokens.refresh;
    file.save(&settings)?;
    let client = Client::open(&settings, file.clone(), Arc::clone(&printer))?;
    let at = args.at.as_deref().map(split_place).transpose()?;
    let (org, space) = at.map_or((None, None), |(org, space)| (Some(org), space));
    settings.org = choose_org(&client, args.org.as_deref().or(org)).await?;
    if let Some(org) = &settings.org {
        settings.space = choose_space(&client, org, args.space.as_deref().or(space)).await?;
    }
    let (org, space) = (settings.org.clone(), settings.space.clone());
    file.update(|stored| (stored.org, stored.space) = (org, space))?;
    show_target(&printer, &settings)
}

/// What is said of the address of a platform that is not that of its API, when `api.` before it is.
async fn with_api(api: &Url, settings: &Settings) -> Option<CliError> {
    let host = api.domain().filter(|host| !host.starts_with("api."))?;
    let mut meant = api.clone();
    meant.set_host(Some(&format!("api.{host}"))).ok()?;
    discover(&meant, settings).await.ok()?;
    Some(CliError::Usage {
        message: format!("The API of the platform is not at '{}'.", api.as_str().trim_end_matches('/')),
        hint: format!("Write `slipway login {}`.", meant.as_str().trim_end_matches('/')),
    })
}

/// An answer; without a terminal it says what is missing, and which variable would have it.
pub(super) fn asked(
    what: &'static str,
    variable: &'static str,
    answer: std::io::Result<String>,
) -> Result<String, CliError> {
    answer.map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => CliError::NobodyToAsk { what, variable },
        _ => CliError::Prompt(error),
    })
}

/// The authority named by `SLIPWAY_CA`, or else by the program; checked before it is stored.
fn authority(environment: &Environment) -> Result<Option<String>, CliError> {
    let named = environment.variable("SLIPWAY_CA").map(|path| environment.directory.join(path));
    let path: PathBuf = match (named, &environment.default_ca) {
        (Some(path), _) => path,
        (None, Some(path)) if path.is_file() => path.clone(),
        (None, _) => return Ok(None),
    };
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Authority {
        place: path.display().to_string(),
        source,
    };
    let pem = std::fs::read_to_string(&path).map_err(|error| fail(error.into()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| fail(error.into()))?;
    if certificates.is_empty() {
        return Err(fail("there is no certificate in it".into()).into());
    }
    Ok(Some(pem))
}

async fn choose_org(client: &Client, name: Option<&str>) -> Result<Option<Named>, CliError> {
    let path = match name {
        Some(name) => query("/v3/organizations", &[("names", name)]),
        None => query("/v3/organizations", &[("order_by", "name")]),
    };
    only(client.list_as(&path).await?, "Org", name, String::new())
}

async fn choose_space(client: &Client, org: &Named, name: Option<&str>) -> Result<Option<Named>, CliError> {
    let mut parameters = vec![("order_by", "name"), ("organization_guids", org.guid.as_str())];
    if let Some(name) = name {
        parameters.push(("names", name));
    }
    let place = format!(" in org '{}'", org.name);
    only(client.list_as(&query("/v3/spaces", &parameters)).await?, "Space", name, place)
}

/// The one that was named, or the only one there is.
fn only(
    found: Vec<NamedResource>,
    kind: &'static str,
    name: Option<&str>,
    place: String,
) -> Result<Option<Named>, CliError> {
    let count = found.len();
    match (found.into_iter().next(), name) {
        (Some(thing), Some(_)) => Ok(Some(thing.into())),
        (Some(thing), None) if count == 1 => Ok(Some(thing.into())),
        (None, Some(name)) => Err(CliError::Missing { kind, name: name.to_owned(), place }),
        (_, None) => Ok(None),
    }
}

pub(super) async fn logout(session: &Session) -> Result<(), CliError> {
    if let Ok(client) = session.client() {
        client.revoke().await;
    }
    session.file.update(|settings| {
        // Address and authority stay, so that the next login needs only a name and a password.
        *settings = Settings { api: std::mem::take(&mut settings.api), ca: settings.ca.take(), ..Settings::default() };
    })?;
    session.printer.say("Logged out. `slipway login` logs in again.");
    Ok(())
}

pub(super) async fn target(session: &Session, args: TargetArgs) -> Result<(), CliError> {
    let client = session.client()?;
    let mut settings = session.settings.clone();
    let (org, space) = match args.at.as_deref().map(split_place).transpose()? {
        Some((org, space)) => (Some(org.to_owned()), space.map(str::to_owned)),
        None => (args.org, args.space),
    };
    let args = TargetArgs { at: None, org, space };
    if let Some(name) = &args.org {
        settings.org = match (choose_org(client, Some(name)).await, &settings.org) {
            (Err(error @ CliError::Missing { .. }), Some(here)) if args.space.is_none() => {
                let space = choose_space(client, here, Some(name)).await;
                return Err(if matches!(space, Ok(Some(_))) { space_for_org(name, &here.name) } else { error });
            }
            (found, _) => found?,
        };
        settings.space = None;
    }
    if args.org.is_some() || args.space.is_some() {
        let org = settings.org.as_ref().ok_or(CliError::NoTarget(crate::error::Target::Org))?;
        settings.space = choose_space(client, org, args.space.as_deref()).await?;
        let (org, space) = (settings.org.clone(), settings.space.clone());
        session.file.update(|stored| (stored.org, stored.space) = (org, space))?;
    }
    show_target(&session.printer, &settings)
}

/// What is said of a space that was written where an org belongs.
fn space_for_org(name: &str, org: &str) -> CliError {
    CliError::Usage {
        message: format!("There is no org '{name}', but org '{org}' has a space of this name."),
        hint: format!("Write `slipway target -s {name}`."),
    }
}

fn show_target(printer: &Printer, settings: &Settings) -> Result<(), CliError> {
    let user = identity(&settings.access_token.0).0.unwrap_or_default();
    let (org, space) = (settings.org.as_ref(), settings.space.as_ref());
    if printer.wants_json() {
        return printer.json(&json!({ "api": settings.api, "user": user, "org": org, "space": space }));
    }
    let name = |named: Option<&Named>, hint: &str| named.map_or_else(|| hint.to_owned(), |named| named.name.clone());
    let rows = vec![
        vec!["API".to_owned(), settings.api.clone()],
        vec!["User".to_owned(), user],
        vec!["Org".to_owned(), name(org, "none: `slipway target ORG`")],
        vec!["Space".to_owned(), name(space, "none: `slipway target ORG/SPACE`")],
    ];
    printer.table(&[], rows, "")
}

pub(super) async fn orgs(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list(&query("/v3/organizations", &[("order_by", "name")])).await?;
    session.show(list, &["name"], |org| vec![text(org, "/name")], "There are no orgs.")
}

pub(super) async fn spaces(session: &Session) -> Result<(), CliError> {
    let org = session.org()?;
    let path = query("/v3/spaces", &[("order_by", "name"), ("organization_guids", &org.guid)]);
    let list = session.client()?.list(&path).await?;
    session.show(list, &["name"], |space| vec![text(space, "/name")], "There are no spaces in this org.")
}

pub(super) async fn create_org(session: &Session, args: CreateOrgArgs) -> Result<(), CliError> {
    let body = json!({ "name": args.name, "suspended": false });
    match session.client()?.send(Method::POST, "/v3/organizations", Body::Json(body)).await {
        Err(error) if error.says("already exists") => {
            session.printer.say(&format!("Org '{}' exists already.", args.name))
        }
        Err(error) => return Err(error.into()),
        Ok(_) => session.printer.say(&format!("Org '{}' is made. Target it: `slipway target {0}`", args.name)),
    }
    Ok(())
}

pub(super) async fn create_space(session: &Session, args: CreateSpaceArgs) -> Result<(), CliError> {
    let client = session.client()?;
    let org = match &args.org {
        Some(name) => choose_org(client, Some(name)).await?.ok_or_else(|| CliError::Missing {
            kind: "Org",
            name: name.clone(),
            place: String::new(),
        })?,
        None => session.org()?.clone(),
    };
    let body = json!({ "name": args.name, "relationships": { "organization": { "data": { "guid": org.guid } } } });
    let made = match client.send(Method::POST, "/v3/spaces", Body::Json(body)).await {
        Err(error) if error.says("Name must be unique per organization") => {
            session.printer.say(&format!("Space '{}' exists already.", args.name));
            return Ok(());
        }
        other => other?.json::<NamedResource>()?,
    };
    // Its maker shall be able to push to it at once.
    if let Some(user) = identity(&session.settings.access_token.0).1 {
        for (role, place, guid) in [
            ("organization_user", "organization", &org.guid),
            ("space_manager", "space", &made.guid),
            ("space_developer", "space", &made.guid),
        ] {
            let mut body = json!({ "type": role, "relationships": { "user": { "data": { "guid": user } } } });
            body["relationships"][place] = json!({ "data": { "guid": guid } });
            match client.send(Method::POST, "/v3/roles", Body::Json(body)).await {
                Ok(_) => {}
                // Has it already, or may not give roles in the org and needs none there.
                Err(error) if error.says("already has") || (error.has_status(403) && place == "organization") => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    session
        .printer
        .say(&format!("Space '{0}' of org '{1}' is made. Target it: `slipway target {1}/{0}`", args.name, org.name));
    Ok(())
}
