//! A program that was built elsewhere: nothing is installed, the Procfile or the manifest says what to start.

use crate::contract::BuildRequest;
use crate::procfile;
use crate::source::{Source, plain};

/// Only when the start command names an ELF file of the app: a Procfile alone says nothing about the kind of app, and
/// "started but not found" is a worse answer than "not detected".
pub(super) fn detects(request: &BuildRequest, source: &dyn Source) -> bool {
    let procfile = procfile::read(source).unwrap_or_default();
    let commands = procfile.iter().map(|process| process.command.as_str()).chain(request.command.as_deref());
    commands
        .filter_map(|command| command.split_whitespace().find(|word| *word != "exec" && !word.contains('=')))
        .any(|program| source.starts_with(plain(program), b"\x7fELF"))
}
