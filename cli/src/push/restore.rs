//! Sets an app's sizes back when a push of it fails: the manifest is applied before anything is built, and an app that goes on
//! with its old version must not get the memory of the new one at its next restart.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value};

use super::processes;
use crate::client::views::{App, Process};
use crate::client::{Body, Client};
use crate::commands::Session;
use crate::error::CliError;
use crate::size::human;

/// While a deployment is being cancelled the platform refuses other sizes, with this code
/// (`CF-ScaleDisabledDuringDeployment`).
const DEPLOYING: u32 = 390_016;
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// An app before its manifest was applied, and right after it.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) app: App,
    before: Vec<Process>,
    applied: Vec<Process>,
    /// What else the manifest changes, for people.
    pub(crate) others: Vec<String>,
}

/// One process whose sizes are other ones now.
struct Changed {
    guid: String,
    /// What to send.
    body: Map<String, Value>,
    /// `web memory 300M → 128M`.
    words: Vec<String>,
    /// `-p worker -m 128M`.
    flags: String,
}

/// A size that processes have.
struct Size {
    /// As the API has it.
    key: &'static str,
    word: &'static str,
    /// Of `scale`.
    flag: &'static str,
    of: fn(&Process) -> u64,
    /// For people.
    shown: fn(u64) -> String,
    /// What `scale` wants behind the number.
    unit: &'static str,
}

const ALL: [Size; 3] = [
    Size {
        key: "instances",
        word: "instances",
        flag: "-i",
        of: |one| one.instances as u64,
        shown: |count| count.to_string(),
        unit: "",
    },
    Size {
        key: "memory_in_mb",
        word: "memory",
        flag: "-m",
        of: |one| one.memory_in_mb,
        shown: |mib| human(mib << 20),
        unit: "M",
    },
    Size {
        key: "disk_in_mb",
        word: "disk",
        flag: "-k",
        of: |one| one.disk_in_mb,
        shown: |mib| human(mib << 20),
        unit: "M",
    },
];

impl Sizes {
    /// As they are now.
    pub(crate) async fn of(client: &Client, app: &App) -> Result<Self, CliError> {
        let before = processes(client, app).await?;
        Ok(Self { app: app.clone(), before, applied: Vec::new(), others: Vec::new() })
    }

    /// Notes what applying the manifest has made of them.
    pub(crate) async fn applied(&mut self, client: &Client) -> Result<(), CliError> {
        self.applied = processes(client, &self.app).await?;
        Ok(())
    }

    /// Sets back what the manifest has changed and nobody since, and says so, or says what stays and how to change it.
    pub(crate) async fn set_back(&self, session: &Session) -> Result<(), CliError> {
        let client = session.client()?;
        let same = |all: &[Process], one: &Process| all.iter().find(|other| other.guid == one.guid).cloned();
        let changed = self
            .before
            .iter()
            .any(|old| same(&self.applied, old).is_some_and(|applied| difference(old, &applied, &applied).is_some()));
        let now = if changed { processes(client, &self.app).await? } else { Vec::new() };
        let (mut done, mut stays) = (Vec::new(), Vec::new());
        for old in &self.before {
            let both = same(&self.applied, old).zip(same(&now, old));
            let Some(changed) = both.and_then(|(applied, now)| difference(old, &applied, &now)) else { continue };
            match scale(client, &changed).await {
                Ok(()) => done.extend(changed.words),
                Err(_) => stays.push(changed.flags),
            }
        }
        let name = &self.app.name;
        if !done.is_empty() {
            session.printer.say(&format!("Set back for '{name}': {}.", done.join(", ")));
        }
        for flags in stays {
            session.printer.say(&format!(
                "'{name}' keeps the sizes of this push from its next start on; `slipway scale {name} {flags}` sets them \
                 back, which restarts it when memory or disk are among them."
            ));
        }
        if !self.others.is_empty() {
            session.printer.say(&format!("'{name}' keeps from this push: {}.", self.others.join(", ")));
        }
        Ok(())
    }
}

/// What to do so that a process is as `old` again where the manifest made it `applied` and it is so `now`; nothing when it is.
fn difference(old: &Process, applied: &Process, now: &Process) -> Option<Changed> {
    let (mut body, mut words, mut flags) = (Map::new(), Vec::new(), String::new());
    if old.kind != "web" {
        flags = format!("-p {} ", old.kind);
    }
    for size in &ALL {
        let (was, by_manifest) = ((size.of)(old), (size.of)(applied));
        if was != by_manifest && by_manifest == (size.of)(now) {
            body.insert(size.key.to_owned(), was.into());
            words.push(format!("{} {} {} → {}", old.kind, size.word, (size.shown)(by_manifest), (size.shown)(was)));
            flags.push_str(&format!("{} {was}{} ", size.flag, size.unit));
        }
    }
    (!body.is_empty()).then(|| Changed { guid: old.guid.clone(), body, words, flags: flags.trim_end().to_owned() })
}

async fn scale(client: &Client, changed: &Changed) -> Result<(), CliError> {
    let path = format!("/v3/processes/{}/actions/scale", changed.guid);
    let mut tried = 0;
    loop {
        tried += 1;
        match client.send(Method::POST, &path, Body::Json(Value::Object(changed.body.clone()))).await {
            Ok(_) => return Ok(()),
            Err(error) if tried >= TRIES || !error.has_code(DEPLOYING) => return Err(error.into()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_set_back_and_nothing_else() {
        let process = |kind: &str, instances: u32, memory: u64| -> Process {
            serde_json::from_value(json!({ "guid": "p", "type": kind, "instances": instances, "memory_in_mb": memory,
                                           "disk_in_mb": 1024 }))
            .expect("a process")
        };
        let (old, applied) = (process("worker", 1, 1536), process("worker", 2, 3000));
        let changed = difference(&old, &applied, &applied).expect("it differs");
        assert_eq!(Value::Object(changed.body), json!({ "instances": 1, "memory_in_mb": 1536 }));
        assert_eq!(changed.words, ["worker instances 2 → 1", "worker memory 2.9G → 1.5G"]);
        assert_eq!(changed.flags, "-p worker -i 1 -m 1536M");
        let scaled_since = difference(&old, &applied, &process("worker", 9, 3000)).expect("the memory differs");
        assert_eq!(Value::Object(scaled_since.body), json!({ "memory_in_mb": 1536 }));
        assert!(difference(&old, &old, &applied).is_none(), "the manifest has not changed it");
    }
}
