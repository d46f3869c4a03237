//! When to doubt one's own eyes: many cells lost at once is more often a network or a power cut than many deaths.

use std::collections::BTreeSet;

use crate::{CellState, Placed, Snapshot};

/// Why nothing is replaced now: cells of more than one zone, or a third of all (and at least two), went away at once.
/// Cells whose instances were replaced before do not count, cells that have just lost their session do.
pub(super) fn hold<'a>(input: &Snapshot, stranded: impl Iterator<Item = &'a Placed>) -> Option<String> {
    let homes: BTreeSet<_> = stranded.map(|placed| placed.cell).collect();
    let gone: Vec<_> = input
        .cells
        .iter()
        .filter(|cell| match cell.state {
            CellState::Connected | CellState::Fenced => false,
            CellState::Suspect => true,
            CellState::Lost => homes.contains(&cell.id),
        })
        .collect();
    let zones: BTreeSet<&str> = gone.iter().map(|cell| cell.zone.as_str()).collect();
    let third = input.cells.len().div_ceil(3).max(2);
    if zones.len() > 1 || gone.len() >= third {
        return Some(format!(
            "{} of {} cells in {} zone(s) have no session: nothing is replaced until some return",
            gone.len(),
            input.cells.len(),
            zones.len()
        ));
    }
    None
}
