//! What a client asks of a deployment, checked with the words that Cloud Foundry uses.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::domain::metadata::MetadataChange;
use crate::domain::processes::Scale;
use slipway_placement::rollout::Canary;

/// How the new version takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Instance by instance, to the end.
    #[default]
    Rolling,
    /// Instance by instance, stopping at steps.
    Canary,
}

impl Strategy {
    /// As stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Canary => "canary",
        }
    }

    /// From what a client sent.
    ///
    /// # Errors
    /// The text for the client.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("rolling") => Ok(Self::Rolling),
            Some("canary") => Ok(Self::Canary),
            Some(other) => {
                let other: String = other.chars().take(100).collect();
                Err(format!("Strategy '{other}' is not a supported deployment strategy"))
            }
        }
    }
}

/// What is deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The app's current droplet.
    #[default]
    Current,
    /// This droplet.
    Droplet(Uuid),
    /// The droplet, variables, commands and sidecars of this revision.
    Revision(Uuid),
}

/// Member `options` of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// New instances on their way at a time, at least 1.
    pub max_in_flight: u32,
    /// What the new process has otherwise than the old one.
    pub scale: Scale,
    /// Weights of a canary's steps, in percent, ascending.
    pub steps: Option<Vec<u32>>,
}

/// A deployment to be made.
#[derive(Clone, Debug, Default)]
pub struct DeploymentCreate {
    /// How.
    pub strategy: Strategy,
    /// What.
    pub source: Source,
    /// With what figures.
    pub options: Options,
    /// Labels and annotations.
    pub metadata: MetadataChange,
}

const KEYS: [&str; 6] =
    ["canary", "max_in_flight", "web_instances", "memory_in_mb", "disk_in_mb", "log_rate_limit_in_bytes_per_second"];
const WEIGHT: &str = "Options canary steps instance weight";
/// Steps beyond the number of percents would repeat one.
const MAX_STEPS: usize = 100;

impl Options {
    /// Reads the member `options` of a body; clients send what they do not use as null.
    ///
    /// # Errors
    /// The text for the client.
    pub fn parse(value: &Value, strategy: Strategy) -> Result<Self, String> {
        let empty = Map::new();
        let members = match value {
            Value::Null => &empty,
            Value::Object(members) => members,
            _ => return Err("Options must be an object".to_owned()),
        };
        refuse_others(members, &KEYS, "Options")?;
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        let integer = |name: &str, shown: &str| match member(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| format!("{shown} must be an integer")),
        };
        let max_in_flight = match member("max_in_flight") {
            None => 1,
            Some(value) => match value.as_u64().filter(|number| *number > 0) {
                // More than any app has instances means the same.
                Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
                None => return Err("Max in flight must be an integer greater than 0".to_owned()),
            },
        };
        let scale = Scale {
            instances: integer("web_instances", "Web instances")?,
            memory_mb: integer("memory_in_mb", "Memory in mb")?,
            disk_mb: integer("disk_in_mb", "Disk in mb")?,
            log_rate: integer("log_rate_limit_in_bytes_per_second", "Log rate limit in bytes per second")?,
        };
        let steps = match member("canary") {
            None => None,
            Some(Value::Object(_)) if strategy != Strategy::Canary => {
                return Err("Options canary are only valid for Canary deployments".to_owned());
            }
            Some(Value::Object(canary)) => {
                refuse_others(canary, &["steps"], "Options canary")?;
                canary.get("steps").filter(|steps| !steps.is_null()).map(steps_of).transpose()?
            }
            Some(_) => return Err("Options canary must be an object".to_owned()),
        };
        Ok(Self { max_in_flight, scale, steps })
    }

    /// As stored and shown.
    #[must_use]
    pub fn view(&self) -> Value {
        let mut view = json!({ "max_in_flight": self.max_in_flight });
        for (name, value) in [
            ("web_instances", self.scale.instances),
            ("memory_in_mb", self.scale.memory_mb),
            ("disk_in_mb", self.scale.disk_mb),
            ("log_rate_limit_in_bytes_per_second", self.scale.log_rate),
        ] {
            if let Some(value) = value {
                view[name] = value.into();
            }
        }
        if let Some(steps) = &self.steps {
            let steps: Vec<Value> = steps.iter().map(|weight| json!({ "instance_weight": weight })).collect();
            view["canary"] = json!({ "steps": steps });
        }
        view
    }

    /// Weights of the steps in stored options; `None` = one step with one instance.
    #[must_use]
    pub fn stored_steps(view: &Value) -> Option<Vec<u32>> {
        let steps = view.get("canary")?.get("steps")?.as_array()?;
        let weight = |step: &Value| u32::try_from(step.get("instance_weight")?.as_u64()?).ok();
        steps.iter().map(weight).collect()
    }

    /// The counts of a step (from 1) of a canary deployment with these stored options.
    #[must_use]
    pub fn step(view: &Value, step: u32, wanted: u32, before: u32) -> Canary {
        let place = usize::try_from(step.saturating_sub(1)).unwrap_or(usize::MAX);
        let weight = Self::stored_steps(view).and_then(|steps| steps.get(place).copied());
        Canary::of(weight, wanted, before)
    }

    /// How many steps a canary deployment with these stored options has.
    #[must_use]
    pub fn step_count(view: &Value) -> u32 {
        Self::stored_steps(view).map_or(1, |steps| u32::try_from(steps.len()).unwrap_or(u32::MAX)).max(1)
    }
}

fn refuse_others(members: &Map<String, Value>, known: &[&str], name: &str) -> Result<(), String> {
    let others: Vec<String> = members
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .map(|key| key.chars().take(100).collect())
        .collect();
    if others.is_empty() { Ok(()) } else { Err(format!("{name} has unsupported key(s): {}", others.join(", "))) }
}

fn steps_of(steps: &Value) -> Result<Vec<u32>, String> {
    let objects: Option<Vec<&Map<String, Value>>> =
        steps.as_array().and_then(|steps| steps.iter().map(Value::as_object).collect());
    let objects = objects.ok_or("Options canary steps must be an array of objects")?;
    if objects.len() > MAX_STEPS {
        return Err(format!("Options canary steps must be at most {MAX_STEPS}"));
    }
    let mut weights = Vec::with_capacity(objects.len());
    for step in objects {
        refuse_others(step, &["instance_weight"], "Options canary steps")?;
        let weight = step.get("instance_weight").ok_or("Options canary steps missing key: \"instance_weight\"")?;
        let weight = weight.as_u64().filter(|weight| (1..=100).contains(weight));
        let weight = weight.ok_or_else(|| format!("{WEIGHT} must be an Integer between 1-100 (inclusive)"))?;
        weights.push(u32::try_from(weight).unwrap_or(100));
    }
    if !weights.is_sorted() {
        return Err(format!("{WEIGHT} must be sorted in ascending order"));
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(steps: Value) -> Result<Options, String> {
        Options::parse(&json!({ "canary": { "steps": steps } }), Strategy::Canary)
    }

    #[test]
    fn what_clients_send_is_read_and_shown_again() {
        let sent = json!({
            "max_in_flight": 2, "canary": { "steps": [{ "instance_weight": 20 }, { "instance_weight": 20 }] },
            "web_instances": null, "memory_in_mb": 64, "disk_in_mb": null, "log_rate_limit_in_bytes_per_second": -1,
        });
        let options = Options::parse(&sent, Strategy::Canary).expect("good");
        assert_eq!(options.steps, Some(vec![20, 20]));
        let view = options.view();
        assert_eq!(view["memory_in_mb"], 64);
        assert_eq!((Options::step_count(&view), Options::stored_steps(&view)), (2, Some(vec![20, 20])));
        assert_eq!(Options::step(&view, 2, 10, 10), Canary { new: 2, old: 9, enough: 10 });
        let plain = Options::parse(&Value::Null, Strategy::Canary).expect("good");
        assert_eq!((plain.max_in_flight, Options::step_count(&plain.view())), (1, 1));
        assert_eq!(Options::step(&plain.view(), 1, 3, 3), Canary { new: 1, old: 3, enough: 3 });
        assert_eq!(steps(json!([])).map(|options| Options::step_count(&options.view())), Ok(1));
    }

    #[test]
    fn refusals_have_the_words_of_cloud_foundry() {
        for (sent, message) in [
            (json!([]), "Options canary must be an object"),
            (json!({ "steps": 7 }), "Options canary steps must be an array of objects"),
            (json!({ "steps": [7] }), "Options canary steps must be an array of objects"),
            (json!({ "steps": [{}] }), "Options canary steps missing key: \"instance_weight\""),
            (json!({ "steps": [{ "x": 1 }] }), "Options canary steps has unsupported key(s): x"),
            (json!({ "stops": [] }), "Options canary has unsupported key(s): stops"),
        ] {
            assert_eq!(Options::parse(&json!({ "canary": sent }), Strategy::Canary), Err(message.to_owned()));
        }
        for weight in [json!(0), json!(101), json!(-1), json!("20"), json!(2.5), Value::Null] {
            let message = steps(json!([{ "instance_weight": weight }])).expect_err("refused");
            assert_eq!(message, "Options canary steps instance weight must be an Integer between 1-100 (inclusive)");
        }
        let message = steps(json!([{ "instance_weight": 50 }, { "instance_weight": 20 }])).expect_err("refused");
        assert_eq!(message, "Options canary steps instance weight must be sorted in ascending order");
        let rolling = Options::parse(&json!({ "canary": {} }), Strategy::Rolling);
        assert_eq!(rolling, Err("Options canary are only valid for Canary deployments".to_owned()));
        for number in [json!(0), json!(-1), json!("x"), json!(1.5)] {
            let message = Options::parse(&json!({ "max_in_flight": number }), Strategy::Rolling).expect_err("refused");
            assert_eq!(message, "Max in flight must be an integer greater than 0");
        }
        assert!(Options::parse(&json!(7), Strategy::Rolling).is_err());
        assert!(Strategy::parse(Some("blue-green")).is_err());
    }
}
