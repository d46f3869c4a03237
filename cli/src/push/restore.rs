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

/// While a deployment is being cancelled the platform refuses other sizes.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// An app before its manifest was applied.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    app: App,
    processes: Vec<Process>,
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

impl Sizes {
    /// As they are now.
    pub(crate) async fn of(client: &Client, app: &App) -> Result<Self, CliError> {
        Ok(Self { app: app.clone(), processes: processes(client, app).await?, others: Vec::new() })
    }

    /// Sets back what differs now and says so, or says what stays and how to change it.
    pub(crate) async fn set_back(&self, session: &Session) -> Result<(), CliError> {
        let client = session.client()?;
        let now = processes(client, &self.app).await?;
        let (mut done, mut stays) = (Vec::new(), Vec::new());
        for old in &self.processes {
            let Some(changed) = now.iter().find(|new| new.guid == old.guid).and_then(|new| difference(old, new)) else {
                continue;
            };
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
                "'{name}' keeps the sizes of this push from its next start on; `slipway scale {name} {flags}` sets them back."
            ));
        }
        if !self.others.is_empty() {
            session.printer.say(&format!("'{name}' keeps from this push: {}.", self.others.join(", ")));
        }
        Ok(())
    }
}

/// What to do so that `new` is as `old`; nothing when it is.
fn difference(old: &Process, new: &Process) -> Option<Changed> {
    let (mut body, mut words, mut flags) = (Map::new(), Vec::new(), String::new());
    if old.kind != "web" {
        flags = format!("-p {} ", old.kind);
    }
    let mut add = |key: &str, word: &str, flag: &str, was: (u64, String), is: (u64, String)| {
        if was.0 != is.0 {
            body.insert(key.to_owned(), was.0.into());
            words.push(format!("{} {word} {} → {}", old.kind, is.1, was.1));
            flags.push_str(&format!("{flag} {} ", was.1));
        }
    };
    let count = |process: &Process| (u64::from(process.instances), process.instances.to_string());
    let size = |mib: u64| (mib, human(mib << 20));
    add("instances", "instances", "-i", count(old), count(new));
    add("memory_in_mb", "memory", "-m", size(old.memory_in_mb), size(new.memory_in_mb));
    add("disk_in_mb", "disk", "-k", size(old.disk_in_mb), size(new.disk_in_mb));
    (!body.is_empty()).then(|| Changed { guid: old.guid.clone(), body, words, flags: flags.trim_end().to_owned() })
}

async fn scale(client: &Client, changed: &Changed) -> Result<(), CliError> {
    let path = format!("/v3/processes/{}/actions/scale", changed.guid);
    let mut tried = 0;
    loop {
        tried += 1;
        match client.send(Method::POST, &path, Body::Json(Value::Object(changed.body.clone()))).await {
            Ok(_) => return Ok(()),
            Err(error) if tried >= TRIES || !error.has_status(422) => return Err(error.into()),
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
        let changed = difference(&process("worker", 1, 128), &process("worker", 2, 300)).expect("it differs");
        assert_eq!(Value::Object(changed.body), json!({ "instances": 1, "memory_in_mb": 128 }));
        assert_eq!(changed.words, ["worker instances 2 → 1", "worker memory 300M → 128M"]);
        assert_eq!(changed.flags, "-p worker -i 1 -m 128M");
        assert!(difference(&process("web", 1, 128), &process("web", 1, 128)).is_none());
    }
}
