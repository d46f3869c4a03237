//! Quotas of orgs and spaces.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::names::gone;
use super::{Session, text};
use crate::args::{DeleteQuotaArgs, QuotaArgs, QuotaLimits, SetQuotaArgs};
use crate::client::views::NamedResource;
use crate::client::{Body, query};
use crate::error::CliError;
use crate::settings::Named;
use crate::size::{human, parse_bytes, parse_mib};

const OF_ORGS: &str = "/v3/organization_quotas";
const OF_SPACES: &str = "/v3/space_quotas";

pub(super) async fn quotas(session: &Session) -> Result<(), CliError> {
    let client = session.client()?;
    let mut list = client.list(&format!("{OF_ORGS}?per_page=5000")).await?;
    let mut places: Vec<String> = list.iter().map(|_| "orgs".to_owned()).collect();
    if let Some(org) = &session.settings.org {
        let path = query(OF_SPACES, &[("organization_guids", org.guid.as_str()), ("per_page", "5000")]);
        let of_spaces = client.list(&path).await?;
        places.extend(of_spaces.iter().map(|_| format!("spaces of {}", org.name)));
        list.extend(of_spaces);
    }
    for (quota, place) in list.iter_mut().zip(places) {
        quota["of"] = place.into();
    }
    let row = |quota: &Value| {
        let size = |pointer: &str| match quota.pointer(pointer).and_then(Value::as_u64) {
            Some(mib) => human(mib << 20),
            None => "unlimited".to_owned(),
        };
        let number = |pointer: &str| match text(quota, pointer) {
            none if none.is_empty() => "unlimited".to_owned(),
            some => some,
        };
        vec![
            text(quota, "/name"),
            text(quota, "/of"),
            size("/apps/total_memory_in_mb"),
            size("/apps/per_process_memory_in_mb"),
            number("/apps/total_instances"),
            number("/routes/total_routes"),
            number("/services/total_service_instances"),
        ]
    };
    let header = ["name", "for", "memory", "per instance", "instances", "routes", "services"];
    session.show(list, &header, row, "There are no quotas.")
}

/// The limits that the flags give, as members of a request.
fn limits(limits: &QuotaLimits, of_spaces: bool) -> Result<Value, CliError> {
    let mut body = json!({});
    let mut put = |part: &str, key: &str, value: Value| body[part][key] = value;
    let unlimited = |text: &str| matches!(text, "unlimited" | "-1");
    for (key, given) in [("total_memory_in_mb", &limits.memory), ("per_process_memory_in_mb", &limits.instance_memory)]
    {
        match given.as_deref() {
            None => {}
            Some(text) if unlimited(text) => put("apps", key, Value::Null),
            Some(text) => put("apps", key, parse_mib(text, 1)?.into()),
        }
    }
    match limits.log_rate.as_deref() {
        None => {}
        Some(text) if unlimited(text) => put("apps", "log_rate_limit_in_bytes_per_second", Value::Null),
        Some(text) => put("apps", "log_rate_limit_in_bytes_per_second", parse_bytes(text)?.into()),
    }
    for (part, key, given) in [
        ("apps", "total_instances", &limits.app_instances),
        ("apps", "per_app_tasks", &limits.app_tasks),
        ("routes", "total_routes", &limits.routes),
        ("services", "total_service_instances", &limits.services),
        ("domains", "total_domains", &limits.domains),
    ] {
        let Some(text) = given.as_deref() else { continue };
        if part == "domains" && of_spaces {
            return Err(CliError::Usage {
                message: "A quota for spaces does not limit domains.".to_owned(),
                hint: "Leave --domains out.".to_owned(),
            });
        }
        if unlimited(text) {
            put(part, key, Value::Null);
            continue;
        }
        let number: u32 = text.parse().map_err(|_| CliError::Usage {
            message: format!("'{text}' is neither a whole number nor 'unlimited'."),
            hint: "Write a number, such as 10, or unlimited.".to_owned(),
        })?;
        put(part, key, number.into());
    }
    Ok(body)
}

/// The quota that a name means.
async fn find(session: &Session, name: &str, org: Option<&Named>) -> Result<NamedResource, CliError> {
    match org {
        None => session.named("Quota", OF_ORGS, name, &[], "").await,
        Some(org) => {
            let place = format!(" for spaces of org '{}'", org.name);
            session.named("Quota", OF_SPACES, name, &[("organization_guids", &org.guid)], &place).await
        }
    }
}

/// Path of the quotas that a command means, and the org whose spaces they are for.
fn which(session: &Session, of_spaces: bool) -> Result<(&'static str, Option<&Named>), CliError> {
    if of_spaces { Ok((OF_SPACES, Some(session.org()?))) } else { Ok((OF_ORGS, None)) }
}

pub(super) async fn create(session: &Session, args: QuotaArgs) -> Result<(), CliError> {
    let mut body = limits(&args.limits, args.space)?;
    let (path, org) = which(session, args.space)?;
    body["name"] = args.name.as_str().into();
    if let Some(org) = org {
        body["relationships"] = json!({ "organization": { "data": { "guid": org.guid } } });
    }
    session.client()?.send(Method::POST, path, Body::Json(body)).await?;
    let place = org.map_or_else(|| "ORG".to_owned(), |org| format!("{}/SPACE", org.name));
    session.printer.say(&format!(
        "Quota '{0}' is made. What is not given is unlimited. Use it: `slipway set-quota {place} {0}`",
        args.name
    ));
    Ok(())
}

pub(super) async fn update(session: &Session, args: QuotaArgs) -> Result<(), CliError> {
    let body = limits(&args.limits, args.space)?;
    let (path, org) = which(session, args.space)?;
    let quota = find(session, &args.name, org).await?;
    if body.as_object().is_some_and(Map::is_empty) {
        session.printer.say(&format!("Nothing of quota '{}' is to be changed; nothing was done.", quota.name));
        return Ok(());
    }
    session.client()?.send(Method::PATCH, &format!("{path}/{}", quota.guid), Body::Json(body)).await?;
    session.printer.say(&format!("Quota '{}' is changed. It holds for what is started from now on.", quota.name));
    Ok(())
}

pub(super) async fn delete(session: &Session, args: DeleteQuotaArgs) -> Result<(), CliError> {
    let (path, org) = which(session, args.space)?;
    let Some(quota) = gone(session, find(session, &args.name, org).await)? else { return Ok(()) };
    session.confirm(args.force, &format!("This deletes the quota '{}'.", quota.name)).await?;
    let client = session.client()?;
    let answer = client.send(Method::DELETE, &format!("{path}/{}", quota.guid), Body::None).await?;
    client.finish(&answer).await?;
    session.printer.say(&format!("Quota '{}' is deleted.", quota.name));
    Ok(())
}

pub(super) async fn set(session: &Session, args: SetQuotaArgs) -> Result<(), CliError> {
    let (org, space) = session.place(Some(&args.at)).await?;
    let client = session.client()?;
    let Some(space) = space else {
        let quota = find(session, &args.quota, None).await?;
        let body = Body::Json(json!({ "data": [{ "guid": org.guid }] }));
        client.send(Method::POST, &format!("{OF_ORGS}/{}/relationships/organizations", quota.guid), body).await?;
        session.printer.say(&format!("Org '{}' is under the quota '{}'.", org.name, quota.name));
        return Ok(());
    };
    let written = format!("{}/{}", org.name, space.name);
    if args.quota == "none" {
        let whole: Value = client.get(&format!("/v3/spaces/{}", space.guid)).await?;
        let guid = text(&whole, "/relationships/quota/data/guid");
        if guid.is_empty() {
            session.printer.say(&format!("Space '{written}' is under no quota of its own; nothing was done."));
            return Ok(());
        }
        client
            .send(Method::DELETE, &format!("{OF_SPACES}/{guid}/relationships/spaces/{}", space.guid), Body::None)
            .await?;
        session.printer.say(&format!("Space '{written}' is under no quota of its own any more."));
        return Ok(());
    }
    let quota = find(session, &args.quota, Some(&org)).await?;
    let body = Body::Json(json!({ "data": [{ "guid": space.guid }] }));
    client.send(Method::POST, &format!("{OF_SPACES}/{}/relationships/spaces", quota.guid), body).await?;
    session.printer.say(&format!("Space '{written}' is under the quota '{}'.", quota.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_the_flags_say_and_no_more() {
        let some = |text: &str| Some(text.to_owned());
        let flags =
            QuotaLimits { memory: some("10G"), routes: some("unlimited"), app_tasks: some("3"), ..Default::default() };
        assert_eq!(
            limits(&flags, false).expect("limits"),
            json!({ "apps": { "total_memory_in_mb": 10240, "per_app_tasks": 3 }, "routes": { "total_routes": null } })
        );
        assert_eq!(limits(&QuotaLimits::default(), false).expect("limits"), json!({}));
        for bad in [
            QuotaLimits { routes: some("many"), ..Default::default() },
            QuotaLimits { memory: some("10"), ..Default::default() },
            QuotaLimits { domains: some("1"), ..Default::default() },
        ] {
            assert!(limits(&bad, true).is_err(), "{bad:?}");
        }
    }
}
