//! What the platform offers: buildpacks and stacks.

use serde_json::Value;

use super::{Session, text};
use crate::error::CliError;

pub(super) async fn buildpacks(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/buildpacks").await?;
    let row = |buildpack: &Value| {
        ["position", "name", "stack", "enabled", "locked", "filename"]
            .map(|key| text(buildpack, &format!("/{key}")))
            .to_vec()
    };
    session.show(list, &["position", "name", "stack", "enabled", "locked", "file"], row, "There are no buildpacks.")
}

pub(super) async fn stacks(session: &Session) -> Result<(), CliError> {
    let list = session.client()?.list("/v3/stacks").await?;
    let row = |stack: &Value| vec![text(stack, "/name"), text(stack, "/description")];
    session.show(list, &["name", "description"], row, "There are no stacks.")
}
