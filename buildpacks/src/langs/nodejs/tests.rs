//! When npm runs, and that a restored `node_modules` is the same as an installed one.

use std::fs;

use serde_json::json;

use super::super::Builtin;
use super::super::testing::{Builds, request};
use super::has_dependencies;
use crate::source::Listing;

/// Installs what the lock file is, and what the app's file `effect` says.
const NPM: &str = r#"echo "$*" >>$LOG
case $1 in
ci|install)
    rm -rf node_modules
    mkdir -p node_modules/.bin node_modules/express
    cp package-lock.json node_modules/express/index.js 2>/dev/null || echo none >node_modules/express/index.js
    ln -s ../express/index.js node_modules/.bin/express
    if [ -f effect ]; then . ./effect; fi ;;
prune) rm -rf node_modules/.bin ;;
run)
    case $2 in
    heroku-prebuild) echo "$NODE_ENV" >before; [ -d node_modules ] && echo late >before ;;
    *) cat node_modules/express/index.js >built; if [ -f makes ]; then . ./makes; fi ;;
    esac
    true ;;
esac"#;

const CI: &str = "ci --prefer-offline --omit=dev";
const LOCK: &str = r#"{"lockfileVersion":3,"packages":{"":{"name":"app"},"node_modules/express":{"version":"4.0.0"}}}"#;

fn builds(package: &str) -> Builds {
    let app = [("package.json", package), ("package-lock.json", LOCK), ("server.js", "1")];
    Builds::new(Builtin::Nodejs, &app, &[("npm", NPM)])
}

#[test]
fn an_unchanged_app_is_not_installed_again_and_gets_the_same() {
    let mut builds = builds(r#"{"dependencies":{"express":"^4"}}"#);
    assert_eq!(builds.run(), [CI]);
    let (app, deps) = (builds.tree("home/app"), builds.tree("home/deps"));
    assert_eq!(builds.run(), [""; 0]);
    assert_eq!((builds.tree("home/app"), builds.tree("home/deps")), (app, deps));
    // Code and scripts that npm does not run while installing may change.
    builds.app.insert("server.js", "2".into());
    builds.app.insert(
        "package.json",
        r#"{"version":"2","scripts":{"start":"node server.js","test":"x"},"dependencies":{"express":"^4"}}"#.into(),
    );
    builds.env.insert("GREETING", "hello");
    assert_eq!(builds.run(), [""; 0]);
}

#[test]
fn the_build_script_and_pruning_run_every_time_over_what_was_installed() {
    let builds = builds(r#"{"scripts":{"build":"tsc"},"dependencies":{"express":"^4"}}"#);
    let after = ["run build", "prune --omit=dev"];
    assert_eq!(builds.run(), ["ci --prefer-offline --include=dev", after[0], after[1]]);
    let app = builds.tree("home/app");
    assert!(app.contains_key(std::path::Path::new("built")) && !builds.at("home/app/node_modules/.bin").exists());
    assert_eq!(builds.run(), after);
    assert_eq!(builds.tree("home/app"), app, "the build script saw what is pruned afterwards");
}

const BUILD: &str = "ci --prefer-offline --include=dev";
const PRUNE: &str = "prune --omit=dev";

#[test]
fn herokus_scripts_run_with_every_push_around_what_is_installed_or_taken() {
    let scripts = r#"{"scripts":{"heroku-prebuild":"a","heroku-postbuild":"b","heroku-cleanup":"c","build":"d"}}"#;
    let builds = builds(scripts);
    let around = ["run heroku-prebuild", "run heroku-postbuild", PRUNE, "run heroku-cleanup"];
    assert_eq!(builds.run(), [around[0], BUILD, around[1], around[2], around[3]]);
    assert_eq!(fs::read_to_string(builds.at("home/app/before")).unwrap(), "production\n", "before the dependencies");
    assert_eq!(builds.run(), around, "node_modules is of the last build, the scripts are not");
    assert_eq!(fs::read_to_string(builds.at("home/app/before")).unwrap(), "production\n");
}

#[test]
fn the_apps_settings_about_development_hold() {
    let build = r#"{"scripts":{"build":"tsc"}}"#;
    for (package, name, value, calls) in [
        ("{}", "NODE_ENV", "development", &[BUILD][..]),
        (build, "NODE_ENV", "development", &[BUILD, "run build"]),
        (build, "NODE_ENV", "production", &[BUILD, "run build", PRUNE]),
        ("{}", "NPM_CONFIG_PRODUCTION", "false", &[BUILD]),
        (build, "npm_config_production", "false", &[BUILD, "run build"]),
        (build, "NPM_CONFIG_PRODUCTION", "true", &[CI, "run build"]),
    ] {
        let mut builds = builds(package);
        builds.variable(name, value);
        assert_eq!(builds.run(), calls, "{package} {name}={value}");
    }
    let mut builds = builds(r#"{"scripts":{"heroku-prebuild":"a"}}"#);
    builds.variable("NODE_ENV", "development");
    builds.run();
    let seen = fs::read_to_string(builds.at("home/app/before")).unwrap();
    assert_eq!(seen, "\n", "scripts inherit the app's own, which nothing replaces");
}

#[test]
fn development_dependencies_that_the_start_command_needs_stay() {
    let lock = r#"{"lockfileVersion":3,"packages":{"":{},
        "node_modules/cross-env":{"version":"7.0.0","dev":true,"bin":{"cross-env":"x.js"}},
        "node_modules/pm2":{"version":"5.0.0","bin":{"pm2":"x.js"}}}}"#;
    for (package, procfile, calls) in [
        (r#"{"scripts":{"start":"cross-env A=1 node server.js"}}"#, "", &[BUILD][..]),
        (r#"{"scripts":{"start":"npm run serve","serve":"cross-env node x","build":"b"}}"#, "", &[BUILD, "run build"]),
        (r#"{"scripts":{"start":"pm2 start x"}}"#, "", &[CI]),
        ("{}", "worker: cross-env node worker.js", &[BUILD]),
        ("{}", "web: node cross-env", &[CI]),
    ] {
        let mut builds = builds(package);
        builds.file("package-lock.json", lock);
        if !procfile.is_empty() {
            builds.file("Procfile", procfile);
        }
        assert_eq!(builds.run(), calls, "{package} {procfile}");
    }
    let mut unlocked = builds(r#"{"scripts":{"start":"cross-env node x"},"devDependencies":{"cross-env":"7"}}"#);
    unlocked.app.remove("package-lock.json");
    assert_eq!(unlocked.run(), ["install --no-save --no-package-lock --include=dev"]);
}

#[test]
fn pages_that_a_build_makes_are_served_when_there_is_no_server() {
    let web = |builds: &Builds| builds.stage().unwrap().into_iter().map(|process| process.command).collect::<Vec<_>>();
    let makes = "mkdir -p dist; echo page >dist/index.html";
    let vite = r#"{"scripts":{"dev":"vite","build":"vite build","preview":"vite preview"}}"#;
    let developer = r#"{"scripts":{"start":"cross-env PORT=1 react-scripts start","build":"react-scripts build"}}"#;
    for package in [vite, developer] {
        let mut builds = builds(package);
        builds.app.remove("server.js");
        builds.file("makes", makes);
        assert_eq!(web(&builds), ["$HOME/boot.sh"], "{package}");
        assert!(builds.calls().contains(&PRUNE.to_owned()), "{:?}", builds.calls());
        let configuration = fs::read_to_string(builds.at("home/app/nginx/conf/nginx.conf")).unwrap();
        assert!(configuration.contains(&format!("root {};", builds.at("home/app/dist").display())));
        // Words of a Staticfile count here too.
        builds.file("Staticfile", "root: dist\npushstate: enabled\n");
        assert_eq!(web(&builds), ["$HOME/boot.sh"]);
        assert!(fs::read_to_string(builds.at("home/app/nginx/conf/nginx.conf")).unwrap().contains("rewrite"));
    }
    // A server of its own, or a developer who says what runs.
    let mut builds = builds(r#"{"scripts":{"start":"node server.js","build":"x"}}"#);
    builds.file("makes", makes);
    assert_eq!(web(&builds), ["npm start"]);
    builds.file("package.json", vite);
    builds.app.remove("server.js");
    builds.file("Procfile", "web: npx serve dist\n");
    assert!(web(&builds).is_empty() && !builds.at("home/app/boot.sh").exists());
    builds.app.remove("Procfile");
    builds.app.remove("makes");
    assert!(web(&builds).is_empty(), "nothing was made");
    builds.file("package.json", developer);
    assert_eq!(web(&builds), ["npm start"], "as on Cloud Foundry");
}

/// What planning says, and the layers that it takes.
fn planned(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let request = request("nodejs");
    let needs = super::needs(&request, &Listing::of(files)).unwrap();
    (needs.notes, needs.layers.into_iter().map(|(layer, _)| layer.line.clone()).collect())
}

#[test]
fn unsupported_files_are_named_before_anything_is_installed() {
    let start = ("package.json", r#"{"scripts":{"start":"x"}}"#);
    let (notes, _) = planned(&[start, ("yarn.lock", "")]);
    assert!(notes.len() == 1 && notes[0].starts_with("yarn.lock is not read") && notes[0].contains("npm"), "{notes:?}");
    let (notes, _) = planned(&[start, ("pnpm-lock.yaml", ""), ("package-lock.json", LOCK)]);
    assert_eq!(notes, ["pnpm-lock.yaml is not read: dependencies are those of package-lock.json."]);
    let managed = ("package.json", r#"{"scripts":{"start":"x"},"packageManager":"pnpm@9.1.0"}"#);
    assert!(planned(&[managed]).0[0].contains("pnpm@9.1.0"));
    assert!(planned(&[start, (".nvmrc", "20\n")]).0[0].contains(".nvmrc asks for Node.js 20"));
    assert!(planned(&[start, (".nvmrc", "v22\n")]).0.is_empty());
    let engines = ("package.json", r#"{"scripts":{"start":"x"},"engines":{"node":"22"}}"#);
    assert!(planned(&[engines, (".nvmrc", "18")]).0.is_empty(), "engines is the word that counts");
}

#[test]
fn a_missing_start_command_is_reported_before_anything_is_installed() {
    let (notes, layers) = planned(&[("package.json", "{}"), ("src/index.js", "")]);
    assert!(notes[0].contains("No start command"), "{notes:?}");
    assert_eq!(notes[1], "  echo 'web: node src/index.js' > Procfile");
    assert!(!layers.contains(&"nginx-1.22".to_owned()));
    let (notes, layers) = planned(&[("package.json", r#"{"scripts":{"build":"vite build"}}"#)]);
    assert!(notes[0].contains("dist, build or out"), "{notes:?}");
    assert!(layers.contains(&"nginx-1.22".to_owned()), "{layers:?}");
    for file in ["server.js", "index.js", "Procfile"] {
        let text = if file == "Procfile" { "worker: x" } else { "" };
        assert!(planned(&[("package.json", "{}"), (file, text)]).0.is_empty(), "{file}");
    }
}

#[test]
fn each_changed_input_of_an_installation_drops_the_cache() {
    type ChangeInput = fn(&mut Builds);
    let cases: [(&str, ChangeInput); 14] = [
        ("the app", |b| b.variable("VCAP_APPLICATION", r#"{"application_id":"another"}"#)),
        ("a dependency", |b| b.file("package.json", r#"{"dependencies":{"express":"^4.1"}}"#)),
        ("an override", |b| {
            b.app.insert("package.json", r#"{"dependencies":{"express":"^4"},"overrides":{"a":"1"}}"#.into());
        }),
        ("the lock file", |b| b.file("package-lock.json", &LOCK.replace("4.0.0", "4.0.1"))),
        ("a space in the lock file", |b| b.file("package-lock.json", &format!("{LOCK}\n"))),
        ("a second lock file", |b| b.file("npm-shrinkwrap.json", LOCK)),
        (".npmrc", |b| b.file(".npmrc", "legacy-peer-deps=true\n")),
        ("a build script", |b| {
            b.app.insert("package.json", r#"{"scripts":{"build":"x"},"dependencies":{"express":"^4"}}"#.into());
        }),
        ("the release", |b| b.request.catalogue[0].version = "22.2.0".into()),
        ("the layer", |b| b.request.catalogue[0].digest = "another".into()),
        ("the stack", |b| b.request.stack = "cflinuxfs4".into()),
        ("npm's settings", |b| b.variable("NPM_CONFIG_FOREGROUND_SCRIPTS", "true")),
        ("node's settings", |b| b.variable("NODE_OPTIONS", "--no-warnings")),
        ("the platform's settings", |b| {
            drop(b.request.env.insert("NPM_CONFIG_USERCONFIG".into(), "/etc/slipway/registry/npmrc".into()));
        }),
    ];
    for (name, change) in cases {
        let mut builds = builds(r#"{"dependencies":{"express":"^4"}}"#);
        assert_eq!(builds.run(), [CI]);
        change(&mut builds);
        assert!(builds.run().first().is_some_and(|call| call.starts_with("ci ")), "{name}");
        // That is kept in turn.
        assert!(!builds.run().iter().any(|call| call.starts_with("ci ")), "{name}");
    }
}

#[test]
fn code_of_dependencies_may_read_any_variable() {
    for (lock, npmrc) in [
        (LOCK.replace(r#""version":"4.0.0""#, r#""version":"4.0.0","hasInstallScript":true"#), ""),
        (LOCK.replace(r#""version":"4.0.0""#, r#""resolved":"git+ssh://git@git.example/x.git#abc""#), ""),
        (LOCK.to_owned(), "//registry.example/:_authToken=${TOKEN}\n"),
    ] {
        let mut builds = builds(r#"{"dependencies":{"express":"^4"}}"#);
        builds.app.insert("package-lock.json", lock.clone());
        builds.app.insert(".npmrc", npmrc.into());
        assert_eq!(builds.run(), [CI]);
        builds.env.insert("CF_INSTANCE_GUID", "another build");
        builds.env.insert("VCAP_APPLICATION", r#"{"instance_id":"another build"}"#);
        assert_eq!(builds.run(), [""; 0], "{lock}");
        builds.env.insert("GREETING", "hello");
        assert_eq!(builds.run(), [CI], "{lock}");
    }
}

#[test]
fn npm_always_runs_when_its_inputs_cannot_be_compared() {
    let lock = |packages: &str| format!(r#"{{"lockfileVersion":3,"packages":{{"":{{}},{packages}}}}}"#);
    let mut cases: Vec<(String, String, &'static str)> = Vec::new();
    for script in ["preinstall", "install", "postinstall", "prepublish", "prepare", "postprepare", "dependencies"] {
        cases.push((format!(r#"{{"scripts":{{"{script}":"node x.js"}}}}"#), LOCK.into(), ""));
    }
    for package in [
        r#"{"workspaces":["packages/*"]}"#,
        r#"{"dependencies":{"mine":"file:lib"}}"#,
        r#"{"devDependencies":{"mine":"./lib"}}"#,
        r#"{"optionalDependencies":{"mine":"link:../lib"}}"#,
    ] {
        cases.push((package.into(), LOCK.into(), ""));
    }
    for packages in [
        r#""node_modules/mine":{"resolved":"lib","link":true}"#,
        r#""lib":{"version":"1.0.0"}"#,
        r#""node_modules/mine":{"version":"file:mine.tgz"}"#,
        r#""node_modules/mine":{"version":"1.0.0","resolved":"file:mine.tgz"}"#,
    ] {
        cases.push(("{}".into(), lock(packages), ""));
    }
    cases.push(("{}".into(), r#"{"lockfileVersion":1,"dependencies":{}}"#.into(), ""));
    cases.push(("{}".into(), "no JSON".into(), ""));
    cases.push(("{}".into(), LOCK.into(), "binding.gyp"));
    for (package, lock, file) in cases {
        // What an earlier push left must not be taken either.
        let mut builds = builds("{}");
        assert_eq!(builds.run(), [CI]);
        builds.app.insert("package.json", package.clone());
        builds.app.insert("package-lock.json", lock.clone());
        if !file.is_empty() {
            builds.app.insert(file, "{}".into());
        }
        for _ in 0..2 {
            assert_eq!(builds.run(), [CI], "{package} {lock} {file}");
        }
    }
}

#[test]
fn without_a_lock_file_versions_float() {
    for (package, floats) in [
        (json!({}), false),
        (json!({ "dependencies": {}, "workspaces": [] }), false),
        (json!({ "devDependencies": { "vite": "^5" } }), true),
        (json!({ "workspaces": ["packages/*"] }), true),
    ] {
        assert_eq!(has_dependencies(&package), floats, "{package}");
    }
    let mut builds = builds("{}");
    assert_eq!(builds.run(), [CI]);
    builds.app.remove("package-lock.json");
    for _ in 0..2 {
        assert_eq!(builds.run(), ["install --no-save --no-package-lock --omit=dev"]);
    }
}

#[test]
fn an_installation_that_writes_elsewhere_is_made_every_time() {
    for effect in ["echo x >generated.js", "echo more >>server.js", "touch ../deps/0/made", "rm server.js"] {
        let mut builds = builds("{}");
        builds.app.insert("effect", effect.into());
        for _ in 0..2 {
            assert_eq!(builds.run(), [CI], "{effect}");
        }
    }
}

#[test]
fn a_failed_installation_leaves_nothing_to_take() {
    let mut builds = builds("{}");
    assert_eq!(builds.run(), [CI]);
    builds.app.insert("package-lock.json", format!("{LOCK} "));
    builds.app.insert("effect", "exit 3".into());
    builds.stage().unwrap_err();
    builds.app.remove("effect");
    builds.app.insert("package-lock.json", LOCK.into());
    assert_eq!(builds.run(), [CI]);
}

#[test]
fn a_damaged_cache_costs_an_installation() {
    let builds = builds("{}");
    assert_eq!(builds.run(), [CI]);
    let app = builds.tree("home/app");
    let archive = builds.at("cache/mine/installed.tar.zst");
    fs::write(&archive, "junk").unwrap();
    assert_eq!(builds.run(), [CI]);
    assert_eq!(builds.tree("home/app"), app);
    assert_eq!(builds.run(), [""; 0]);
}
