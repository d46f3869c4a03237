//! Sets an app's sizes back when a push of it fails: the manifest is applied before anything is built, and an app that goes on
//! with its old version must not get the memory of the new one at its next restart. A canary may be given up long after its
//! push has ended, by somebody else: its deployment carries a note of the sizes.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::processes;
use crate::client::views::{App, Deployment, Process};
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
    /// Nothing until it was read: what is there then counts as what the manifest made.
    applied: Option<Vec<Process>>,
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

/// Annotation of a deployment: what its push made of the sizes.
const NOTE: &str = "slipway.dev/sizes";

/// Sizes before and after a manifest by key, of each process by guid.
type Note = BTreeMap<String, BTreeMap<String, [u64; 2]>>;

/// A size that processes have.
struct Size {
    /// As the API has it.
    key: &'static str,
    word: &'static str,
    /// Of `scale`.
    flag: &'static str,
    of: fn(&Process) -> u64,
    set: fn(&mut Process, u64),
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
        of: |one| one.instances.into(),
        set: |one, count| one.instances = u32::try_from(count).unwrap_or(one.instances),
        shown: |count| count.to_string(),
        unit: "",
    },
    Size {
        key: "memory_in_mb",
        word: "memory",
        flag: "-m",
        of: |one| one.memory_in_mb,
        set: |one, mib| one.memory_in_mb = mib,
        shown: |mib| human(mib << 20),
        unit: "M",
    },
    Size {
        key: "disk_in_mb",
        word: "disk",
        flag: "-k",
        of: |one| one.disk_in_mb,
        set: |one, mib| one.disk_in_mb = mib,
        shown: |mib| human(mib << 20),
        unit: "M",
    },
];

impl Sizes {
    /// As they are now.
    pub(crate) async fn of(client: &Client, app: &App) -> Result<Self, CliError> {
        let before = processes(client, app).await?;
        Ok(Self { app: app.clone(), before, applied: None, others: Vec::new() })
    }

    /// Notes what applying the manifest has made of them.
    pub(crate) async fn applied(&mut self, client: &Client) -> Result<(), CliError> {
        self.applied = Some(processes(client, &self.app).await?);
        Ok(())
    }

    /// The annotation of the deployment that brings them. It keeps what the note of an `earlier` one, whose place it takes,
    /// says of the sizes that were not changed since: cancelling brings back what ran before both.
    pub(super) fn annotation(&self, earlier: Option<&Deployment>) -> Map<String, Value> {
        let mut note = earlier.map(note_of).unwrap_or_default();
        for old in &self.before {
            let Some(applied) = self.applied.iter().flatten().find(|one| one.guid == old.guid) else { continue };
            let sizes = note.entry(old.guid.clone()).or_default();
            for size in &ALL {
                let (was, is) = ((size.of)(old), (size.of)(applied));
                let first = sizes.get(size.key).filter(|[_, made]| *made == was).map_or(was, |[first, _]| *first);
                if first == is {
                    sizes.remove(size.key);
                } else {
                    sizes.insert(size.key.to_owned(), [first, is]);
                }
            }
        }
        note.retain(|_, sizes| !sizes.is_empty());
        let text = json!(note).to_string();
        if note.is_empty() { Map::new() } else { Map::from_iter([(NOTE.to_owned(), text.into())]) }
    }

    /// As the note of a deployment that was given up has them; nothing without one.
    pub(crate) async fn noted(client: &Client, app: &App, deployment: &Deployment) -> Result<Option<Self>, CliError> {
        let note = note_of(deployment);
        if note.is_empty() {
            return Ok(None);
        }
        let (mut before, mut applied) = (processes(client, app).await?, Vec::new());
        before.retain(|process| note.contains_key(&process.guid));
        for process in &mut before {
            let mut made = process.clone();
            for size in &ALL {
                if let Some([was, is]) = note[&process.guid].get(size.key) {
                    (size.set)(process, *was);
                    (size.set)(&mut made, *is);
                }
            }
            applied.push(made);
        }
        Ok(Some(Self { app: app.clone(), before, applied: Some(applied), others: Vec::new() }))
    }

    /// Sets back what the manifest has changed and nobody since, and says so, or says what stays and how to change it.
    pub(crate) async fn set_back(&self, session: &Session) -> Result<(), CliError> {
        let client = session.client()?;
        let same = |all: &[Process], one: &Process| all.iter().find(|other| other.guid == one.guid).cloned();
        let changed = self.applied.as_ref().is_none_or(|all| {
            self.before
                .iter()
                .any(|old| same(all, old).is_some_and(|applied| difference(old, &applied, &applied).is_some()))
        });
        let now = if changed { processes(client, &self.app).await? } else { Vec::new() };
        let applied = self.applied.as_ref().unwrap_or(&now);
        let (mut done, mut stays) = (Vec::new(), Vec::new());
        for old in &self.before {
            let both = same(applied, old).zip(same(&now, old));
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

/// What the note of a deployment says. One that somebody has changed by hand into something else says nothing.
fn note_of(deployment: &Deployment) -> Note {
    let text =
        deployment.metadata.pointer(&format!("/annotations/{}", NOTE.replace('/', "~1"))).and_then(Value::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
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
    use super::*;

    fn sizes(before: u64, applied: u64) -> Sizes {
        let process = |memory: u64| -> Process {
            serde_json::from_value(json!({ "guid": "p", "type": "web", "instances": 2, "memory_in_mb": memory }))
                .expect("a process")
        };
        let app = serde_json::from_value(json!({ "guid": "a", "name": "web", "state": "STARTED" })).expect("an app");
        Sizes { app, before: vec![process(before)], applied: Some(vec![process(applied)]), others: Vec::new() }
    }

    fn deployment(annotations: Map<String, Value>) -> Deployment {
        serde_json::from_value(json!({ "guid": "d", "status": {}, "metadata": { "annotations": annotations } }))
            .expect("a deployment")
    }

    #[test]
    fn a_deployment_carries_what_ran_before_it_and_before_those_whose_place_it_takes() {
        let memory = |annotations: Map<String, Value>| {
            note_of(&deployment(annotations)).get("p").map(|sizes| (sizes["memory_in_mb"], sizes.len()))
        };
        let first = sizes(128, 300);
        assert_eq!(memory(first.annotation(None)), Some(([128, 300], 1)));
        assert!(sizes(128, 128).annotation(None).is_empty(), "nothing to note");
        let earlier = deployment(first.annotation(None));
        assert_eq!(memory(sizes(300, 300).annotation(Some(&earlier))), Some(([128, 300], 1)));
        assert_eq!(memory(sizes(300, 500).annotation(Some(&earlier))), Some(([128, 500], 1)));
        assert_eq!(memory(sizes(300, 128).annotation(Some(&earlier))), None, "as it was");
        assert_eq!(memory(sizes(400, 500).annotation(Some(&earlier))), Some(([400, 500], 1)), "scaled between them");
        let rubbish = deployment(Map::from_iter([(NOTE.to_owned(), "[]".into())]));
        assert!(note_of(&rubbish).is_empty());
    }

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
