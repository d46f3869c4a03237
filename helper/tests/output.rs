//! What somebody who pushes reads of a build: the builder's own output.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// An archive of executable files.
fn zip(path: &Path, files: &[(&str, &str)]) {
    let mut writer = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, text) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        writer.start_file(*name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

/// What both phases print, as long as they succeed.
fn output(app: &[(&str, &str)], buildpack: &[(&str, &str)], request: Value) -> String {
    output_of(app, buildpack, request, |_| ())
}

/// As [`output`], with the plan changed between the phases.
fn output_of(app: &[(&str, &str)], buildpack: &[(&str, &str)], request: Value, change: fn(&mut Value)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["in/buildpacks", "out"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    zip(&at("in/package.zip"), app);
    zip(&at("in/buildpacks/0.zip"), buildpack);
    let mut request = request;
    request["stack"] = json!("debian12");
    request["paths"] = json!({
        "app": at("home/vcap/app"), "deps": at("home/vcap/deps"), "cache": at("cache"), "input": at("in"),
        "output": at("out"), "buildpacks": at("buildpacks"),
    });
    std::fs::write(at("in/request.json"), request.to_string()).unwrap();
    let mut printed = String::new();
    for phase in ["detect", "build"] {
        let mut builder = Command::new(env!("CARGO_BIN_EXE_slipway-helper"));
        let done = builder.args(["builder", phase]).arg(at("in/request.json")).output().unwrap();
        printed += &String::from_utf8(done.stdout).unwrap();
        if !done.status.success() {
            break;
        }
        if phase == "detect" {
            let mut plan = serde_json::from_slice(&std::fs::read(at("out/plan.json")).unwrap()).unwrap();
            change(&mut plan);
            std::fs::write(at("out/plan.json"), plan.to_string()).unwrap();
        }
    }
    printed
}

fn builtin(name: &str) -> Value {
    json!({ "name": format!("{name}_buildpack"), "builtin": name })
}

#[test]
fn a_buildpack_is_named_once() {
    let app = [("Procfile", "web: ./run\n"), ("run", "#!/bin/sh\n")];
    let one = output(&app, &[], json!({ "buildpacks": [builtin("binary")], "skip_detect": true }));
    assert_eq!(one.matches("binary_buildpack").count(), 1, "{one}");
    // Of several it is told when each begins.
    let both = json!([{ "name": "other_buildpack", "builtin": "binary" }, builtin("binary")]);
    let two = output(&app, &[], json!({ "buildpacks": both, "skip_detect": true }));
    assert!(two.contains("-----> other_buildpack\n-----> binary_buildpack\n"), "{two}");
}

#[test]
fn the_end_of_a_failed_build_says_first_what_failed() {
    let pack = [("bin/detect", "#!/bin/sh\n"), ("bin/compile", "#!/bin/sh\necho why\nexit 4\n")];
    let mine = json!({ "name": "mine", "zip": "buildpacks/0.zip" });
    let printed = output(&[("a", "")], &pack, json!({ "buildpacks": [mine] }));
    let last = printed.lines().last().unwrap_or_default();
    let said = "-----> Staging failed: The script bin/compile of the buildpack mine failed: exit status 4. [BuildpackCompileFailed]";
    assert_eq!(last, said, "{printed}");
}

#[test]
fn the_guessed_start_command_is_shown_before_and_after_the_build() {
    let begins = "  echo 'web: gunicorn app:app' > Procfile\n       or push with -c 'gunicorn app:app'";
    let app = [("requirements.txt", "flask\n"), ("app.py", "app = Flask(__name__)\n"), ("runtime.txt", "python-3.11")];
    let layer =
        json!({ "digest": "ab", "kind": "runtime", "name": "python", "line": "cpython-3.11", "version": "3.11.2" });
    // Without its buildpack the build installs nothing.
    let planned = output_of(&app, &[], json!({ "buildpacks": [builtin("python")], "catalogue": [layer] }), |plan| {
        assert_eq!(plan["start"], json!({ "command": "gunicorn app:app", "missing": "gunicorn" }));
        plan["buildpacks"] = json!([]);
    });
    let at = planned.find(begins).unwrap_or_else(|| panic!("{planned}"));
    let again = planned.rfind(begins).unwrap_or_default();
    let end = planned.find("No start command was found").unwrap_or_else(|| panic!("{planned}"));
    assert!(at < end && end < again, "{planned}");
}
