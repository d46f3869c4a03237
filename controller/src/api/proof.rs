//! "Done" means that the routers have it: waiting for them after a commit, and saying so when they lag.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderName, HeaderValue};
use slipway_protocol::v1::Version;

use crate::context::{Context, Proof};

/// Long enough for a router that is busy, short enough for a person.
const LIMIT: Duration = Duration::from_secs(2);
const WARNINGS: HeaderName = HeaderName::from_static("x-cf-warnings");

/// Waits until every live router has this version in force, and adds a warning to the
/// answer when that cannot be said. The change itself stands either way.
pub async fn prove(context: &Context, version: Version, mut response: Response) -> Response {
    let warning = match context.routers.wait_applied(version, LIMIT).await {
        Proof::Applied => return response,
        Proof::Lagging(routers) => {
            format!("The change is stored, but not yet in force at: {}.", routers.join(", "))
        }
        Proof::NoRouter => {
            "The change is stored, but no router is connected: nothing is served until one is.".to_owned()
        }
    };
    warn(&mut response, &warning);
    response
}

/// As [`prove`], unless there is no version for routers to have.
pub(super) async fn prove_if_routed(context: &Context, version: Option<Version>, response: Response) -> Response {
    match version {
        Some(version) => prove(context, version, response).await,
        None => response,
    }
}

/// Adds a warning that clients print. URL-encoded: clients split at commas and decode the rest.
pub fn warn(response: &mut Response, text: &str) {
    let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        response.headers_mut().append(WARNINGS, value);
    }
}
