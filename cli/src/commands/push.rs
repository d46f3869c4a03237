//! `push`: the work is in the module of that name; here is what is printed at its end.

use super::Session;
use super::lifecycle::at_step;
use crate::args::PushArgs;
use crate::error::CliError;
use crate::push::{self, Pushed};

pub(super) async fn push(session: &Session, args: &PushArgs) -> Result<(), CliError> {
    let archive = |name: &&str| [".zip", ".jar", ".war"].iter().any(|ending| name.ends_with(ending));
    if let Some(name) = args.name.as_deref().filter(archive)
        && args.path.is_none()
        && session.environment.directory.join(name).is_file()
    {
        return Err(CliError::Usage {
            message: format!("'{name}' is a file, and `slipway push` takes the name of an app."),
            hint: format!("Write `slipway push NAME -p {name}`."),
        });
    }
    let done = push::push(session, args).await?;
    if session.printer.wants_json() {
        // One app is what scripts push; they need not take it out of a list.
        return match done.as_slice() {
            [one] => session.printer.json(one),
            many => session.printer.json(&many),
        };
    }
    for app in &done {
        session.printer.say(&closing(app));
        for url in app.urls.iter().filter(|_| app.idle.is_none()) {
            session.printer.data(url)?;
        }
    }
    Ok(())
}

fn closing(app: &Pushed) -> String {
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let times = &app.timings;
    let address = if app.urls.is_empty() { " It has no route." } else { "" };
    if app.droplet_guid.is_none() {
        return format!("'{0}' is uploaded and stopped.{address} `slipway start {0}` builds and starts it.", app.app);
    }
    if let Some((step, steps)) = app.canary_step {
        return at_step(&app.app, step, steps);
    }
    if let Some(kinds) = &app.idle {
        // A Procfile of workers brings its types beside `web`.
        let kind = kinds.iter().find(|kind| *kind != "web").map(|kind| format!(" -p {kind}")).unwrap_or_default();
        return format!(
            "'{0}' is started, but wants no instance, so nothing of it runs: `slipway scale {0}{kind} -i 1`{1}",
            app.app,
            if kinds.iter().any(|kind| kind == "web") {
                ""
            } else {
                ". It has no process `web`, which requests go to."
            }
        );
    }
    format!(
        "'{}' runs after {} (upload {}, build {}, start {}).{address}",
        app.app,
        seconds(times.total_ms),
        seconds(times.prepare_ms + times.upload_ms),
        seconds(times.stage_ms),
        seconds(times.place_ms + times.start_ms + times.route_ms)
    )
}
