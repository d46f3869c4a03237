//! `run-task` and `tasks`.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Session, text};
use crate::args::RunTaskArgs;
use crate::client::views::Task;
use crate::error::CliError;
use crate::size::parse_mib;

const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(session: &Session, args: RunTaskArgs) -> Result<(), CliError> {
    let mut body = json!({ "command": args.command });
    if let Some(name) = &args.task {
        body["name"] = name.as_str().into();
    }
    if let Some(memory) = &args.memory {
        body["memory_in_mb"] = parse_mib(memory)?.into();
    }
    if let Some(disk) = &args.disk {
        body["disk_in_mb"] = parse_mib(disk)?.into();
    }
    let app = session.app(&args.name).await?;
    let client = session.client()?;
    let mut whole: Value = client.send_json(Method::POST, &format!("/v3/apps/{}/tasks", app.guid), body).await?;
    let mut task: Task = crate::client::views::decode(whole.clone(), "tasks")?;
    session.printer.say(&format!("Task {} ('{}') of '{}' is created.", task.sequence_id, task.name, app.name));
    if args.wait {
        while !matches!(task.state.as_str(), "SUCCEEDED" | "FAILED") {
            tokio::time::sleep(PAUSE).await;
            whole = client.get(&format!("/v3/tasks/{}", task.guid)).await?;
            task = crate::client::views::decode(whole.clone(), "tasks")?;
        }
    }
    if session.printer.wants_json() {
        session.printer.json(&whole)?;
    } else {
        session.printer.data(&task.sequence_id.to_string())?;
    }
    if task.state == "FAILED" {
        let reason = task.result.and_then(|result| result.failure_reason);
        let reason = reason.unwrap_or_else(|| "the platform gave no reason".to_owned());
        return Err(CliError::TaskFailed { sequence: task.sequence_id, reason });
    }
    Ok(())
}

pub(super) async fn tasks(session: &Session, name: &str) -> Result<(), CliError> {
    let app = session.app(name).await?;
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
    session.show(list, &["id", "name", "state", "created", "command", "failure"], row, "There are no tasks.")
}
