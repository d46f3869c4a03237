//! Suggests a start command for an app that names none. Python has no usual way to start a web server, so this is a line to
//! paste and not a command that is run.

use super::REQUIREMENTS;
use crate::source::Source;
use crate::start::StartHint;

/// Modules at the top that are looked into.
const MAX_FILES: usize = 30;
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
pub(super) fn advice(hint: Option<&StartHint>) -> Vec<String> {
    let begin = "No start command: the app will be built, but it will not start.";
    match hint {
        Some(hint) => {
            [format!("{begin} This command probably starts the app:")].into_iter().chain(hint.remedies()).collect()
        }
        None => vec![format!(
            "{begin} Add a file Procfile with a line such as `web: python app.py`, push with -c, or set `command` in the manifest."
        )],
    }
}

/// What seems to start the app.
pub(super) fn hint(source: &dyn Source) -> Option<StartHint> {
    let (command, server) = suggestion(source)?;
    let wanted = source.read(REQUIREMENTS).unwrap_or_default().to_lowercase();
    let missing = server.filter(|server| source.has(REQUIREMENTS) && !wanted.contains(server));
    Some(StartHint { command, missing: missing.map(str::to_owned) })
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
    files.truncate(MAX_FILES);
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
        let advised = |files: &[(&str, &str)]| advice(hint(&Listing::of(files)).as_ref());
        let without = advised(&[app, ("requirements.txt", "flask\n")]);
        assert_eq!(
            without[1..],
            [
                r"  printf '\ngunicorn\n' >> requirements.txt",
                "  echo 'web: gunicorn app:app' > Procfile",
                "or push with -c 'gunicorn app:app', or set `command` in the manifest.",
            ]
        );
        let with = advised(&[app, ("requirements.txt", "flask\nGunicorn==23\n")]);
        assert_eq!(with[1..], without[2..]);
        assert!(advised(&[])[0].contains("`web: python app.py`"));
    }
}
