//! Everything that a command prints. Data goes to stdout, the rest to stderr; `--quiet`, `--verbose`, `--no-progress` and
//! `--json` are handled here and nowhere else. Nothing depends on colour.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::GlobalOptions;
use crate::error::{CliError, printable};
use crate::exit::Exit;
use crate::size::human;

/// Where a command writes.
pub struct Output {
    /// Data.
    pub out: Box<dyn Write + Send>,
    /// Talk.
    pub err: Box<dyn Write + Send>,
    /// Whether talk goes to a terminal, where a progress bar can be drawn.
    pub terminal: bool,
    /// Whether data goes to a terminal, where people read it.
    pub screen: bool,
}

impl Output {
    /// The outputs of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            terminal: io::stderr().is_terminal(),
            screen: io::stdout().is_terminal(),
        }
    }
}

/// Writes everything that a command prints.
pub(crate) struct Printer {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// What is said behind a failure.
    last: Mutex<Option<String>>,
    terminal: bool,
    screen: bool,
    options: GlobalOptions,
}

impl Printer {
    pub(crate) fn new(output: Output, options: GlobalOptions) -> Self {
        Self {
            out: Mutex::new(output.out),
            err: Mutex::new(output.err),
            last: Mutex::default(),
            terminal: output.terminal,
            screen: output.screen,
            options,
        }
    }

    /// Whether data goes to a terminal, where people read it.
    pub(crate) fn has_screen(&self) -> bool {
        self.screen
    }

    /// Whether data is wanted as JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.options.json
    }

    /// Data: text and a newline to stdout.
    pub(crate) fn data(&self, text: &str) -> Result<(), CliError> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Data as it is.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Output)
    }

    /// Data as indented JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Output(io::Error::other(error)))?;
        self.data(&text)
    }

    /// Data as one line of JSON, for streams.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::Output(io::Error::other(error)))?;
        self.data(&text)
    }

    /// Data as a table; a sentence to stderr when there is nothing to show.
    pub(crate) fn table(&self, header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> Result<(), CliError> {
        if rows.is_empty() {
            self.say(empty);
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        if !header.is_empty() {
            table.set_header(header.to_vec());
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell).replace('\n', " ")).collect::<Vec<_>>());
        }
        // The preset pads both sides of each column; lines that end in blanks are a nuisance to copy and to compare.
        let text: Vec<String> =
            table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
        self.data(&text.join("\n"))
    }

    /// Talk, unless `--quiet`.
    pub(crate) fn say(&self, text: &str) {
        if !self.options.quiet {
            self.line(text);
        }
    }

    /// A line of a program's standard error, as it is.
    pub(crate) fn stderr_line(&self, text: &str) {
        self.line(text);
    }

    /// Talk that belongs behind the error and the hint of a command that fails.
    pub(crate) fn say_last(&self, text: String) {
        if !self.options.quiet {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
    }

    /// Talk that a script wants to see as well.
    pub(crate) fn warn(&self, text: &str) {
        self.line(&format!("Warning: {}", printable(text)));
    }

    /// Whether everything is to be told.
    pub(crate) fn is_verbose(&self) -> bool {
        self.options.verbose
    }

    /// Talk with `--verbose` only.
    pub(crate) fn detail(&self, text: impl FnOnce() -> String) {
        if self.options.verbose {
            self.line(&text());
        }
    }

    /// The end of a failed command: what happened, why, and what to do.
    pub(crate) fn failure(&self, error: &CliError, hint: &str, exit: Exit) {
        let text = slipway_chassis::errors::chain(error).to_string();
        if self.options.json {
            self.line(&failure_json(&printable(&text), hint, exit));
        } else {
            let hint = if hint.is_empty() { String::new() } else { format!("\nHint: {hint}") };
            self.line(&format!("Error: {}{hint}", printable(&text)));
        }
        if let Some(text) = self.last.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.line(&text);
        }
    }

    fn line(&self, text: &str) {
        let mut err = self.err.lock().unwrap_or_else(PoisonError::into_inner);
        // When stderr has gone there is nobody to tell.
        let _ = writeln!(err, "{text}").and_then(|()| err.flush());
    }

    /// Shows how far an upload has come: a bar on a terminal, plain lines each few seconds elsewhere.
    pub(crate) fn progress(self: &Arc<Self>, what: &str, total: u64) -> Arc<Progress> {
        let bar = (self.terminal && !self.options.quiet && !self.options.no_progress).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(what.to_owned());
            bar
        });
        Arc::new(Progress {
            bar,
            printer: Arc::clone(self),
            what: what.to_owned(),
            total,
            state: Mutex::new((0, Instant::now())),
        })
    }
}

/// A failure as JSON, on one line.
pub(crate) fn failure_json(message: &str, hint: &str, exit: Exit) -> String {
    serde_json::json!({ "error": { "message": message, "hint": hint, "exit_code": exit.code() } }).to_string()
}

/// One upload under way. Cleared from the screen when dropped.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    printer: Arc<Printer>,
    what: String,
    total: u64,
    state: Mutex<(u64, Instant)>,
}

impl Progress {
    /// Starts again from nothing, as a repeated upload does.
    pub(crate) fn reset(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (0, Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_position(0);
        }
    }

    /// More bytes are on their way.
    pub(crate) fn add(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += bytes;
        // Often enough to see that it lives, seldom enough for a build log.
        if state.1.elapsed().as_secs() >= 5 && !self.printer.options.no_progress {
            state.1 = Instant::now();
            self.printer.say(&format!("{} {} of {}", self.what, human(state.0), human(self.total)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
