//! Man pages, one for each command.

use std::io;
use std::path::Path;

use clap::Command;

use crate::program::visible;

/// Writes the pages of a program; how many.
pub(crate) fn write(command: &Command, directory: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    let mut command = command.clone();
    command.build();
    let mut pages = 0;
    let mut left = vec![(command.get_name().to_owned(), command)];
    while let Some((name, command)) = left.pop() {
        let mut page = Vec::new();
        let page_of = command.clone().display_name(&name).override_usage(synopsis(&command));
        clap_mangen::Man::new(page_of).title(name.to_uppercase()).render(&mut page)?;
        std::fs::write(directory.join(format!("{name}.1")), page)?;
        pages += 1;
        let below = visible(&command).filter(|one| one.get_name() != "help");
        left.extend(below.map(|one| (format!("{name}-{}", one.get_name()), one.clone())));
    }
    Ok(pages)
}

/// A command with all that it takes, each value by its name: `slipway logs [-n, --lines LINES] [APP]`.
fn synopsis(command: &Command) -> String {
    let mut words = vec![command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()];
    let taken =
        command.get_arguments().filter(|one| !one.is_hide_set() && !one.is_global_set() && one.get_id() != "help");
    let (positional, flags): (Vec<_>, Vec<_>) = taken.partition(|one| one.is_positional());
    for one in flags {
        let names: Vec<String> = one
            .get_short()
            .map(|c| format!("-{c}"))
            .into_iter()
            .chain(one.get_long().map(|word| format!("--{word}")))
            .collect();
        let takes = one.get_num_args().is_none_or(|count| count.takes_values());
        let values = one.get_value_names().filter(|_| takes).unwrap_or_default();
        let value = values.iter().fold(String::new(), |all, name| format!("{all} {name}"));
        words.push(format!("[{}{value}]", names.join(", ")));
    }
    for one in positional {
        let name = one.get_value_names().unwrap_or_default().join(" ");
        let more = if one.get_num_args().is_some_and(|count| count.max_values() > 1) { " …" } else { "" };
        words.push(if one.is_required_set() { format!("{name}{more}") } else { format!("[{name}{more}]") });
    }
    if command.has_subcommands() {
        words.push("COMMAND …".to_owned());
    }
    words.join(" ")
}
