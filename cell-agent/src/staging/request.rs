//! The builder's request, from the spec.

use slipway_buildpacks::contract::{BuildLimits, BuildPaths, BuildRequest, BuildpackRequest, CatalogueLayer};
use slipway_protocol::v1::{BuildSpec, WorkloadSpec};

use super::host_settings::HostSettings;

/// What the builder is asked for. Secrets are not in it: they come as its environment.
pub(super) fn request(
    spec: &WorkloadSpec,
    build: &BuildSpec,
    settings: Option<&HostSettings>,
    timeout_ms: u32,
) -> BuildRequest {
    let buildpacks = build.buildpacks.iter().enumerate().map(|(number, buildpack)| BuildpackRequest {
        name: buildpack.name.clone(),
        builtin: some(&buildpack.builtin),
        zip: buildpack.blob.is_some().then(|| format!("buildpacks/{number}.zip").into()),
        url: some(&buildpack.url),
    });
    let catalogue = build.catalogue.iter().map(|layer| CatalogueLayer {
        digest: hex::encode(&layer.digest),
        kind: layer.kind.clone(),
        name: layer.name.clone(),
        line: layer.line.clone(),
        version: layer.version.clone(),
    });
    let limits = BuildLimits::default();
    BuildRequest {
        stack: spec.stack.clone(),
        env: settings.map(HostSettings::public_env).unwrap_or_default(),
        skip_detect: build.skip_detect,
        buildpacks: buildpacks.collect(),
        catalogue: catalogue.collect(),
        command: some(&spec.command),
        limits: BuildLimits {
            max_droplet_bytes: if build.max_droplet_bytes == 0 {
                limits.max_droplet_bytes
            } else {
                build.max_droplet_bytes
            },
            timeout_ms: timeout_ms.into(),
            ..limits
        },
        paths: BuildPaths::default(),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
