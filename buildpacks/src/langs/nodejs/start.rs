//! How an app starts, and whether that is a server that serves people.

use serde_json::Value;

use super::package_script;
use crate::contract::BuildRequest;
use crate::procfile;
use crate::source::{Source, plain};

/// Where builds of pages leave them, in the order of looking.
pub(super) const OUTPUTS: [&str; 4] = ["dist", "build", "out", ".output/public"];
/// What Nuxt and its like leave when they make a server.
const NITRO: &str = ".output/server/index.mjs";
/// Programs that come before the one that is meant, with variables or options of their own.
const WRAPPERS: [&str; 7] = ["exec", "env", "cross-env", "cross-env-shell", "dotenv", "npx", "--"];
/// Servers that show a developer the source while it is written, by program and first argument (empty: none).
const FOR_DEVELOPMENT: [(&str, &[&str]); 13] = [
    ("react-scripts", &["start"]),
    ("react-app-rewired", &["start"]),
    ("craco", &["start"]),
    ("vite", &["", "dev", "serve"]),
    ("vue-cli-service", &["serve"]),
    ("ng", &["serve", "s"]),
    ("webpack", &["serve"]),
    ("webpack-dev-server", &[""]),
    ("parcel", &["", "serve"]),
    ("snowpack", &["dev"]),
    ("astro", &["", "dev"]),
    ("gatsby", &["develop"]),
    ("nuxt", &["dev"]),
];
/// Scripts that call scripts.
const MAX_DEPTH: usize = 8;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A Procfile or the manifest says it.
    Elsewhere,
    /// `npm start`.
    Npm,
    /// `npm start`, which is this server for developers.
    Development(String),
    /// The package's own entry.
    Entry(String),
    /// Nobody says it.
    Nothing,
}

impl Start {
    /// From what is there before the build.
    pub(super) fn of(request: &BuildRequest, source: &dyn Source, package: &Value) -> Self {
        let types = procfile::read(source).unwrap_or_default();
        if request.command.is_some() || types.iter().any(|process| process.kind == "web") {
            return Self::Elsewhere;
        }
        if package_script(package, "start").is_some() {
            let development = commands(package, "npm start").into_iter().find(|words| for_development(words));
            return development.map_or(Self::Npm, |words| Self::Development(words.join(" ")));
        }
        if source.has("server.js") {
            return Self::Npm;
        }
        let main = package.get("main").and_then(Value::as_str).map(plain);
        match main.into_iter().chain(["index.js"]).find(|file| source.has(file) && !file.starts_with('-')) {
            // What npm itself takes as the package.
            Some(file) if file.chars().all(|c| c.is_ascii_alphanumeric() || "._-/@".contains(c)) => {
                Self::Entry(file.to_owned())
            }
            _ => Self::Nothing,
        }
    }

    /// Whether pages that a build makes are what the app is.
    pub(super) fn gives_way(&self) -> bool {
        matches!(self, Self::Development(_) | Self::Entry(_) | Self::Nothing)
    }

    /// The command of the process `web`.
    pub(super) fn command(&self, source: &dyn Source) -> Option<String> {
        match self {
            Self::Elsewhere => None,
            Self::Npm | Self::Development(_) => Some("npm start".to_owned()),
            Self::Entry(_) | Self::Nothing if source.has(NITRO) => Some(format!("node {NITRO}")),
            Self::Entry(file) => Some(format!("node {file}")),
            Self::Nothing => None,
        }
    }
}

/// The directory of pages that a build has made.
pub(super) fn pages(source: &dyn Source) -> Option<String> {
    if source.has(NITRO) {
        return None;
    }
    let direct = OUTPUTS.iter().map(|&directory| directory.to_owned());
    // Angular's are below the project's name.
    let below =
        source.below("dist", 20).into_iter().filter_map(|name| Some(format!("dist/{}", name.strip_suffix('/')?)));
    let below: Vec<String> = below.flat_map(|directory| [format!("{directory}/browser"), directory]).collect();
    direct.chain(below).find(|directory| source.has(&format!("{directory}/index.html")))
}

/// The programs with their arguments that a command runs, also those of the package's scripts; wrappers are lists of their own.
pub(super) fn commands(package: &Value, command: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    expand(package, command, MAX_DEPTH, &mut found);
    found
}

fn expand(package: &Value, command: &str, depth: usize, found: &mut Vec<Vec<String>>) {
    for part in command.split(['&', '|', ';', '\n']) {
        let mut words: Vec<&str> = part.split_whitespace().collect();
        loop {
            let skipped = words.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
            words.drain(..skipped);
            match words.first() {
                Some(first) if WRAPPERS.contains(first) => {
                    found.push(vec![(*first).to_owned()]);
                    words.remove(0);
                    let options = words.iter().take_while(|word| word.starts_with('-') && **word != "--").count();
                    words.drain(..options);
                }
                _ => break,
            }
        }
        let script = match words[..] {
            ["npm", script @ ("start" | "test"), ..] => Some(script),
            ["npm", "run" | "run-script", script, ..] => Some(script),
            _ => None,
        };
        if let (Some(script), Some(depth)) = (script, depth.checked_sub(1)) {
            for name in [format!("pre{script}"), script.to_owned()] {
                package_script(package, &name).into_iter().for_each(|text| expand(package, text, depth, found));
            }
        } else if !words.is_empty() {
            found.push(words.iter().map(|&word| word.to_owned()).collect());
        }
    }
}

fn for_development(words: &[String]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let first = arguments.first().map(String::as_str).filter(|word| !word.starts_with('-')).unwrap_or_default();
    FOR_DEVELOPMENT.iter().any(|(name, verbs)| name == program && verbs.contains(&first))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::langs::testing::request;
    use crate::source::Listing;

    fn start(package: &Value, files: &[(&str, &str)]) -> Start {
        Start::of(&request("node"), &Listing::of(files), package)
    }

    #[test]
    fn the_start_command_is_found() {
        let scripts = |start: &str| json!({"scripts": {"start": start, "serve": "vite --port 1"}});
        for command in ["node server.js", "next start", "vite preview", "serve -s build", "npm run missing"] {
            assert_eq!(start(&scripts(command), &[]), Start::Npm, "{command}");
        }
        for (command, server) in [
            ("react-scripts start", "react-scripts start"),
            ("cross-env PORT=4100 react-scripts start", "react-scripts start"),
            ("NODE_ENV=x npx --yes vite", "vite"),
            ("tsc && npm run serve", "vite --port 1"),
            ("ng serve --open", "ng serve --open"),
        ] {
            assert_eq!(start(&scripts(command), &[]), Start::Development(server.into()), "{command}");
        }
        let main = json!({"main": "./lib/app.js"});
        assert_eq!(start(&main, &[("server.js", "")]), Start::Npm);
        assert_eq!(start(&main, &[("lib/app.js", ""), ("index.js", "")]), Start::Entry("lib/app.js".into()));
        assert_eq!(start(&main, &[("index.js", "")]), Start::Entry("index.js".into()));
        assert_eq!(start(&main, &[("main.ts", "")]), Start::Nothing);
        assert_eq!(start(&json!({"main": "a; b"}), &[("a; b", "")]), Start::Nothing);
        assert_eq!(start(&main, &[("index.js", ""), ("Procfile", "web: x")]), Start::Elsewhere);
        assert_eq!(start(&main, &[("index.js", ""), ("Procfile", "worker: x")]), Start::Entry("index.js".into()));
        let mut request = request("node");
        request.command = Some("x".into());
        assert_eq!(Start::of(&request, &Listing::default(), &scripts("y")), Start::Elsewhere);
    }

    #[test]
    fn pages_are_where_builds_leave_them() {
        for (files, found) in [
            (&["dist/index.html", "build/index.html"][..], Some("dist")),
            (&["build/index.html", "dist/server.js"], Some("build")),
            (&["dist/shop/browser/index.html", "dist/shop/server/main.js"], Some("dist/shop/browser")),
            (&["dist/shop/index.html"], Some("dist/shop")),
            (&[".output/public/index.html"], Some(".output/public")),
            (&[".output/public/index.html", ".output/server/index.mjs"], None),
            (&["public/index.html", "index.html"], None),
        ] {
            let listing: Vec<(&str, &str)> = files.iter().map(|file| (*file, "")).collect();
            assert_eq!(pages(&Listing::of(&listing)).as_deref(), found, "{files:?}");
        }
    }

    #[test]
    fn scripts_that_call_themselves_come_to_an_end() {
        let package = json!({"scripts": {"start": "npm run a && npm run a", "a": "npm run start; x", "prestart": "y"}});
        assert!(commands(&package, "npm start").iter().any(|words| words == &["y"]));
    }
}
