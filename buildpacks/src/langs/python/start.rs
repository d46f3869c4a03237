//! What would start an app whose developer says nothing. Python has no usual way to start a web server, so it is a line to paste
//! and not a command that is run.

use super::REQUIREMENTS;
use crate::source::Source;

/// Modules at the top that are looked into.
const MOST_FILES: usize = 30;
/// What a module makes, and the server and arguments for it.
const FRAMEWORKS: [(&str, &str, &str); 5] = [
    ("Flask(", "gunicorn", ""),
    ("FastAPI(", "uvicorn", " --host 0.0.0.0 --port $PORT"),
    ("Starlette(", "uvicorn", " --host 0.0.0.0 --port $PORT"),
    ("Quart(", "uvicorn", " --host 0.0.0.0 --port $PORT"),
    ("Litestar(", "uvicorn", " --host 0.0.0.0 --port $PORT"),
];
/// Names of modules that are the app more often than others.
const USUAL: [&str; 5] = ["app.py", "main.py", "wsgi.py", "server.py", "application.py"];

/// What is said before anything is installed.
pub(super) fn advice(source: &dyn Source) -> String {
    let begin = "No start command: the app will not start unless";
    let Some((command, server)) = suggestion(source) else {
        return format!("{begin} a Procfile gives one, for example with the line `web: python app.py`.");
    };
    let wanted = source.read(REQUIREMENTS).unwrap_or_default().to_lowercase();
    let also = match server {
        Some(server) if source.has(REQUIREMENTS) && !wanted.contains(server) => {
            format!(" Add {server} to {REQUIREMENTS} as well.")
        }
        _ => String::new(),
    };
    format!("{begin} a Procfile gives one. It seems to be:  web: {command}{also}")
}

fn suggestion(source: &dyn Source) -> Option<(String, Option<&'static str>)> {
    if source.has("manage.py") {
        let below = source.below("", 200);
        let projects = below.iter().filter_map(|name| name.strip_suffix('/'));
        if let Some(project) = projects.into_iter().find(|name| module(name) && source.has(&format!("{name}/wsgi.py")))
        {
            return Some((format!("gunicorn {project}.wsgi"), Some("gunicorn")));
        }
    }
    let mut files: Vec<String> = source.below("", 1000).into_iter().filter(|name| name.ends_with(".py")).collect();
    files.sort_by_key(|name| USUAL.iter().position(|usual| usual == name).unwrap_or(USUAL.len()));
    files.truncate(MOST_FILES);
    for file in &files {
        let Some(name) = file.strip_suffix(".py").filter(|name| module(name)) else { continue };
        let text = source.read(file).unwrap_or_default();
        for (variable, made) in text.lines().filter_map(|line| line.split_once('=')) {
            // At the beginning of a line, also with a type: `app: FastAPI = FastAPI()`.
            let variable = variable.split(':').next().unwrap_or_default().trim_end();
            let made = made.trim_start();
            let made = made.split_once('.').filter(|(before, _)| module(before)).map_or(made, |(_, made)| made);
            let framework = FRAMEWORKS.iter().find(|(call, ..)| made.starts_with(call));
            if let Some((_, server, arguments)) = framework.filter(|_| module(variable)) {
                return Some((format!("{server} {name}:{variable}{arguments}"), Some(server)));
            }
        }
    }
    let usual = files.first().filter(|file| USUAL.contains(&file.as_str()))?;
    Some((format!("python {usual}"), None))
}

/// Whether Python knows such a name.
fn module(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Listing;

    #[test]
    fn the_line_to_paste_is_found() {
        for (files, command) in [
            (&[("app.py", "from flask import Flask\napp = Flask(__name__)\n")][..], "gunicorn app:app"),
            (&[("hello.py", "import flask\nserver=flask.Flask('x')\n"), ("tools.py", "")], "gunicorn hello:server"),
            (&[("main.py", "app: FastAPI = FastAPI()\n")], "uvicorn main:app --host 0.0.0.0 --port $PORT"),
            (&[("manage.py", ""), ("shop/wsgi.py", ""), ("static/x.css", "")], "gunicorn shop.wsgi"),
            (&[("main.py", "def make():\n    app = Flask(__name__)\n")], "python main.py"),
            (&[("z.py", "x == Flask(1)")], ""),
        ] {
            let found = suggestion(&Listing::of(files)).map(|(command, _)| command).unwrap_or_default();
            assert_eq!(found, command, "{files:?}");
        }
    }

    #[test]
    fn a_server_that_is_not_installed_is_named() {
        let app = ("app.py", "app = Flask(__name__)");
        let without = advice(&Listing::of(&[app, ("requirements.txt", "flask\n")]));
        assert!(without.contains("web: gunicorn app:app") && without.contains("Add gunicorn"), "{without}");
        let with = advice(&Listing::of(&[app, ("requirements.txt", "flask\nGunicorn==23\n")]));
        assert!(!with.contains("Add"), "{with}");
        assert!(advice(&Listing::default()).contains("web: python app.py"));
    }
}
