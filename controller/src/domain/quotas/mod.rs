//! Making, changing, deleting and applying quotas, of organizations and of spaces.

pub(crate) mod organization;
pub(crate) mod space;

use uuid::Uuid;

use super::names::shown;

/// The guids that are valid, each once, and those that are not, as they stand in a refusal.
fn split(written: &[String]) -> (Vec<Uuid>, Vec<String>) {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for text in written {
        match text.parse::<Uuid>() {
            Ok(guid) if !good.contains(&guid) => good.push(guid),
            Ok(_) => {}
            Err(_) => bad.push(shown(text)),
        }
    }
    (good, bad)
}

/// `["a", "b"]`, as Cloud Foundry writes lists into its texts.
fn quoted(guids: &[String]) -> String {
    let quoted: Vec<String> = guids.iter().map(|guid| format!("\"{guid}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
