//! Inputs of an installation, and how a difference between them is described.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// See the module. A field more is a difference more: [`CacheInputs::difference`] names them all, or does not compile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheInputs {
    /// Guid of the app, from `VCAP_APPLICATION`; empty when there is none. A cache belongs to one app.
    pub app: String,
    /// Name of the stack.
    pub stack: String,
    /// `Node.js`, `Python`.
    pub language: String,
    /// The runtime's release.
    pub version: String,
    /// Digest of the runtime's layer, which brings the package manager along too.
    pub layer: String,
    /// The package manager's arguments.
    pub arguments: Vec<String>,
    /// Where the tree stands: scripts in it carry the path.
    pub place: PathBuf,
    /// Digests by what they are of, in words that can be followed by "changed".
    pub inputs: BTreeMap<String, String>,
}

impl CacheInputs {
    /// The first difference to `old`, for people.
    pub(super) fn difference(&self, old: &Self) -> Option<String> {
        let Self { app, stack, language, version, layer, arguments, place, inputs } = self;
        if app != &old.app {
            return Some("it was left by another app".into());
        }
        if stack != &old.stack {
            return Some(format!("the stack changed from {} to {stack}", shown(&old.stack)));
        }
        if (language, version) != (&old.language, &old.version) {
            let (from, to) = (shown(&old.version), version);
            return Some(format!("{} {from} became {language} {to}", shown(&old.language)));
        }
        if layer != &old.layer {
            return Some(format!("the layer of {language} {version} was made anew"));
        }
        let names = inputs.keys().chain(old.inputs.keys());
        for name in names {
            let what = match (old.inputs.get(name), inputs.get(name)) {
                (Some(before), Some(now)) if before == now => continue,
                (Some(_), Some(_)) => "changed",
                (None, _) => "came",
                (_, None) => "went",
            };
            return Some(format!("{} {what}", shown(name)));
        }
        if arguments != &old.arguments {
            return Some("the package manager is called with other arguments".into());
        }
        (place != &old.place).then(|| "the tree stands at another place".into())
    }
}

/// A text of the cache, which anybody may have written, as it may be printed.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> CacheInputs {
        CacheInputs {
            app: "a".into(),
            stack: "debian12".into(),
            language: "Node.js".into(),
            version: "22.1.0".into(),
            layer: "d1".into(),
            arguments: vec!["ci".into()],
            place: "/home/vcap/app/node_modules".into(),
            inputs: BTreeMap::from([("package-lock.json".to_owned(), "1".to_owned())]),
        }
    }

    #[test]
    fn each_difference_of_cache_inputs_is_named() {
        assert_eq!(facts().difference(&facts()), None);
        type ChangeInput = fn(&mut CacheInputs);
        let cases: [(ChangeInput, &str); 10] = [
            (|old| old.app = "b".into(), "another app"),
            (|old| old.stack = "cflinuxfs4".into(), "from cflinuxfs4 to debian12"),
            (|old| old.version = "22.0.0".into(), "Node.js 22.0.0 became Node.js 22.1.0"),
            (|old| old.language = "Deno\u{1b}[2J".into(), "Deno[2J 22.1.0 became Node.js"),
            (|old| old.layer = "d2".into(), "made anew"),
            (|old| old.arguments.push("--omit=dev".into()), "other arguments"),
            (|old| old.place = "/x".into(), "another place"),
            (
                |old| old.inputs = BTreeMap::from([("package-lock.json".into(), "2".into())]),
                "package-lock.json changed",
            ),
            (|old| old.inputs.clear(), "package-lock.json came"),
            (|old| drop(old.inputs.insert(".npmrc".into(), "3".into())), ".npmrc went"),
        ];
        for (change, words) in cases {
            let mut old = facts();
            change(&mut old);
            let said = facts().difference(&old).unwrap();
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
