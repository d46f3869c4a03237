//! When npm runs, and that the app gets the same either way.

use std::fs;

use super::super::Builtin;
use super::super::testing::Builds;

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
run) cat node_modules/express/index.js >built ;;
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

#[test]
fn everything_that_an_installation_follows_from_drops_it() {
    type Change = fn(&mut Builds);
    let cases: [(&str, Change); 14] = [
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
fn where_npm_does_more_than_can_be_compared_it_always_runs() {
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
