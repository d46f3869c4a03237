//! What to do after a failure: one sentence for each kind, all in one place so that they read alike.

use slipway_api_types::error::ApiErrorEntry;

use crate::client::ClientError;
use crate::error::{CliError, Target};
use crate::manifest::ManifestError;
use crate::push::{DEPLOYING, FilesError, PushError, STAGING_IN_PROGRESS};
use crate::settings::SettingsError;

/// The advice that ends the message of a failed command.
pub(crate) fn of(error: &CliError) -> String {
    match error {
        CliError::Client(error) => of_client(error),
        CliError::Settings(error) => of_settings(error),
        CliError::Manifest(error) => match error {
            ManifestError::Missing { .. } => {
                "Check the path given with -f. Without -f the directory's own manifest.yml is used, with --no-manifest none."
            }
            ManifestError::MissingVariables { .. } => "Give them with --var NAME=VALUE or --vars-file FILE.",
            ManifestError::Read { .. } => "Check that the file exists and may be read.",
            ManifestError::Variable { .. } => "Write --var NAME=VALUE, once for each variable.",
            ManifestError::Flag { .. } => "Correct the flag and push again; nothing was changed on the platform.",
            ManifestError::WhichApp { .. } => "Name one of them.",
            ManifestError::Yaml { .. } | ManifestError::Invalid { .. } | ManifestError::TooLarge { .. } => {
                "Correct the file and push again; nothing was changed on the platform."
            }
            ManifestError::NoName => "Give a name, such as `slipway push NAME`, or write `name:` into manifest.yml.",
            ManifestError::SeveralApps => "Name the app that the flags are meant for: `slipway push NAME …`.",
            ManifestError::NotInManifest { .. } => "Use a name that is in the manifest, or push with --no-manifest.",
        }
        .to_owned(),
        CliError::Files(error) => match error {
            FilesError::OutsideLink { .. } => {
                "List it in .cfignore, or replace the link by the file itself; links may only lead to files of the app."
            }
            FilesError::Empty { .. } => {
                "Point -p at the directory with the app's files, and check .cfignore and, in a git checkout, .gitignore."
            }
            FilesError::NoSuchPath { .. } => "Check -p, or `path:` in the manifest.",
            FilesError::NotAnArchive { .. } => "Point -p at a directory, or at a .zip, .jar or .war file.",
            FilesError::Name { .. } => "Rename it, or list it in .cfignore.",
            FilesError::Ignore { .. } => "Correct the line in .cfignore.",
            FilesError::Read { .. } => "Make it readable, or list it in .cfignore.",
            FilesError::Pack { .. } => "Free some space in the temporary directory (TMPDIR) and push again.",
            FilesError::Hash => "Try again with --verbose and report what it prints; this is a fault of this program.",
            FilesError::Cancelled => "Push again.",
        }
        .to_owned(),
        CliError::Push(error) => of_push(error),
        CliError::Size(_) => "Write a whole number and a unit: 256M, 1G.".to_owned(),
        CliError::Usage { hint, .. } => hint.clone(),
        CliError::NotLoggedIn => "Log in with `slipway login`. On the platform's own machine use `slipway login --local`; `slipway up` starts the platform there.".to_owned(),
        CliError::NoTarget(Target::Org) => {
            "Choose one with `slipway target ORG`; `slipway orgs` lists them.".to_owned()
        }
        CliError::NoTarget(Target::Space) => {
            "Choose one with `slipway target ORG/SPACE`; `slipway spaces` lists them.".to_owned()
        }
        CliError::Missing { kind: "Space", name, place } => {
            // ` in org 'dev'`.
            let org = place.split('\'').nth(1).map(|org| format!(" -o {org}")).unwrap_or_default();
            format!("`slipway spaces` lists the spaces of the targeted org; `slipway create-space {name}{org}` makes this one.")
        }
        CliError::Missing { kind: "Quota", name, .. } if name == "none" => {
            "An org always has a quota: `slipway set-quota ORG default` gives it back the one that it began with."
                .to_owned()
        }
        CliError::Missing { kind, .. } => match *kind {
            "App" => "`slipway apps` lists the apps of the targeted space.",
            "Org" => "`slipway orgs` lists the orgs you can see; `slipway create-org` makes one.",
            "Domain" => "`slipway domains` lists the domains of the org; `slipway create-domain` makes one.",
            "Route" => "`slipway routes` lists the routes of the targeted space.",
            "Service" => "`slipway services` lists the services of the targeted space.",
            "User" => "`slipway users` lists users; `slipway create-user` makes one.",
            "Buildpack" => "`slipway buildpacks` lists them.",
            "Quota" => "`slipway quotas` lists them.",
            "Security group" => "`slipway security-groups` lists them.",
            "Feature flag" => "`slipway feature-flags` lists them.",
            "Task" => "`slipway tasks APP` lists the tasks of an app.",
            "Instance" => "Use one of these numbers; `slipway app APP` shows what each instance does.",
            "Process" => "`slipway app APP` shows the processes of an app.",
            _ => "Check the name.",
        }
        .to_owned(),
        CliError::JobFailed { errors } if errors.iter().any(|entry| entry.detail.contains("deploying")) => {
            STOPPED_WHILE_DEPLOYING.to_owned()
        }
        CliError::JobFailed { errors } if is_deploying(errors) => end_the_deployment(errors),
        CliError::JobFailed { errors } if errors.iter().any(|entry| entry.detail.contains("Stack must be")) => {
            "`slipway stacks` lists the stacks.".to_owned()
        }
        CliError::JobFailed { errors } => refused(errors).to_owned(),
        CliError::RouteShared { .. } => {
            "Delete the app without -r, or unmap the route from the other apps first.".to_owned()
        }
        CliError::TaskFailed { app, .. } => {
            format!("`slipway logs {app} --recent --source task` shows what it wrote, `slipway tasks {app}` all tasks.")
        }
        CliError::NeedsForce { .. } => "Repeat the command with -f, or on a terminal, where it asks.".to_owned(),
        CliError::NobodyToAsk { variable, .. } => {
            format!("Set {variable}, give it as a flag if the command has one (`--help`), or pipe it in, each answer on a line.")
        }
        CliError::Prompt(_) => "Give the answer as a flag (-u, -p, -f).".to_owned(),
        CliError::Declined => "Repeat the command with -f to skip the question.".to_owned(),
        CliError::Output(_) => "Check the file or pipe that the output goes to.".to_owned(),
        CliError::Panicked(_) => {
            "Try again with --verbose and report what it prints; this is a fault of this program.".to_owned()
        }
    }
}

fn of_settings(error: &SettingsError) -> String {
    match error {
        SettingsError::NoHome => "Set HOME, or SLIPWAY_HOME to a directory of your own.".to_owned(),
        SettingsError::Malformed { path, .. } => {
            format!("Remove {} and log in again with `slipway login`.", path.display())
        }
        SettingsError::Read { .. } | SettingsError::Write { .. } => {
            "Check the owner and the mode of the directory, or set SLIPWAY_HOME to another one.".to_owned()
        }
    }
}

fn of_client(error: &ClientError) -> String {
    match error {
        ClientError::Refused { errors, .. } if errors.iter().any(|entry| entry.detail.starts_with("Unable to rollback")) => {
            "Nothing was changed. `slipway revisions` lists what can be brought back; the one that reads `runs` is there already."
                .to_owned()
        }
        ClientError::Refused { errors, .. } if errors.iter().any(|entry| entry.detail.contains("no start command")) => {
            "Give it a start command as the lines above say, then push again.".to_owned()
        }
        ClientError::Refused { errors, .. } if errors.iter().any(|entry| entry.detail.starts_with("Assign a droplet")) => {
            "Nothing of it is built yet: `slipway push`.".to_owned()
        }
        ClientError::Refused { status: 400..500, what, .. } if what.starts_with("POST /v3/deployments") => {
            "Correct what is named above, or use --strategy recreate, which stops the old version first and needs no room \
             for both."
                .to_owned()
        }
        ClientError::Refused { errors, .. } if errors.iter().any(|entry| entry.detail.contains("deploying")) => {
            STOPPED_WHILE_DEPLOYING.to_owned()
        }
        ClientError::Refused { errors, .. } if is_deploying(errors) => end_the_deployment(errors),
        ClientError::Refused { errors, .. } if errors.iter().any(|entry| entry.detail.contains("Stack must be")) => {
            "`slipway stacks` lists the stacks.".to_owned()
        }
        ClientError::Refused { errors, .. } if errors.iter().any(|entry| entry.code == STAGING_IN_PROGRESS) => {
            "Other builds of the app begin as fast as this one ends them; push again when nobody else does.".to_owned()
        }
        ClientError::Refused { status, errors, .. } => match status {
            401 => "Log in again with `slipway login`.",
            403 => "Ask a manager of the org or space for the role, or target another space.",
            404 => "Check the name and the target (`slipway target`); what you may not see is also not found.",
            429 => "Wait a moment and try again.",
            500.. => "Try again; if it stays, `slipway status` on the machine of the platform says what is wrong.",
            _ => refused(errors),
        }
        .to_owned(),
        ClientError::BadCredentials { .. } => "Check user name and password and log in again with `slipway login`.".to_owned(),
        ClientError::SessionExpired => "Log in again with `slipway login`.".to_owned(),
        ClientError::Address { .. } => "Write it as https://api.example.com".to_owned(),
        ClientError::Authority { .. } => "Set SLIPWAY_CA to a PEM file with the certificate of the cluster's authority.".to_owned(),
        ClientError::Unreachable { .. } => {
            "Check the address, and that the platform runs: on its machine `slipway status` says so and `slipway up` starts it.".to_owned()
        }
        ClientError::Untrusted { .. } => {
            "Set SLIPWAY_CA to the file with the cluster's authority and log in again, or use --skip-ssl-validation."
                .to_owned()
        }
        ClientError::Answer { status: 500.., .. } => {
            "Try again; if it stays, the platform or a proxy before it is not well (`slipway status` on its machine).".to_owned()
        }
        ClientError::Answer { .. } | ClientError::TooLong { .. } => {
            "Check that the address is the API of the platform (`slipway target`) and that no proxy answers in its place.".to_owned()
        }
        ClientError::JobStuck { .. } => "Look again later: the platform goes on with it.".to_owned(),
        ClientError::Logs { .. } => "Try again in a moment.".to_owned(),
        ClientError::Settings(error) => of_settings(error),
        ClientError::Setup(_) => "Try again with --verbose; this is a fault of this program.".to_owned(),
    }
}

/// Of a stop, or a restart that stops first, while a deployment goes on.
const STOPPED_WHILE_DEPLOYING: &str = "Wait for the deployment that is under way, or give it up with `slipway \
                                       cancel-deployment`; a canary that waits goes on with `slipway continue-deployment`.";
/// Of a route that somebody has.
const OTHER_HOST: &str = "Choose another host (-n, `routes` of the manifest, or `push --random-route`); `slipway routes` lists those of this space.";
/// Of what came to its end by itself.
const ENDED: &str = "A process must go on running, and a web process listens on the port in $PORT. Correct the app or its start \
                     command (-c) and push again; for work that comes to an end there is `slipway run APP -- COMMAND`.";

/// Whether a change is refused because another version takes over.
fn is_deploying(errors: &[ApiErrorEntry]) -> bool {
    errors.iter().any(|entry| DEPLOYING.contains(&entry.code) || entry.detail.contains("has a deployment in progress"))
}

fn end_the_deployment(errors: &[ApiErrorEntry]) -> String {
    let named =
        |entry: &ApiErrorEntry| Some(entry.detail.strip_prefix("For application '")?.split_once('\'')?.0.to_owned());
    let app = errors.iter().find_map(named).unwrap_or_else(|| "APP".to_owned());
    format!(
        "Let the deployment end first: `slipway continue-deployment {app}` brings the new version, `slipway \
         cancel-deployment {app}` gives it up."
    )
}

/// Of a refusal for which there is no better advice.
fn refused(errors: &[ApiErrorEntry]) -> &'static str {
    let says = |word: &str| errors.iter().any(|entry| entry.detail.to_lowercase().contains(word));
    for (word, advice) in [
        ("app with the name", "Choose another name; `slipway apps` lists those that are taken."),
        ("missing host", "Name the host with -n, such as `-n www`."),
        (
            "reserved system route",
            "Choose another host (-n, or `routes` of the manifest): this one is the platform's own.",
        ),
        ("routes with host", OTHER_HOST),
        ("in either the route's space", OTHER_HOST),
        ("route already exists", OTHER_HOST),
        ("route conflicts", OTHER_HOST),
        ("buildpack", "`slipway buildpacks` lists the buildpacks."),
        (
            "the quota of the ",
            "Ask for less, or ask whoever manages the org for a larger quota; `slipway quotas` shows what they allow.",
        ),
        ("domain", "`slipway domains` lists the domains of the org."),
        ("service instance", "`slipway services` lists the services of the space."),
    ] {
        if says(word) {
            return advice;
        }
    }
    if errors.iter().any(|entry| !entry.detail.is_empty()) {
        // What is wrong is said: any more would fit every error.
        ""
    } else {
        "Try again with --verbose, which shows each request and its answer."
    }
}

/// Whether a process has ended with success, which is none for what should go on.
fn ended(reason: &str) -> bool {
    let after = reason.split_once("exited with status 0").map(|(_, rest)| rest);
    after.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Twice the mebibytes that a text names behind `before`.
fn twice(text: &str, before: &str) -> String {
    let number = text.split_once(before).and_then(|(_, rest)| rest.split_once(" MiB")?.0.parse::<u64>().ok());
    number.map_or_else(|| "SIZE".to_owned(), |number| format!("{}M", 2 * number))
}

fn of_push(error: &PushError) -> String {
    match error {
        PushError::StagingFailed { app, id, text } => match id.as_str() {
            // The platform's words are advice already.
            "NoAppDetectedError" if text.contains('\n') => "Do what is said above, then push again.".to_owned(),
            "NoAppDetectedError" => {
                "Check that -p points at the app's files (package.json, requirements.txt, index.html, Procfile …), or name a buildpack with -b."
                    .to_owned()
            }
            "BuildpackCompileFailed" | "BuildpackReleaseFailed" => "Correct the app as the lines above say, then push again.".to_owned(),
            "BuildCancelled" => {
                format!("Another push of '{app}' has taken its place, or somebody has ended it; push again if neither was meant.")
            }
            "StagingTimeExpired" => "Make the build shorter, or push again: what was fetched is cached.".to_owned(),
            "InsufficientResources" => {
                "Ask for less (`slipway scale` an app down), stop an app, or ask the operator for room; then push again."
                    .to_owned()
            }
            "NoCompatibleCell" => {
                "Ask the operator for a cell in the isolation segment of this space, or to put the space elsewhere."
                    .to_owned()
            }
            _ => format!("`slipway logs {app} --recent` shows the whole output of the build; correct the app and push again."),
        },
        PushError::StagingTimeout { .. } => {
            "It may still finish; CF_STAGING_TIMEOUT (minutes) makes this command wait longer.".to_owned()
        }
        PushError::Crashed { app, reason } if reason.contains("out of memory") => {
            let size = twice(reason, "limit ");
            format!("Give it more memory, such as `slipway scale {app} -m {size}`, or correct the app.")
        }
        PushError::Crashed { app, reason } if reason.contains("exited with status 127") => {
            format!("Its start command names a program that is not there: add it to the app's dependencies, such as gunicorn to requirements.txt, or correct the command (-c), then push again. `slipway app {app}` shows the command.")
        }
        PushError::Crashed { reason, .. } | PushError::NotTakenOver { reason, .. } if ended(reason) => ENDED.to_owned(),
        PushError::Crashed { app, .. } => {
            format!("Correct the app or its start command (-c) and push again; `slipway logs {app} --recent` shows more, `slipway events {app}` the crashes.")
        }
        PushError::StartTimeout { app, .. } => {
            format!("Check that the app listens on the port in $PORT; `slipway app {app}` shows where it stands. CF_STARTUP_TIMEOUT (minutes) waits longer.")
        }
        PushError::NotPlaced { app, reason } if reason.contains("the app's quota is") => {
            let size = twice(reason, "quota is ");
            format!("Give it more disk, such as `slipway scale {app} -k {size}`, or disk_quota in the manifest.")
        }
        PushError::NotPlaced { .. } => {
            "Ask for less (-m, -k, -i), stop another app, or ask the operator for more cells.".to_owned()
        }
        PushError::NotTakenOver { reason, .. } if reason.contains("out of memory") => {
            "Push with more memory (-m, or memory in the manifest), or correct the app.".to_owned()
        }
        PushError::NotTakenOver { reason, .. } if reason.contains("the app's quota is") => {
            "Push with more disk (-k, or disk_quota in the manifest).".to_owned()
        }
        PushError::NotTakenOver { app, .. } => {
            format!("`slipway logs {app} --recent` shows why, `slipway events {app}` its crashes; correct the app and push again.")
        }
        PushError::NoDeployment { app } => format!("`slipway app {app}` shows what runs."),
        PushError::NoRevision { app, .. } => format!("`slipway revisions {app}` lists what can be brought back; --revision N brings any of them."),
        PushError::NotStaged { app } => format!("Push it first: `slipway push {app}`."),
        PushError::Upload { source, .. } => of_client(source),
        PushError::PackageFailed { .. } => "Correct what is named above and push again.".to_owned(),
        PushError::AppVanished { .. } => "Push again; somebody may have deleted it meanwhile.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_a_running_deployment_are_recognised() {
        let entry = |code: u32, detail: &str| ApiErrorEntry { code, title: String::new(), detail: detail.to_owned() };
        let droplet = "Unable to assign current droplet while the app has a deployment in progress. Wait for it.";
        assert!(is_deploying(&[entry(10_008, droplet)]) && is_deploying(&[entry(390_017, "")]));
        assert!(!is_deploying(&[entry(10_008, "Broken.")]));
    }

    #[test]
    fn advice_about_what_was_too_small_asks_for_more() {
        let app = || "web".to_owned();
        let crashed = |reason: &str| of_push(&PushError::Crashed { app: app(), reason: reason.to_owned() });
        assert!(crashed("out of memory: limit 1024 MiB").contains("`slipway scale web -m 2048M`"));
        assert!(crashed("exited with status 127").contains("a program that is not there"));
        assert!(crashed("exited with status 1").contains("`slipway logs web --recent`"));
        assert!(crashed("exited with status 0").contains("must go on running"));
        let disk = "cell 1 refused it: the droplet takes 900 MiB of disk, and the app's quota is 512 MiB";
        let placed = of_push(&PushError::NotPlaced { app: app(), reason: disk.to_owned() });
        assert!(placed.contains("`slipway scale web -k 1024M`") && !placed.contains("Ask for less"), "{placed}");
        let taken = |reason: &str| {
            of_push(&PushError::NotTakenOver { app: app(), reason: reason.to_owned(), old: String::new() })
        };
        assert!(taken("it crashed: out of memory: limit 10 MiB").contains("more memory (-m"));
        assert!(taken(&format!("no instance of it can run ({disk})")).contains("more disk (-k"));
        assert!(taken("it crashed: exited with status 0").contains("must go on running"));
    }

    #[test]
    fn refusals_of_names_and_routes_say_what_to_choose() {
        let hint = |detail: &str| {
            let entry = serde_json::json!({ "code": 10008, "title": "CF-UnprocessableEntity", "detail": detail });
            refused(&[serde_json::from_value(entry).expect("an entry")])
        };
        for (detail, part) in [
            ("App with the name 'web' already exists.", "another name"),
            ("Missing host. Routes in shared domains must have a host defined.", "-n www"),
            ("Route conflicts with a reserved system route.", "the platform's own"),
            ("Routes with host 'x' for domain 'a.test' have been reserved for another space.", "another host"),
            ("Routes destinations must be in either the route's space or the route's shared spaces", "another host"),
            ("Route already exists with host 'x' for domain 'a.test'.", "another host"),
        ] {
            assert!(hint(detail).contains(part), "{detail}: {}", hint(detail));
        }
    }
}
