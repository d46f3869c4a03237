//! Restores an app's sizes and start commands when a push of it fails: the manifest is applied before anything is built, and
//! an app that goes on with its old version must not get the memory of the new one at its next restart. A canary may be
//! cancelled by somebody else long after its push has ended, so its deployment carries the previous values as annotations.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::changes::shown;
use super::processes;
use crate::client::views::{App, Deployment, Process};
use crate::client::{Body, Client};
use crate::commands::Session;
use crate::error::CliError;
use crate::size::human;

/// While a deployment is being cancelled the platform refuses other sizes and commands, with these codes
/// (`CF-ScaleDisabledDuringDeployment`, `CF-ProcessUpdateDisabledDuringDeployment`).
pub(crate) const DEPLOYING: [u32; 2] = [390_016, 390_017];
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
    /// What earlier pushes changed whose new versions have not taken over.
    earlier: Note,
}

/// Annotation of a deployment: what its push has changed.
const NOTE: &str = "slipway.dev/changes";
/// Longest text of an annotation, less than the platform's 5000 characters by what is said of the rest.
const LONGEST_NOTE: usize = 4900;

/// What was and is, of each process by guid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// By key of the size.
    #[serde(default)]
    sizes: BTreeMap<String, BTreeMap<String, [u64; 2]>>,
    #[serde(default)]
    commands: BTreeMap<String, [Option<String>; 2]>,
    /// What is not set back, for people.
    #[serde(default)]
    others: Vec<String>,
}

impl Note {
    fn is_empty(&self) -> bool {
        self.sizes.is_empty() && self.commands.is_empty() && self.others.is_empty()
    }

    /// As an annotation. What does not fit is left out.
    fn text(mut self) -> String {
        let text = |note: &Self| json!(note).to_string();
        let is_long = |note: &Self| text(note).chars().count() > LONGEST_NOTE;
        if is_long(&self) && !self.commands.is_empty() {
            self.commands.clear();
            self.others.insert(0, "the start command".to_owned());
        }
        let count = self.others.len();
        while is_long(&self) && self.others.pop().is_some() {}
        let left = count - self.others.len();
        if left > 0 {
            self.others.push(format!("{left} more"));
        }
        text(&self)
    }
}

/// Notes that something was and is. What it was before the last note counts, unless it was changed between the two.
fn merge<T: Clone + PartialEq>(notes: &mut BTreeMap<String, [T; 2]>, key: &str, was: &T, is: &T) {
    let first = notes.get(key).filter(|[_, made]| made == was).map_or(was, |[first, _]| first).clone();
    if first == *is {
        notes.remove(key);
    } else {
        notes.insert(key.to_owned(), [first, is.clone()]);
    }
}

/// How to restore the settings of one process.
struct Changed {
    guid: String,
    kind: String,
    /// Sizes to send.
    sizes: Map<String, Value>,
    /// `web memory 300M → 128M`.
    descriptions: Vec<String>,
    /// `-p worker -m 128M`.
    flags: String,
    /// The start command to send, and what is said of it.
    command: Option<(Value, String)>,
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
        of: |one| one.instances.into(),
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

/// The processes of an app, with their start commands as far as they have own ones.
async fn settings(client: &Client, app: &App) -> Result<Vec<Process>, CliError> {
    let mut all = Vec::new();
    for process in processes(client, app).await? {
        if process.command.is_none() {
            all.push(process);
            continue;
        }
        // Commands are hidden in lists.
        match client.get::<Process>(&format!("/v3/processes/{}", process.guid)).await {
            // That of a deployment which has just ended.
            Err(error) if error.has_status(404) => {}
            found => all.push(Process { command: found?.command, ..process }),
        }
    }
    Ok(all)
}

impl Sizes {
    /// As they are now.
    pub(crate) async fn of(client: &Client, app: &App) -> Result<Self, CliError> {
        let before = settings(client, app).await?;
        Ok(Self { app: app.clone(), before, applied: None, others: Vec::new(), earlier: Note::default() })
    }

    /// Notes what applying the manifest has made of them.
    pub(crate) async fn applied(&mut self, client: &Client) -> Result<(), CliError> {
        self.applied = Some(settings(client, &self.app).await?);
        Ok(())
    }

    /// These, and what the note of a deployment says whose place is taken: giving the new one up brings back what ran before
    /// both.
    pub(super) fn after(&self, earlier: &Deployment) -> Self {
        Self { earlier: note_of(earlier), ..self.clone() }
    }

    /// As the note of a deployment has them; nothing without one.
    pub(crate) async fn noted(client: &Client, app: &App, deployment: &Deployment) -> Result<Option<Self>, CliError> {
        let earlier = note_of(deployment);
        if earlier.is_empty() {
            return Ok(None);
        }
        let before = settings(client, app).await?;
        Ok(Some(Self { app: app.clone(), applied: Some(before.clone()), before, others: Vec::new(), earlier }))
    }

    fn note(&self, applied: &[Process]) -> Note {
        let mut note = self.earlier.clone();
        for old in &self.before {
            let Some(made) = applied.iter().find(|one| one.guid == old.guid) else { continue };
            let sizes = note.sizes.entry(old.guid.clone()).or_default();
            for size in &ALL {
                merge(sizes, size.key, &(size.of)(old), &(size.of)(made));
            }
            merge(&mut note.commands, &old.guid, &old.command, &made.command);
        }
        note.sizes.retain(|_, sizes| !sizes.is_empty());
        let new: Vec<String> = self.others.iter().filter(|one| !note.others.contains(one)).cloned().collect();
        note.others.extend(new);
        note
    }

    /// The annotation of the deployment that brings them.
    pub(super) fn annotation(&self) -> Map<String, Value> {
        let note = self.note(self.applied.as_deref().unwrap_or_default());
        if note.is_empty() { Map::new() } else { Map::from_iter([(NOTE.to_owned(), note.text().into())]) }
    }

    /// What a rollback does with them: the options of its deployment with which `web` has the sizes of before. Those of
    /// others are set back now, as the platform allows.
    pub(super) async fn rolled_back(&self, session: &Session) -> Result<Map<String, Value>, CliError> {
        let client = session.client()?;
        let note = self.note(self.applied.as_deref().unwrap_or_default());
        let (mut options, mut descriptions) = (Map::new(), Vec::new());
        for now in &self.before {
            let Some(changed) = difference(&note, now).filter(|changed| !changed.sizes.is_empty()) else { continue };
            if changed.kind != "web" {
                scale(client, &changed).await?;
            } else {
                let option = |key: String| if key == "instances" { "web_instances".to_owned() } else { key };
                options.extend(changed.sizes.into_iter().map(|(key, value)| (option(key), value)));
            }
            descriptions.extend(changed.descriptions);
        }
        if !descriptions.is_empty() {
            session.printer.say(&format!("Set back for '{}' with it: {}.", self.app.name, descriptions.join(", ")));
        }
        Ok(options)
    }

    /// Sets back what the manifest has changed and nobody since, and says so, or says what stays and how to change it.
    pub(crate) async fn set_back(&self, session: &Session) -> Result<(), CliError> {
        let client = session.client()?;
        let is_known_to_be_same = self.applied.as_ref().is_some_and(|applied| {
            let note = self.note(applied);
            note.sizes.is_empty() && note.commands.is_empty()
        });
        let now = if is_known_to_be_same { Vec::new() } else { settings(client, &self.app).await? };
        let note = self.note(self.applied.as_ref().unwrap_or(&now));
        let name = &self.app.name;
        let (mut done, mut stays) = (Vec::new(), Vec::new());
        for changed in now.iter().filter_map(|process| difference(&note, process)) {
            match scale(client, &changed).await {
                Ok(()) => done.extend(changed.descriptions),
                Err(_) => stays.push(format!(
                    "'{name}' keeps the sizes of this push from its next start on; `slipway scale {name} {}` sets them \
                     back, which restarts it when memory or disk are among them.",
                    changed.flags
                )),
            }
            let Some((command, descriptions)) = changed.command else { continue };
            let path = format!("/v3/processes/{}", changed.guid);
            match patiently(client, Method::PATCH, &path, &json!({ "command": command })).await {
                Ok(()) => done.push(descriptions),
                Err(_) => stays.push(format!(
                    "'{name}' ({}) keeps the start command of this push from its next start on; a push with another -c \
                     changes it.",
                    changed.kind
                )),
            }
        }
        if !done.is_empty() {
            session.printer.say(&format!("Set back for '{name}': {}.", done.join(", ")));
        }
        stays.iter().for_each(|text| session.printer.say(text));
        if !note.others.is_empty() {
            let whose = if self.earlier.others.is_empty() { "this push" } else { "what was given up" };
            session.printer.say(&format!("'{name}' keeps from {whose}: {}.", note.others.join(", ")));
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

/// What the instances of the old version still have, while the process shows what the push of a deployment made of it.
pub(crate) fn still_has(deployment: &Deployment, process: &Process) -> Option<String> {
    let note = note_of(deployment);
    let noted = note.sizes.get(&process.guid);
    let mut descriptions = Vec::new();
    // Numbers of instances hold at once.
    for size in ALL.iter().filter(|size| size.key != "instances") {
        let was = noted.and_then(|noted| noted.get(size.key)).filter(|[_, is]| *is == (size.of)(process));
        descriptions.extend(was.map(|[was, _]| format!("{} {}", (size.shown)(*was), size.word)));
    }
    let was = note.commands.get(&process.guid).filter(|[_, is]| *is == process.command);
    descriptions.extend(was.map(|[was, _]| format!("command {}", shown(&json!(was)))));
    (!descriptions.is_empty()).then(|| descriptions.join(", "))
}

/// What to do so that a process which is so `now` is again as it was before what the note says; nothing when it is, or when
/// somebody has changed it since.
fn difference(note: &Note, now: &Process) -> Option<Changed> {
    let (mut sizes, mut descriptions, mut flags) = (Map::new(), Vec::new(), String::new());
    if now.kind != "web" {
        flags = format!("-p {} ", now.kind);
    }
    let noted = note.sizes.get(&now.guid);
    for size in &ALL {
        let Some([was, is]) = noted.and_then(|noted| noted.get(size.key)) else { continue };
        if was != is && *is == (size.of)(now) {
            sizes.insert(size.key.to_owned(), (*was).into());
            descriptions.push(format!("{} {} {} → {}", now.kind, size.word, (size.shown)(*is), (size.shown)(*was)));
            flags.push_str(&format!("{} {was}{} ", size.flag, size.unit));
        }
    }
    let command =
        note.commands.get(&now.guid).filter(|[was, is]| was != is && *is == now.command).map(|[was, is]| {
            (json!(was), format!("{} command {} → {}", now.kind, shown(&json!(is)), shown(&json!(was))))
        });
    let changed = !sizes.is_empty() || command.is_some();
    let flags = flags.trim_end().to_owned();
    changed.then(|| Changed { guid: now.guid.clone(), kind: now.kind.clone(), sizes, descriptions, flags, command })
}

async fn scale(client: &Client, changed: &Changed) -> Result<(), CliError> {
    if changed.sizes.is_empty() {
        return Ok(());
    }
    let path = format!("/v3/processes/{}/actions/scale", changed.guid);
    patiently(client, Method::POST, &path, &Value::Object(changed.sizes.clone())).await
}

/// Sends a change of a process, again while a deployment is being cancelled.
async fn patiently(client: &Client, method: Method, path: &str, body: &Value) -> Result<(), CliError> {
    let mut tried = 0;
    loop {
        tried += 1;
        match client.send(method.clone(), path, Body::Json(body.clone())).await {
            Ok(_) => return Ok(()),
            Err(error) if tried >= TRIES || !DEPLOYING.iter().any(|code| error.has_code(*code)) => {
                return Err(error.into());
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(kind: &str, instances: u32, memory: u64) -> Process {
        serde_json::from_value(json!({ "guid": "p", "type": kind, "instances": instances, "memory_in_mb": memory,
                                       "disk_in_mb": 1024 }))
        .expect("a process")
    }

    fn sizes(before: Process, applied: Process) -> Sizes {
        let app = serde_json::from_value(json!({ "guid": "a", "name": "web", "state": "STARTED" })).expect("an app");
        Sizes { app, before: vec![before], applied: Some(vec![applied]), others: Vec::new(), earlier: Note::default() }
    }

    fn deployment(annotations: Map<String, Value>) -> Deployment {
        serde_json::from_value(json!({ "guid": "d", "status": {}, "metadata": { "annotations": annotations } }))
            .expect("a deployment")
    }

    #[test]
    fn a_deployment_carries_what_ran_before_it_and_before_those_whose_place_it_takes() {
        let memory = |before: u64, applied: u64| sizes(process("web", 2, before), process("web", 2, applied));
        let noted = |sizes: &Sizes| {
            note_of(&deployment(sizes.annotation())).sizes.get("p").map(|sizes| (sizes["memory_in_mb"], sizes.len()))
        };
        let first = memory(128, 300);
        assert_eq!(noted(&first), Some(([128, 300], 1)));
        assert!(memory(128, 128).annotation().is_empty(), "nothing to note");
        let earlier = deployment(first.annotation());
        assert_eq!(noted(&memory(300, 300).after(&earlier)), Some(([128, 300], 1)));
        assert_eq!(noted(&memory(300, 500).after(&earlier)), Some(([128, 500], 1)));
        assert_eq!(noted(&memory(300, 128).after(&earlier)), None, "as it was");
        assert_eq!(noted(&memory(400, 500).after(&earlier)), Some(([400, 500], 1)), "scaled between them");
        let rubbish = deployment(Map::from_iter([(NOTE.to_owned(), "[]".into())]));
        assert!(note_of(&rubbish).is_empty());
    }

    #[test]
    fn a_note_fits_into_an_annotation() {
        let mut many = sizes(process("web", 1, 64), process("web", 1, 128));
        many.applied.iter_mut().flatten().for_each(|one| one.command = Some("x".repeat(4000)));
        many.others = vec!["env TOKEN".to_owned()];
        let note = note_of(&deployment(many.annotation()));
        assert_eq!((note.commands["p"][0].as_ref(), note.others.len()), (None, 1));
        many.others = (0..200).map(|number| format!("env {number} {}", "ä".repeat(50))).collect();
        let text = many.annotation()[NOTE].as_str().expect("text").to_owned();
        assert!(text.chars().count() < 5000, "{}", text.len());
        let note = note_of(&deployment(many.annotation()));
        assert_eq!((note.others[0].as_str(), note.sizes.len()), ("the start command", 1));
        assert!(note.others.last().is_some_and(|last| last.ends_with(" more")), "{:?}", note.others.last());
    }

    #[test]
    fn changed_settings_are_restored_and_no_others() {
        let (old, mut applied) = (process("worker", 1, 1536), process("worker", 2, 3000));
        applied.command = Some("./new".to_owned());
        let note = sizes(old.clone(), applied.clone()).note(std::slice::from_ref(&applied));
        let changed = difference(&note, &applied).expect("it differs");
        assert_eq!(Value::Object(changed.sizes), json!({ "instances": 1, "memory_in_mb": 1536 }));
        assert_eq!(changed.descriptions, ["worker instances 2 → 1", "worker memory 2.9G → 1.5G"]);
        assert_eq!(changed.flags, "-p worker -i 1 -m 1536M");
        assert_eq!(changed.command, Some((Value::Null, "worker command ./new → default".to_owned())));
        let scaled_since = difference(&note, &process("worker", 9, 3000)).expect("the memory differs");
        assert_eq!(Value::Object(scaled_since.sizes), json!({ "memory_in_mb": 1536 }));
        assert!(scaled_since.command.is_none(), "it is another one");
        let note = sizes(old.clone(), old.clone()).note(&[old]);
        assert!(difference(&note, &applied).is_none(), "the manifest has not changed it");
    }
}
