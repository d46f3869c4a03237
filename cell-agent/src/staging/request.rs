//! The builder's request, from the spec.

use std::collections::BTreeMap;

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
        env: settings.map(|settings| of_host(settings, spec)).unwrap_or_default(),
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

/// Files of the host's settings, but where the app names its own.
fn of_host(settings: &HostSettings, spec: &WorkloadSpec) -> BTreeMap<String, String> {
    let mut variables = settings.public_env();
    variables.retain(|name, _| !super::says(spec, name));
    variables
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use slipway_protocol::v1::EnvVar;

    use super::*;

    #[test]
    fn registry_settings_of_an_app_take_precedence() {
        let file = |name: &str| format!("{}/{name}", super::super::host_settings::INSIDE);
        let variables = [("PIP_CONFIG_FILE", file("pip.conf")), ("NPM_CONFIG_USERCONFIG", file("npmrc"))];
        let mut settings = HostSettings::default();
        settings.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        let own = EnvVar { name: "npm_config_userconfig".into(), value: "/home/vcap/app/.npmrc".into() };
        let spec = WorkloadSpec { env: vec![own], ..WorkloadSpec::default() };
        let request = request(&spec, &BuildSpec::default(), Some(&settings), 1);
        assert_eq!(request.env.into_keys().collect::<Vec<_>>(), ["PIP_CONFIG_FILE"]);
    }
}
