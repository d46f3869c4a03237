//! What a command takes from the outside: variables, directories, prompts. Passed in, so that tests need no process.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

/// Asks the person at the terminal. Blocks.
pub trait Ask: Send + Sync {
    /// A line of text; the prompt ends without a newline.
    fn line(&self, prompt: &str) -> io::Result<String>;
    /// A line that is not shown while it is typed.
    fn secret(&self, prompt: &str) -> io::Result<String>;
    /// Whether somebody types, and may mistype; else a program has written the answers.
    fn is_typed(&self) -> bool;
}

/// The outside world of one command.
#[derive(Clone)]
pub struct Environment {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// Relative paths start here.
    pub directory: PathBuf,
    /// The API that `login` offers when none is given.
    pub default_api: String,
    /// Certificate authority that `login` trusts when the variable `SLIPWAY_CA` is not set, as a PEM file.
    pub default_ca: Option<PathBuf>,
    /// Prompts.
    pub ask: Arc<dyn Ask>,
}

impl Environment {
    /// The environment of this process. `default_api` is what `login` offers when the user names none.
    ///
    /// # Errors
    /// When the current directory does not exist any more.
    pub fn of_process(default_api: impl Into<String>, default_ca: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            // Variables that are not text cannot be any of ours.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            directory: std::env::current_dir()?,
            default_api: default_api.into(),
            default_ca,
            ask: Arc::new(Terminal),
        })
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Asks without blocking the runtime. A dropped future leaves the terminal as it was before: the thread that reads
    /// may stay in its read until the process ends, so the settings are put back from here.
    pub(crate) async fn ask(&self, secret: bool, prompt: &str) -> io::Result<String> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (ask, prompt) = (Arc::clone(&self.ask), prompt.to_owned());
        let _restore = secret.then(EchoGuard::new);
        std::thread::Builder::new().name("prompt".to_owned()).spawn(move || {
            // A dropped receiver means that the command was interrupted.
            let _ = answer.send(if secret { ask.secret(&prompt) } else { ask.line(&prompt) });
        })?;
        answered.await.map_err(|_| io::Error::other("the prompt ended without an answer"))?
    }
}

/// Puts the terminal's settings back when dropped.
struct EchoGuard(Option<(std::fs::File, Termios)>);

impl EchoGuard {
    fn new() -> Self {
        let saved = std::fs::File::open("/dev/tty").ok().and_then(|tty| {
            let settings = tcgetattr(tty.as_fd()).ok()?;
            Some((tty, settings))
        });
        Self(saved)
    }
}

impl Drop for EchoGuard {
    fn drop(&mut self) {
        if let Some((tty, settings)) = &self.0 {
            // Nothing else can be done for a terminal that has gone.
            let _ = tcsetattr(tty.as_fd(), SetArg::TCSANOW, settings);
        }
    }
}

struct Terminal;

impl Ask for Terminal {
    fn line(&self, prompt: &str) -> io::Result<String> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            eprint!("{prompt}");
            io::stderr().flush()?;
        }
        let mut line = String::new();
        if stdin.lock().read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the input ended"));
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn secret(&self, prompt: &str) -> io::Result<String> {
        if !self.is_typed() {
            // A password piped in, as scripts do to keep it out of the list of processes.
            return self.line("");
        }
        rpassword::prompt_password(prompt)
    }

    fn is_typed(&self) -> bool {
        io::stdin().is_terminal()
    }
}
