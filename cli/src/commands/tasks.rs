//! `run-task`, `tasks`, `terminate-task`.

use reqwest::Method;
use serde_json::Value;

use super::{Session, run, text};
use crate::args::{RunTaskArgs, TerminateTaskArgs};
use crate::client::views::{Task, decode};
use crate::client::{Body, query};
use crate::error::CliError;
use crate::exit::Exit;

pub(super) async fn run(session: &Session, args: RunTaskArgs) -> Result<Exit, CliError> {
    let command = args.command.or(args.flag_command).unwrap_or_default();
    let body = run::body(&command, args.task.as_deref(), args.memory.as_deref(), args.disk.as_deref())?;
    let app = session.app(&args.name).await?;
    if args.wait {
        run::follow(session, &app, body).await?;
        session.printer.say("The task has succeeded.");
        return Ok(Exit::Success);
    }
    let path = format!("/v3/apps/{}/tasks", app.guid);
    let whole: Value = session.client()?.send_json(Method::POST, &path, body).await?;
    let task: Task = decode(whole.clone(), "tasks")?;
    session.printer.say(&format!(
        "Task {} ('{}') of '{name}' is created. `slipway logs {name} -f --source task` shows its output, `slipway tasks {name}` \
         its end.",
        task.sequence_id,
        task.name,
        name = app.name
    ));
    if session.printer.wants_json() {
        session.printer.json(&whole)?;
    } else {
        session.printer.data(&task.sequence_id.to_string())?;
    }
    Ok(Exit::Success)
}

pub(super) async fn tasks(session: &Session, name: Option<String>) -> Result<(), CliError> {
    let app = session.app_or_default(name).await?;
    let list = session.client()?.list(&format!("/v3/apps/{}/tasks?per_page=5000", app.guid)).await?;
    let row = |task: &Value| {
        let command = text(task, "/command");
        vec![
            text(task, "/sequence_id"),
            text(task, "/name"),
            text(task, "/state").to_lowercase(),
            text(task, "/created_at"),
            if command.is_empty() { "[hidden]".to_owned() } else { command },
            text(task, "/result/failure_reason"),
        ]
    };
    let empty = format!("There are no tasks. Run one: `slipway run {} -- COMMAND`", app.name);
    session.show(list, &["id", "name", "state", "created", "command", "failure"], row, &empty)
}

pub(super) async fn terminate(session: &Session, args: TerminateTaskArgs) -> Result<(), CliError> {
    let app = session.app(&args.name).await?;
    let client = session.client()?;
    let number = args.id.to_string();
    let path = query(
        &format!("/v3/apps/{}/tasks", app.guid),
        &[("sequence_ids", number.as_str()), ("per_page", "1"), ("page", "1")],
    );
    let found: Vec<Task> = client.list_as(&path).await?;
    let task = found.into_iter().next().ok_or_else(|| CliError::Missing {
        kind: "Task",
        name: number.clone(),
        place: format!(" of app '{}'", app.name),
    })?;
    if matches!(task.state.as_str(), "SUCCEEDED" | "FAILED") {
        let state = task.state.to_lowercase();
        session.printer.say(&format!("Task {number} of '{}' has ended already ({state}); nothing was done.", app.name));
        return Ok(());
    }
    client.send(Method::PUT, &format!("/v3/tasks/{}/cancel", task.guid), Body::None).await?;
    session.printer.say(&format!("Task {number} of '{}' is being ended.", app.name));
    Ok(())
}
