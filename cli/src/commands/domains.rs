//! Domains.

use reqwest::Method;
use serde_json::{Value, json};

use super::names::gone;
use super::{Session, text};
use crate::args::{DeleteNamedArgs, DomainArgs, ShareDomainArgs};
use crate::client::Body;
use crate::error::CliError;

pub(super) async fn domains(session: &Session) -> Result<(), CliError> {
    let org = session.org()?;
    let list = session.client()?.list(&format!("/v3/organizations/{}/domains", org.guid)).await?;
    let row = |domain: &Value| {
        let owner = text(domain, "/relationships/organization/data/guid");
        let kind = if owner.is_empty() { "shared" } else { "private" };
        let internal = if domain.get("internal").and_then(Value::as_bool) == Some(true) { "internal" } else { "" };
        vec![text(domain, "/name"), kind.to_owned(), internal.to_owned()]
    };
    let empty = "There are no domains. Make one: `slipway create-domain DOMAIN`";
    session.show(list, &["name", "availability", "internal"], row, empty)
}

pub(super) async fn create(session: &Session, args: DomainArgs) -> Result<(), CliError> {
    let client = session.client()?;
    let mut body = json!({ "name": args.name });
    let whose = if args.shared {
        "all orgs".to_owned()
    } else {
        let org = session.org()?;
        body["relationships"] = json!({ "organization": { "data": { "guid": org.guid } } });
        format!("org '{}'", org.name)
    };
    client.send(Method::POST, "/v3/domains", Body::Json(body)).await?;
    session.printer.say(&format!(
        "Domain '{0}' is there for {whose}. Let it lead to an app: `slipway map-route APP {0} -n HOST`; its DNS must lead to \
         this platform.",
        args.name
    ));
    Ok(())
}

pub(super) async fn delete(session: &Session, args: DeleteNamedArgs) -> Result<(), CliError> {
    let Some(domain) = gone(session, session.domain_named(&args.name).await)? else { return Ok(()) };
    session.confirm(args.force, &format!("This deletes the domain '{}' and all its routes.", domain.name)).await?;
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("/v3/domains/{}", domain.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("Domain '{}' is deleted.", domain.name));
    Ok(())
}

pub(super) async fn share(session: &Session, args: ShareDomainArgs, shared: bool) -> Result<(), CliError> {
    let (domain, org) = (session.domain_named(&args.name).await?, session.org_named(&args.org).await?);
    let path = format!("/v3/domains/{}/relationships/shared_organizations", domain.guid);
    let client = session.client()?;
    if shared {
        let body = json!({ "data": [{ "guid": org.guid }] });
        client.send(Method::POST, &path, Body::Json(body)).await?;
        session.printer.say(&format!("Org '{}' may use the domain '{}'.", org.name, domain.name));
    } else {
        client.send(Method::DELETE, &format!("{path}/{}", org.guid), Body::None).await?;
        session.printer.say(&format!("Org '{}' may use the domain '{}' no longer.", org.name, domain.name));
    }
    Ok(())
}
