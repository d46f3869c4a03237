//! From the builder's claims to a result: only layers of the catalogue, only bounded texts.

use slipway_buildpacks::contract::{BuildOutcome, BuildPlan};
use slipway_buildpacks::start::StartHint as Planned;
use slipway_protocol::v1::{BuildResult, BuildSpec, DetectedBuildpack, Layer, ProcessType, StartHint};

use super::failure::{Failure, shorten};
use super::from_catalogue;

const MAX_PROCESS_TYPES: usize = 100;
const MAX_BUILDPACKS: usize = 100;
const MAX_COMMAND: usize = 65_536;
const MAX_HINT: usize = 200;

/// The layers of a plan, lowest first.
pub(super) fn planned_layers<'a>(plan: &BuildPlan, spec: &'a BuildSpec) -> Result<Vec<&'a Layer>, Failure> {
    let mut layers: Vec<&Layer> = Vec::new();
    for planned in &plan.layers {
        let layer = from_catalogue(spec, &planned.digest).ok_or_else(|| {
            Failure::staging(&format!(
                "the build asked for the layer {:?}, which is not in the catalogue",
                planned.line
            ))
        })?;
        if !layers.iter().any(|other| other.digest == layer.digest) {
            layers.push(layer);
        }
    }
    Ok(layers)
}

/// The result but for droplet, cache and timings.
pub(super) fn result(answer: BuildOutcome, spec: &BuildSpec, stack: &str) -> Result<BuildResult, Failure> {
    if answer.process_types.len() > MAX_PROCESS_TYPES || answer.buildpacks.len() > MAX_BUILDPACKS {
        return Err(Failure::staging("the build names more than 100 process types or buildpacks"));
    }
    let mut layers = Vec::new();
    for digest in &answer.layers {
        let layer = from_catalogue(spec, digest).filter(|layer| layer.kind == "runtime").ok_or_else(|| {
            Failure::staging(&format!(
                "the droplet needs the layer {digest:?}, which is not a runtime of the catalogue"
            ))
        })?;
        layers.push(layer.clone());
    }
    let mut process_types = Vec::new();
    for process in answer.process_types {
        if process.command.len() > MAX_COMMAND {
            return Err(Failure::staging(&format!(
                "the command of process type {:?} is too long",
                shorten(&process.kind)
            )));
        }
        process_types.push(ProcessType { r#type: process.kind, command: process.command });
    }
    let buildpacks = answer.buildpacks.into_iter().map(|buildpack| DetectedBuildpack {
        name: shorten(&buildpack.name),
        detect_output: shorten(&buildpack.detect_output),
        buildpack_name: shorten(&buildpack.buildpack_name),
        version: shorten(&buildpack.version),
    });
    let sonames_json = serde_json::to_string(&answer.sonames).map_err(|error| Failure::platform(&error.to_string()))?;
    Ok(BuildResult {
        ok: true,
        layers,
        process_types,
        buildpacks: buildpacks.collect(),
        stack: stack.to_owned(),
        sonames_json,
        ..BuildResult::default()
    })
}

/// What seems to start an app that has no process `web`. People are shown it as something to type into their shell, so it is
/// of plain characters or it is none; the plan is older than all foreign code but `bin/detect`.
pub(super) fn start_hint(planned: Option<Planned>, result: &BuildResult) -> Option<StartHint> {
    let plain = |text: &str, more: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if result.process_types.iter().any(|process| process.r#type == "web") {
        return None;
    }
    let hint = planned.filter(|hint| plain(&hint.command, " ._/:$-", MAX_HINT))?;
    let missing = hint.missing.filter(|package| plain(package, "._-", MAX_HINT)).unwrap_or_default();
    Some(StartHint { command: hint.command, missing })
}

#[cfg(test)]
mod tests {
    use slipway_buildpacks::contract::PlannedLayer;

    use super::*;

    fn spec() -> BuildSpec {
        let layer =
            |byte: u8, kind: &str| Layer { digest: vec![byte; 32].into(), kind: kind.into(), ..Layer::default() };
        BuildSpec { catalogue: vec![layer(1, "runtime"), layer(2, "build")], ..BuildSpec::default() }
    }

    #[test]
    fn only_layers_of_the_catalogue() {
        let planned = |byte: u8| PlannedLayer { digest: hex::encode([byte; 32]), line: "x".into(), build_only: false };
        let plan = BuildPlan { layers: vec![planned(1), planned(2), planned(1)], ..BuildPlan::default() };
        assert_eq!(planned_layers(&plan, &spec()).expect("known").len(), 2);
        let plan = BuildPlan { layers: vec![planned(3)], ..BuildPlan::default() };
        assert!(planned_layers(&plan, &spec()).expect_err("unknown").text().contains("catalogue"));
        let answer = |byte: u8| BuildOutcome { layers: vec![hex::encode([byte; 32])], ..BuildOutcome::default() };
        assert_eq!(result(answer(1), &spec(), "debian12").expect("runtime").layers.len(), 1);
        assert!(result(answer(2), &spec(), "debian12").is_err(), "a build layer is absent at run time");
    }

    #[test]
    fn suggested_start_commands_are_harmless() {
        let hint = |command: &str, missing: &str| {
            let planned = Planned { command: command.into(), missing: Some(missing.into()) };
            start_hint(Some(planned), &BuildResult::default()).map(|hint| (hint.command, hint.missing))
        };
        let known = "uvicorn main:app --host 0.0.0.0 --port $PORT";
        assert_eq!(hint(known, "uvicorn"), Some((known.into(), "uvicorn".into())));
        assert_eq!(hint(known, "x; y"), Some((known.into(), String::new())));
        for bad in ["", "x'; rm -rf ~; '", "a\nb", "$(id)", "`id`", "\u{1b}[2J", &"x".repeat(201)] {
            assert_eq!(hint(bad, ""), None, "{bad:?}");
        }
        let web = ProcessType { r#type: "web".into(), command: "npm start".into() };
        let planned = Planned { command: known.into(), missing: None };
        assert_eq!(
            start_hint(Some(planned), &BuildResult { process_types: vec![web], ..BuildResult::default() }),
            None
        );
    }
}
