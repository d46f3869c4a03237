//! A table on standard output and the same as JSON on disk.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Platform;

/// Rows of text under column names.
pub(crate) struct Table {
    name: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(name: &'static str, columns: &[&str]) -> Self {
        Self { name, columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints the table and writes `target/bench/NAME.json` with the raw figures.
    pub(crate) fn finish(&self, raw: &Value) -> anyhow::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(String::len);
            cells.chain([self.columns[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("| {} |", padded.join(" | "));
        };
        line(&self.columns);
        line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
        let directory: PathBuf = Platform::repository().join("target/bench");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.json", self.name));
        let machine = json!({
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "memory_kib": memory_kib(),
        });
        let document = json!({"bench": self.name, "machine": machine, "figures": raw});
        std::fs::write(&path, serde_json::to_vec_pretty(&document)?)?;
        eprintln!("raw figures: {}", path.display());
        Ok(())
    }
}

fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// `median (least..most)` of some milliseconds; a dash without figures.
pub(crate) fn median_and_spread(figures: &[u64]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.first(), sorted.last()) {
        (Some(median), Some(least), Some(most)) => format!("{median} ({least}..{most})"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_figure_and_the_ends() {
        assert_eq!(median_and_spread(&[30, 10, 20]), "20 (10..30)");
        assert_eq!(median_and_spread(&[]), "-");
    }
}
