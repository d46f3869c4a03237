//! When pip runs, and that a restored environment is the same as an installed one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::Builtin;
use super::super::testing::{Builds, request};
use crate::dependency_cache::{ComparedVariables, DependencyCache, Variables};
use crate::source::Listing;

/// `-m venv … DIR` makes an environment; `-m pip --python …` installs what the requirements are.
const PYTHON: &str = r#"case $2 in
venv)
    echo venv >>$LOG
    for directory; do :; done
    mkdir -p "$directory/bin" "$directory/lib/site-packages"
    ln -s "$(dirname "$LOG")/bin/python3" "$directory/bin/python3"
    ln -s python3 "$directory/bin/python"
    ln -s python3 "$directory/bin/python3.11"
    ln -s lib "$directory/lib64" ;;
pip)
    echo pip >>$LOG
    site=$(dirname "$(dirname "$4")")/lib/site-packages
    cp requirements.txt "$site/installed" 2>/dev/null || echo none >"$site/installed"
    if [ -f effect ]; then . ./effect; fi
    echo tool >"$site/../../bin/flask" ;;
collectstatic)
    echo "$*" >>$LOG
    if [ -f collects ]; then . ./collects; fi ;;
esac"#;

const BOTH: [&str; 2] = ["venv", "pip"];

fn builds(requirements: &str) -> Builds {
    let app = [("requirements.txt", requirements), ("app.py", "1")];
    Builds::new(Builtin::Python, &app, &[("python3", PYTHON)])
}

#[test]
fn an_unchanged_app_is_not_installed_again_and_gets_the_same() {
    let mut builds = builds("flask==3\n");
    assert_eq!(builds.run(), BOTH);
    let (app, deps) = (builds.tree("home/app"), builds.tree("home/deps"));
    assert_eq!(builds.run(), [""; 0]);
    assert_eq!((builds.tree("home/app"), builds.tree("home/deps")), (app, deps));
    builds.app.insert("app.py", "2".into());
    assert_eq!(builds.run(), [""; 0]);
}

#[test]
fn each_changed_input_of_an_installation_drops_the_cache() {
    type ChangeInput = fn(&mut Builds);
    let cases: [(&str, ChangeInput); 9] = [
        ("a requirement", |b| b.file("requirements.txt", "-r base.txt\nflask==3.0.1\n")),
        ("an included file", |b| b.file("base.txt", "gunicorn==23\n")),
        ("a comment", |b| b.file("requirements.txt", "-r base.txt\nflask==3 # exactly\n")),
        ("the release", |b| b.request.catalogue[1].version = "3.11.3".into()),
        ("the layer", |b| b.request.catalogue[1].digest = "another".into()),
        ("the stack", |b| b.request.stack = "cflinuxfs4".into()),
        ("pip's settings", |b| b.variable("PIP_INDEX_URL", "https://other.example/simple")),
        ("a variable that a setup.py may read", |b| b.variable("CFLAGS", "-O3")),
        ("the platform's settings", |b| {
            drop(b.request.env.insert("PIP_CONFIG_FILE".into(), "/etc/slipway/registry/pip.conf".into()));
        }),
    ];
    for (name, change) in cases {
        let mut builds = builds("-r base.txt\nflask==3\n");
        builds.app.insert("base.txt", "gunicorn==22\n".into());
        assert_eq!(builds.run(), BOTH);
        change(&mut builds);
        assert_eq!(builds.run(), BOTH, "{name}");
        assert_eq!(builds.run(), [""; 0], "{name}");
    }
}

#[test]
fn pip_always_runs_when_its_inputs_cannot_be_compared() {
    type ChangeInput = fn(&mut Builds);
    let cases: [(&str, ChangeInput); 6] = [
        ("editable", |b| b.file("requirements.txt", "-e .\n")),
        ("a branch", |b| b.file("requirements.txt", "git+https://git.example/x.git@main\n")),
        ("vendored", |b| b.file("vendor/flask.whl", "")),
        ("a project", |b| {
            b.app.remove("requirements.txt");
            b.app.insert("pyproject.toml", String::new());
        }),
        ("a constraint", |b| drop(b.request.env.insert("PIP_CONSTRAINT".into(), "limits.txt".into()))),
        ("writes elsewhere", |b| b.file("effect", "echo x >generated.py")),
    ];
    for (name, change) in cases {
        // What an earlier push left must not be taken either.
        let mut builds = builds("flask==3\n");
        assert_eq!(builds.run(), BOTH);
        change(&mut builds);
        if name == "writes elsewhere" {
            builds.app.insert("requirements.txt", "flask==4\n".into());
        }
        for _ in 0..2 {
            assert_eq!(builds.run(), BOTH, "{name}");
        }
    }
}

#[test]
fn the_cache_does_not_decide_which_python_runs() {
    let builds = builds("flask==3\n");
    assert_eq!(builds.run(), BOTH);
    let environment = builds.at("home/deps/0/python");
    let before = builds.tree("home/deps");
    let cache = builds.at("cache/mine");
    let forged_cache = forged(&builds, &cache);
    // A cache with a Python of its own, as a file or as a link.
    for make in [(|path: &Path| fs::write(path, "evil").unwrap()) as fn(&Path), |path: &Path| {
        symlink("../lib/evil", path).unwrap()
    }] {
        fs::remove_file(environment.join("bin/python")).unwrap();
        make(&environment.join("bin/python"));
        forged_cache.keep().unwrap();
        reseal(&builds);
        assert_eq!(builds.run(), BOTH, "it was dropped");
        assert_eq!(builds.tree("home/deps"), before);
    }
    // One without a place for it.
    fs::remove_dir_all(environment.join("bin")).unwrap();
    forged_cache.keep().unwrap();
    reseal(&builds);
    assert_eq!(builds.run(), BOTH);
    assert_eq!(builds.tree("home/deps"), before);
}

/// An app with Django, whose collecting does this.
fn django(collects: &str) -> Builds {
    let installs =
        "mkdir -p $site/../python3.11/site-packages/django; echo >$site/../python3.11/site-packages/django/__init__.py";
    let app = [
        ("requirements.txt", "django==5\n"),
        ("effect", installs),
        ("shop/manage.py", ""),
        ("shop/deep/manage.py", ""),
        ("collects", collects),
    ];
    Builds::new(Builtin::Python, &app, &[("python3", PYTHON)])
}

const COLLECT: &str = "shop/manage.py collectstatic --noinput --traceback";

#[test]
fn static_files_of_django_are_collected_with_every_push() {
    let mut builds = django("mkdir -p static; echo made >static/all.css");
    assert_eq!(builds.run(), ["venv", "pip", COLLECT]);
    assert!(builds.at("home/app/static/all.css").is_file());
    assert_eq!(builds.run(), [COLLECT], "also when nothing is installed");
    builds.variable("DISABLE_COLLECTSTATIC", "1");
    assert!(!builds.run().contains(&COLLECT.to_owned()));
    // Neither without Django nor without a project.
    builds.env.clear();
    builds.app.remove("shop/manage.py");
    builds.app.remove("shop/deep/manage.py");
    assert!(!builds.run().iter().any(|call| call.contains("collectstatic")));
    builds.file("manage.py", "");
    builds.app.remove("effect");
    builds.file("requirements.txt", "flask==3\n");
    assert_eq!(builds.run(), BOTH);
}

#[test]
fn a_failed_collectstatic_says_how_to_go_on() {
    for words in [
        "django.core: using the staticfiles app without having set the STATIC_ROOT setting",
        "Unknown command: 'collectstatic'",
    ] {
        assert!(django(&format!("echo \"{words}\" >&2; exit 1")).stage().is_ok(), "{words}");
    }
    let text = django("echo no such table >&2; exit 1").stage().unwrap_err().to_error().text;
    assert!(text.contains("no such table") && text.contains("DISABLE_COLLECTSTATIC=1"), "{text}");
}

#[test]
fn a_failure_of_pip_omits_the_options_of_the_platform() {
    let mut builds = builds("flask==99\n");
    builds.file("effect", "echo 'ERROR: No matching distribution found for flask==99' >&2; exit 1");
    let text = builds.stage().unwrap_err().to_error().text;
    let first =
        "The command `pip install -r requirements.txt` failed: exit status 1 (python_buildpack).\nERROR: No matching";
    assert!(text.starts_with(first) && text.contains("flask==99") && !text.contains("--use-pep517"), "{text}");
    builds.file("vendor/flask.whl", "");
    let text = builds.stage().unwrap_err().to_error().text;
    assert!(text.contains("`pip install --no-index --find-links vendor -r requirements.txt`"), "{text}");
}

/// What planning says, and the version that it takes.
fn planned(files: &[(&str, &str)]) -> (Vec<String>, String) {
    let request = request("python");
    let needs = super::needs(&request, &Listing::of(files)).unwrap();
    (needs.notes, needs.says)
}

#[test]
fn unsupported_files_are_named_before_anything_is_installed() {
    let procfile = ("Procfile", "web: x");
    let (notes, says) = planned(&[procfile, ("requirements.txt", ""), (".python-version", "3.11.9\n")]);
    assert!(says == "python 3.11.2" && notes.len() == 1 && notes[0].contains("keeps this line patched"), "{notes:?}");
    let (notes, _) = planned(&[procfile, ("requirements.txt", ""), (".python-version", "3.14\n")]);
    assert!(notes[0].contains(".python-version asks for Python 3.14") && notes[0].contains("3.11.2"), "{notes:?}");
    let (notes, _) = planned(&[procfile, ("pyproject.toml", ""), ("uv.lock", ""), ("poetry.lock", "")]);
    assert!(notes.iter().any(|note| note.starts_with("uv.lock") && note.contains("uv export")), "{notes:?}");
    assert!(notes.iter().any(|note| note.starts_with("poetry.lock") && note.contains("poetry export")), "{notes:?}");
    let (notes, _) = planned(&[procfile, ("requirements.txt", ""), ("Pipfile", ""), ("Pipfile.lock", "")]);
    assert_eq!(notes, ["Pipfile.lock is not read: dependencies are those of requirements.txt."]);
    assert!(planned(&[procfile, ("requirements.txt", "")]).0.is_empty());
    let (notes, _) = planned(&[("requirements.txt", "flask"), ("app.py", "app = Flask(__name__)")]);
    assert!(notes.iter().any(|note| note.contains("echo 'web: gunicorn app:app' > Procfile")), "{notes:?}");
    assert!(planned(&[("requirements.txt", ""), ("Procfile", "worker: x")]).0.is_empty(), "no web process is meant");
}

#[test]
fn a_package_for_another_python_is_refused_at_once() {
    let request = request("python");
    let needs = |range: &str| {
        let text = format!("[project]\nname = 'x'\nrequires-python = \"{range}\" # ours\n");
        super::needs(&request, &Listing::of(&[("pyproject.toml", &text)])).map(|needs| needs.says)
    };
    assert_eq!(needs(">=3.9,<4").unwrap(), "python 3.11.2");
    let text = needs(">=3.12").unwrap_err().to_error().text;
    assert!(text.contains(">=3.12") && text.contains("pyproject.toml") && text.contains("3.11.2"), "{text}");
}

/// The tree as it lies there, with nothing left out, and with the facts of the true record.
fn forged<'a>(builds: &Builds, cache: &'a Path) -> DependencyCache<'a> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(cache.join("installed.json")).unwrap()).unwrap();
    fs::write(builds.at("true.json"), record.to_string()).unwrap();
    DependencyCache {
        cache,
        facts: serde_json::from_value(record["facts"].clone()).unwrap(),
        variables: Variables::of([], ComparedVariables::All, Path::new("/")),
        place: builds.at("home/deps/0/python"),
        leave: vec![],
        max_entries: 1000,
    }
}

/// Gives the forged record the variables of the true one.
fn reseal(builds: &Builds) {
    let path = builds.at("cache/mine/installed.json");
    let truth: serde_json::Value = serde_json::from_slice(&fs::read(builds.at("true.json")).unwrap()).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["variables"] = truth["variables"].clone();
    fs::write(path, record.to_string()).unwrap();
}
