use std::path::Path;

use serde_json::json;
use slipway_cell_agent::sandbox::{Exit, SandboxSpec};
use slipway_cell_agent::sim::{Program, exit};
use slipway_protocol::v1::{
    Blob, BuildResult, BuildSpec, BuildpackRef, InstanceState, Intent, WorkloadKind, WorkloadSpec,
};
use uuid::Uuid;

use crate::world::{LIMIT, World, archive, assignment, eventually};

fn build_spec(world: &World) -> WorkloadSpec {
    let package = b"a zip".to_vec();
    let mut spec = world.web();
    spec.kind = WorkloadKind::Build.into();
    spec.droplet = None;
    spec.build = Some(BuildSpec {
        package: Some(Blob {
            size: package.len() as u64,
            digest: world.controller.put_blob(package),
            format: "zip".to_owned(),
        }),
        buildpacks: vec![BuildpackRef {
            name: "nodejs_buildpack".into(),
            builtin: "nodejs".into(),
            ..BuildpackRef::default()
        }],
        catalogue: vec![world.layer("runtime", "node-22"), world.layer("build", "build-12")],
        timeout_ms: 60_000,
        ..BuildSpec::default()
    });
    spec
}

/// Runs a build whose phases do what `script` says; answers its result.
pub(crate) async fn build(
    script: impl Fn(&SandboxSpec, &Path, &str) -> Program + Send + Sync + 'static,
    change: impl FnOnce(&World, &mut BuildSpec),
) -> (World, BuildResult) {
    let world = World::new(move |spec, volume| {
        let volume = volume.expect("a build has a volume");
        script(spec, volume, &spec.argv[1])
    })
    .await;
    let mut spec = build_spec(&world);
    change(&world, spec.build.as_mut().expect("build"));
    let digest = world.controller.put_spec(&spec);
    let id = Uuid::new_v4();
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    let seen = world.state(id, InstanceState::Completed).await;
    assert_eq!(world.runtime.leftovers(), 0, "nothing of the build is left");
    (world, seen.build.expect("result"))
}

pub(crate) fn write(volume: &Path, name: &str, value: &serde_json::Value) {
    std::fs::write(volume.join("out").join(name), value.to_string()).expect("write");
}

/// A plan that names all layers of the catalogue in the request.
pub(crate) fn plan(volume: &Path) -> Program {
    let request: serde_json::Value =
        serde_json::from_slice(&std::fs::read(volume.join("in/request.json")).expect("request")).expect("json");
    assert_eq!(std::fs::read(volume.join("in/package.zip")).expect("package"), b"a zip");
    let layers: Vec<_> = request["catalogue"]
        .as_array()
        .expect("catalogue")
        .iter()
        .map(
            |layer| json!({ "digest": layer["digest"], "line": layer["line"], "build_only": layer["kind"] == "build" }),
        )
        .collect();
    write(volume, "plan.json", &json!({ "buildpacks": [], "layers": layers }));
    Program::Exit(exit(0))
}

pub(crate) fn outcome() -> serde_json::Value {
    json!({ "ok": true, "process_types": [{ "type": "web", "command": "node server.js" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_runs_both_phases_and_its_droplet_is_cached_and_uploaded() {
    let script = |spec: &SandboxSpec, volume: &Path, phase: &str| {
        if phase == "detect" {
            assert_eq!(spec.layers.len(), 1, "detection sees the stack alone");
            return plan(volume);
        }
        assert_eq!(spec.layers.len(), 3);
        std::fs::write(volume.join("out/droplet.tar.zst"), archive(&[("app/server.js", "built")]).0).expect("droplet");
        write(volume, "result.json", &outcome());
        Program::Exit(exit(0))
    };
    let (world, result) = build(script, |_, _| {}).await;
    assert!(result.ok, "{}", result.error_text);
    let droplet = result.droplet.expect("droplet");
    assert!(world.controller.has_blob(&droplet.digest));
    assert_eq!(result.process_types[0].command, "node server.js");
    assert_eq!(result.droplet_unpacked_bytes, 4096, "what its one file takes of a disk");
    assert_eq!(world.controller.fetches(&droplet.digest), 0, "its own cell needs no download");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guessed_start_command_goes_from_the_plan_into_the_result() {
    let script = |_: &SandboxSpec, volume: &Path, phase: &str| {
        if phase == "detect" {
            let start = json!({ "command": "gunicorn app:app", "missing": "gunicorn" });
            write(volume, "plan.json", &json!({ "buildpacks": [], "layers": [], "start": start }));
        } else {
            std::fs::write(volume.join("out/droplet.tar.zst"), archive(&[("app/app.py", "")]).0).expect("droplet");
            write(volume, "result.json", &json!({ "ok": true }));
        }
        Program::Exit(exit(0))
    };
    let (_, result) = build(script, |_, _| {}).await;
    assert!(result.ok, "{}", result.error_text);
    let hint = result.start_hint.expect("a hint");
    assert_eq!((hint.command.as_str(), hint.missing.as_str()), ("gunicorn app:app", "gunicorn"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_waits_for_its_package_can_be_cancelled() {
    let world = World::new(|_, _| Program::Exit(exit(0))).await;
    let spec = build_spec(&world);
    let package = spec.build.as_ref().and_then(|build| build.package.clone()).expect("package");
    world.controller.withhold_blob(&package.digest);
    let digest = world.controller.put_spec(&spec);
    let id = Uuid::new_v4();
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    eventually("the package is asked for", LIMIT, || async {
        (world.controller.fetches(&package.digest) > 0).then_some(()).ok_or(())
    })
    .await;
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Stop)]);
    world.state(id, InstanceState::Stopped).await;
    assert_eq!(world.runtime.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_failed_builds_end_with_a_clear_error() {
    type Phase = fn(&SandboxSpec, &Path, &str) -> Program;
    let cases: [(&str, Phase, &str, &str); 7] = [
        (
            "no buildpack",
            |_, volume, _| {
                let error = json!({ "id": "NoAppDetectedError", "text": "none of the buildpacks" });
                write(volume, "plan.json", &json!({ "buildpacks": [], "layers": [], "error": error }));
                Program::Exit(exit(222))
            },
            "NoAppDetectedError",
            "none of the buildpacks",
        ),
        (
            "a layer that is not in the catalogue",
            |_, volume, _| {
                let layer = json!({ "digest": "00".repeat(32), "line": "evil", "build_only": false });
                write(volume, "plan.json", &json!({ "buildpacks": [], "layers": [layer] }));
                Program::Exit(exit(0))
            },
            "StagingError",
            "catalogue",
        ),
        (
            "a link as plan",
            |_, volume, _| {
                std::os::unix::fs::symlink("/etc/shadow", volume.join("out/plan.json")).expect("link");
                Program::Exit(exit(0))
            },
            "StagingError",
            "not a regular file",
        ),
        (
            "out of memory",
            |_, _, _| Program::Exit(Exit { out_of_memory: true, ..exit(137) }),
            "StagingError",
            "limit 64 MiB",
        ),
        (
            "killed while compiling",
            |_, volume, phase| {
                if phase == "detect" { plan(volume) } else { Program::Exit(Exit { signal: Some(9), ..exit(137) }) }
            },
            "StagingError",
            "signal 9",
        ),
        (
            "a droplet that leads out",
            |_, volume, phase| {
                if phase == "detect" {
                    return plan(volume);
                }
                std::os::unix::fs::symlink("/etc/passwd", volume.join("out/droplet.tar.zst")).expect("link");
                write(volume, "result.json", &outcome());
                Program::Exit(exit(0))
            },
            "StagingError",
            "not a regular file",
        ),
        (
            "a droplet that is none",
            |_, volume, phase| {
                if phase == "detect" {
                    return plan(volume);
                }
                std::fs::write(volume.join("out/droplet.tar.zst"), "rubbish").expect("write");
                write(volume, "result.json", &outcome());
                Program::Exit(exit(0))
            },
            "StagingError",
            "damaged",
        ),
    ];
    for (name, script, id, words) in cases {
        let (_, result) = build(script, |_, _| {}).await;
        assert!(!result.ok, "{name}");
        assert_eq!(result.error_id, id, "{name}: {}", result.error_text);
        assert!(result.error_text.contains(words), "{name}: {}", result.error_text);
    }
}
