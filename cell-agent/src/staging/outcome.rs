//! From the builder's claims to a result: only layers of the catalogue, only bounded texts.

use slipway_buildpacks::contract::{BuildOutcome, BuildPlan};
use slipway_protocol::v1::{BuildResult, BuildSpec, DetectedBuildpack, Layer, ProcessType};

use super::failure::{Failure, shorten};
use super::from_catalogue;

const MOST_PROCESS_TYPES: usize = 100;
const MOST_BUILDPACKS: usize = 100;
const MOST_COMMAND: usize = 65_536;

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
    if answer.process_types.len() > MOST_PROCESS_TYPES || answer.buildpacks.len() > MOST_BUILDPACKS {
        return Err(Failure::staging("the build names more than 100 process types or buildpacks"));
    }
    let mut layers = Vec::new();
    for digest in &answer.layers {
        let layer = from_catalogue(spec, digest).filter(|layer| layer.kind == "runtime").ok_or_else(|| {
            Failure::staging(&format!("the droplet needs the layer {digest:?}, which is no runtime of the catalogue"))
        })?;
        layers.push(layer.clone());
    }
    let mut process_types = Vec::new();
    for process in answer.process_types {
        if process.command.len() > MOST_COMMAND {
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
}
