//! A build on a cell: detection over the stack alone, then supply and finalize over the layers that its answer names,
//! then the droplet goes to the object store and into this cell's own cache.
//!
//! What comes out of the sandbox is hostile: files are opened without following links, bounded, hashed here; layers
//! are taken from the catalogue of the spec only. Whatever happens, the build ends with a [`BuildResult`].

mod collect;
mod failure;
pub mod files;
pub mod host_settings;
mod outcome;
mod request;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slipway_buildpacks::contract::{BuildOutcome, BuildPlan, CACHE_FILE, PLAN_FILE, REQUEST_FILE, RESULT_FILE};
use slipway_protocol::v1::{Assignment, BuildResult, BuildSpec, Layer, WorkloadSpec};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::failure::Failure;
use self::files::Volume;
use self::host_settings::HostSettings;
use crate::cache::CacheLease;
use crate::config::CellConfig;
use crate::env::{self, InstanceContext};
use crate::instance::prepare::Prepared;
use crate::instance::runner;
use crate::registries::Registries;
use crate::sandbox::{Bind, Exit, SandboxId, SandboxSpec};
use crate::services::{Live, Services};
use crate::workload;

/// A plan names a handful of layers; a megabyte of it is an attack.
const MAX_PLAN_BYTES: u64 = 1 << 20;
/// A result lists the libraries of every binary in the droplet.
const MAX_RESULT_BYTES: u64 = 32 << 20;
/// The builder keeps time itself and reports; the cell ends it when it does not.
const OVERTIME: Duration = Duration::from_secs(15);
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Where the registry settings of builds are, below the state directory.
const SETTINGS: &str = "staging";
/// Where the volume is inside.
const VOLUME: &str = "/slipway";

/// One build.
pub struct Job {
    /// What the cell has.
    pub services: Arc<Services>,
    /// Its assignment.
    pub assignment: Assignment,
    /// Spec and stack layers.
    pub prepared: Prepared,
    /// Names the sandbox of the first phase; the second one's is the next.
    pub incarnation: u64,
    /// Ends it early.
    pub cancel: CancellationToken,
    /// Id of the egress policy in force.
    pub policy: watch::Receiver<Bytes>,
}

/// Runs a build to its end, good or bad.
pub async fn run(job: Job) -> BuildResult {
    let Ok(id) = job.assignment.id.parse::<Uuid>() else {
        return Failure::platform("the assignment has no valid id").into_result();
    };
    let built = build(&job, id).await;
    let reported = job.services.registries.as_ref().map(|registries| registries.take_reported(id)).unwrap_or_default();
    built.unwrap_or_else(|failure| {
        let failure = failure.with(reported);
        // What the builder reports it has printed.
        if !failure.in_output {
            job.services.logs.say(id, &format!("staging failed: {}", failure.text()));
        }
        failure.into_result()
    })
}

/// Removes everything that a build may have left on this host. Answers whether its sandboxes are gone, and with them what
/// keeps its slot from being used again.
pub async fn clean(services: &Services, id: Uuid, incarnation: u64) -> bool {
    let mut gone = true;
    for incarnation in [incarnation, incarnation + 1] {
        gone &= runner::destroy(&*services.runtime, SandboxId { assignment: id, incarnation }).await;
    }
    if !gone {
        // The volume may be mounted in what is left.
        return false;
    }
    if let Err(error) = services.runtime.remove_volume(id).await {
        tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %id, "a build's volume was not removed");
    }
    let settings = settings_directory(services, id);
    if settings.exists()
        && let Err(error) = std::fs::remove_dir_all(&settings)
    {
        tracing::warn!(%error, path = %settings.display(), "registry settings of a build were not removed");
    }
    true
}

/// Removes the registry settings of builds of an earlier agent, whatever became of them.
pub fn forget_settings(state: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(state.join(SETTINGS)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Says in the log which settings of this host no build gets, because they hold a credential.
pub fn tell_withheld(config: &CellConfig) {
    let withheld =
        if config.staging_uses_host_settings { HostSettings::collect(None).withheld } else { BTreeSet::new() };
    if !withheld.is_empty() {
        let names: Vec<String> = withheld.into_iter().collect();
        tracing::warn!(
            settings = names.join(", "),
            "builds are not given the credentials in these settings of this host"
        );
    }
}

fn settings_directory(services: &Services, id: Uuid) -> PathBuf {
    services.config.state_directory.join(SETTINGS).join(id.to_string())
}

/// What both phases share.
struct Build<'a> {
    job: &'a Job,
    id: Uuid,
    spec: &'a BuildSpec,
    volume: Volume,
    settings: Option<(PathBuf, HostSettings)>,
    deadline: Instant,
    /// The cache of the last build came here whole: the object store has it.
    has_cache: bool,
}

async fn build(job: &Job, id: Uuid) -> Result<BuildResult, Failure> {
    let begun = Instant::now();
    let spec = &job.prepared.spec;
    let Some(build_spec) = &spec.build else {
        return Err(Failure::platform("the spec of the build does not say what to build"));
    };
    let runtime = &job.services.runtime;
    let volume = runtime.volume(id, workload::mib(spec.disk_mb)).await?;
    let proxy = job.services.registries.as_ref().map(Registries::proxy);
    let settings = match job.services.config.staging_uses_host_settings {
        true => Some(HostSettings::collect(proxy)),
        false => proxy.map(HostSettings::of_proxy),
    };
    let settings = match settings {
        Some(settings) => {
            let directory = settings_directory(&job.services, id);
            settings.write(&directory).map_err(|error| Failure::host("writing the registry settings", &error))?;
            Some((directory, settings))
        }
        None => None,
    };
    let timeout = if build_spec.timeout_ms == 0 { 900_000 } else { build_spec.timeout_ms };
    let mut build = Build {
        job,
        id,
        spec: build_spec,
        volume: Volume::new(volume),
        settings,
        deadline: Instant::now() + Duration::from_millis(timeout.into()) + OVERTIME,
        has_cache: false,
    };
    build.volume.lay_out().map_err(|error| Failure::host("laying out the staging volume", &error))?;
    build.has_cache = build.inputs(timeout).await?;
    let fetched = begun.elapsed();
    build.deadline = Instant::now() + Duration::from_millis(timeout.into()) + OVERTIME;

    let stack: Vec<CacheLease> = job.prepared.layers.clone();
    let end = build.phase(0, "detect", &stack).await?;
    let plan: BuildPlan = build.volume.read_json(PLAN_FILE, MAX_PLAN_BYTES).map_err(|error| end.explain(error))?;
    if let Some(error) = plan.error {
        return Err(Failure::reported(error));
    }
    end.must_be_clean()?;
    let planned = outcome::planned_layers(&plan, build_spec)?;
    let mut layers = stack;
    for layer in &planned {
        layers.push(build.bounded(job.services.cache.layer(layer)).await??);
    }
    let end = build.phase(1, "build", &layers).await?;
    let answer: BuildOutcome =
        build.volume.read_json(RESULT_FILE, MAX_RESULT_BYTES).map_err(|error| end.explain(error))?;
    if let Some(error) = answer.error {
        return Err(Failure::reported(error));
    }
    end.must_be_clean()?;
    if !answer.ok {
        return Err(Failure::staging("the builder made no droplet and did not say why"));
    }
    let staged = begun.elapsed();
    let mut result = build.collect(answer).await?;
    result.start_hint = outcome::start_hint(plan.start, &result);
    result.fetch_ms = millis(fetched);
    result.stage_ms = millis(staged.saturating_sub(fetched));
    result.upload_ms = millis(begun.elapsed().saturating_sub(staged));
    Ok(result)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a phase ended.
struct End {
    exit: Exit,
    memory_mb: u64,
}

impl End {
    /// Why there is no usable answer: the end of the builder says more than the missing file.
    fn explain(&self, error: files::AnswerError) -> Failure {
        match self.must_be_clean() {
            Err(failure) => failure,
            Ok(()) => Failure::staging(&slipway_chassis::chain(&error).to_string()),
        }
    }

    fn must_be_clean(&self) -> Result<(), Failure> {
        let exit = &self.exit;
        if exit.out_of_memory {
            return Err(Failure::staging(&format!(
                "staging ran out of memory: limit {} MiB; give the app more memory (-m) and stage again",
                self.memory_mb
            )));
        }
        if exit.code == 0 {
            return Ok(());
        }
        if exit.code == slipway_buildpacks::contract::EXIT_NO_SPACE {
            return Err(Failure::staging(
                "the disk space of the build is used up, even for its answer; give the app more disk (-k), or push less",
            ));
        }
        let exit = crate::instance::crash::explained(exit.clone());
        Err(Failure::staging(&format!("the builder ended without a result: {}", exit.reason)))
    }
}

impl Build<'_> {
    /// Work that waits for controllers, for as long as the build may take and nobody cancels it.
    async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        // What is dropped here removes its own temporary files.
        tokio::select! {
            done = work => Ok(done),
            () = tokio::time::sleep_until(self.deadline) => Err(Failure::expired()),
            () = self.job.cancel.cancelled() => Err(Failure::cancelled()),
        }
    }

    /// Package, buildpacks, cache and request; whether there was a cache.
    async fn inputs(&self, timeout_ms: u32) -> Result<bool, Failure> {
        let cache = &self.job.services.cache;
        let Some(package) = &self.spec.package else {
            return Err(Failure::platform("the spec of the build names no package"));
        };
        let put = |file: tempfile::TempPath, name: String| async move {
            let volume = self.volume.clone();
            let put = tokio::task::spawn_blocking(move || volume.put(&file, &name)).await;
            put.map_err(|error| Failure::host("copying into the staging volume", &std::io::Error::other(error)))?
                .map_err(|error| Failure::host("copying into the staging volume", &error))
        };
        let file = self.bounded(cache.blob(package, "the package")).await??;
        put(file, slipway_buildpacks::contract::PACKAGE_FILE.to_owned()).await?;
        for (number, buildpack) in self.spec.buildpacks.iter().enumerate() {
            if let Some(blob) = &buildpack.blob {
                let what = format!("buildpack {}", buildpack.name);
                let file = self.bounded(cache.blob(blob, &what)).await??;
                put(file, format!("buildpacks/{number}.zip")).await?;
            }
        }
        let mut has_cache = false;
        if let Some(blob) = &self.spec.cache {
            // A lost cache makes the build slower, not wrong.
            match self.bounded(cache.blob(blob, "the build cache")).await? {
                Ok(file) => {
                    put(file, CACHE_FILE.to_owned()).await?;
                    has_cache = true;
                }
                Err(error) => tracing::warn!(error = %slipway_chassis::chain(&error), "building without the cache"),
            }
        }
        let spec = &self.job.prepared.spec;
        let settings = self.settings.as_ref().map(|(_, settings)| settings);
        let request = request::request(spec, self.spec, settings, timeout_ms);
        let bytes = serde_json::to_vec(&request).map_err(|error| Failure::platform(&error.to_string()))?;
        self.volume
            .write_input(REQUEST_FILE, &bytes)
            .map_err(|error| Failure::host("writing the build request", &error))?;
        Ok(has_cache)
    }

    fn sandbox_spec(
        &self,
        id: SandboxId,
        verb: &str,
        layers: &[CacheLease],
        policy: &Bytes,
    ) -> Result<SandboxSpec, Failure> {
        let spec = &self.job.prepared.spec;
        let services = &self.job.services;
        let slot = self.job.assignment.slot;
        let address = services.runtime.address(slot);
        let place = InstanceContext {
            instance: self.id.to_string(),
            index: 0,
            kind: spec.kind(),
            external_host: services.config.advertise_host,
            external_port: 0,
            internal_host: address.into(),
        };
        let mut env = env::environment(spec, &place);
        let mut binds: Vec<Bind> =
            [("app", "/home/vcap/app"), ("app", "/tmp/app"), ("deps", "/home/vcap/deps"), ("cache", "/tmp/cache")]
                .map(|(source, target)| Bind {
                    source: self.volume.directory(source),
                    target: PathBuf::from(target),
                    writable: true,
                    id_mapped: true,
                })
                .into();
        if let Some((directory, settings)) = &self.settings {
            // What the app itself says about registries holds.
            let all = settings.env.iter().filter(|(name, _)| !says(spec, name)).cloned();
            env.retain(|(name, _)| says(spec, name) || !settings.env.iter().any(|(other, _)| other == name));
            env.extend(all);
            binds.push(Bind {
                source: directory.clone(),
                target: PathBuf::from(host_settings::INSIDE),
                writable: false,
                id_mapped: true,
            });
        }
        Ok(SandboxSpec {
            id,
            slot,
            layers: layers.iter().map(|lease| lease.path().to_owned()).collect(),
            binds,
            files: workload::files(spec),
            volume: Some((self.id, PathBuf::from(VOLUME))),
            argv: vec!["/tmp/lifecycle/builder".to_owned(), verb.to_owned(), format!("{VOLUME}/in/{REQUEST_FILE}")],
            companions: Vec::new(),
            env,
            cwd: PathBuf::from("/home/vcap"),
            user: "vcap".to_owned(),
            hostname: workload::hostname(self.id),
            limits: workload::limits(spec),
            registries: services.registries.is_some(),
            egress: services
                .policies
                .rules(policy, spec)
                .map_err(|error| Failure::platform(&slipway_chassis::chain(&error).to_string()))?,
            log_directory: services.logs.ring(self.id),
            log_bytes: services.config.log_ring_bytes,
            log_rate_bytes: spec.log_rate_bytes,
        })
    }

    /// Runs one phase; afterwards no process of it is left, so its files stand still.
    async fn phase(&self, number: u64, verb: &str, layers: &[CacheLease]) -> Result<End, Failure> {
        let services = &self.job.services;
        let runtime = &services.runtime;
        let id = SandboxId { assignment: self.id, incarnation: self.job.incarnation + number };
        let policy = self.job.policy.borrow().clone();
        let spec = self.sandbox_spec(id, verb, layers, &policy)?;
        if self.job.cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let address = runtime.address(self.job.assignment.slot);
        // Until its sandbox is gone, with its address.
        let _admission = services.registries.as_ref().map(|registries| registries.admit(address, self.id));
        runtime.start(spec).await?;
        let memory_mb = self.job.prepared.spec.memory_mb;
        // A build says itself when its disk is full.
        services.live.insert(Live { id, droplet_bytes: 0, memory_mb, disk_mb: 0 });
        // Changed while the sandbox was made: whoever changed it did not find it.
        let now = self.job.policy.borrow().clone();
        if now != policy {
            runner::permit(services, id, &now).await;
        }
        // Waiting may be dropped and begun again.
        let ended = tokio::select! {
            exit = runtime.wait(id) => exit.map_err(Failure::from),
            () = tokio::time::sleep_until(self.deadline) => Err(Failure::expired()),
            () = self.job.cancel.cancelled() => Err(Failure::cancelled()),
        };
        if ended.is_err()
            && let Err(error) = runtime.stop(id, STOP_GRACE).await
        {
            tracing::error!(error = %slipway_chassis::chain(&error), assignment.id = %self.id, "a build was not ended");
        }
        services.live.remove(self.id);
        // What is left of it is removed with the build, whose slot is in use until then.
        runner::destroy(&**runtime, id).await;
        Ok(End { exit: ended?, memory_mb })
    }
}

/// Whether the app's own environment has this variable, in whatever case: package managers do not tell them apart.
fn says(spec: &WorkloadSpec, name: &str) -> bool {
    spec.env.iter().any(|variable| variable.name.eq_ignore_ascii_case(name))
}

/// Layers of the catalogue, by hexadecimal digest.
fn from_catalogue<'a>(spec: &'a BuildSpec, digest: &str) -> Option<&'a Layer> {
    spec.catalogue.iter().find(|layer| hex::encode(&layer.digest) == digest)
}
