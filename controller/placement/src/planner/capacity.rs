//! What is free where, and which cell an instance goes to.

use std::collections::{BTreeMap, BTreeSet};

use slipway_api_types::CellId;
use uuid::Uuid;

use super::{Overcommit, REFUSAL_MEMORY_MS, cell_name};
use crate::{Cell, CellState, Placed, Role, SlotUse, Snapshot, SpecDigest, UnplacedReason, Wanted};

/// An instance that needs a place.
pub(super) struct Need<'a> {
    pub(super) wanted: &'a Wanted,
    /// The cell it is to leave.
    pub(super) not_on: Option<CellId>,
}

/// Free capacity of all cells, and where instances of each group are.
pub(super) struct Capacity<'a> {
    cells: BTreeMap<CellId, Free<'a>>,
    /// Primaries of a group per cell.
    spread: BTreeMap<Uuid, BTreeMap<CellId, u32>>,
    refused: BTreeMap<(Uuid, SpecDigest), BTreeMap<CellId, &'a str>>,
}

struct Free<'a> {
    cell: &'a Cell,
    /// What may be promised there in all.
    promised_memory_mb: u64,
    /// What may still be promised.
    memory_mb: u64,
    disk_mb: u64,
    slots: SlotUse,
}

impl<'a> Capacity<'a> {
    pub(super) fn new(input: &'a Snapshot, overcommit: Overcommit) -> Self {
        let percent = |mb: u64, percent: u64| mb.saturating_mul(percent) / 100;
        let mut cells: BTreeMap<CellId, Free<'a>> = input
            .cells
            .iter()
            .map(|cell| {
                let slots = input.slots.get(&cell.id).cloned().unwrap_or_default();
                let memory_mb = percent(cell.memory_mb, overcommit.memory_percent);
                let disk_mb = percent(cell.disk_mb, overcommit.disk_percent);
                (cell.id, Free { cell, promised_memory_mb: memory_mb, memory_mb, disk_mb, slots })
            })
            .collect();
        let mut spread: BTreeMap<Uuid, BTreeMap<CellId, u32>> = BTreeMap::new();
        for placed in &input.assignments {
            if let Some(free) = cells.get_mut(&placed.cell).filter(|_| !placed.observed.is_gone()) {
                free.memory_mb = free.memory_mb.saturating_sub(placed.memory_mb);
                free.disk_mb = free.disk_mb.saturating_sub(placed.disk_mb);
            }
            if placed.role == Role::Primary {
                *spread.entry(placed.group).or_default().entry(placed.cell).or_default() += 1;
            }
        }
        let mut refused: BTreeMap<_, BTreeMap<CellId, &'a str>> = BTreeMap::new();
        for refusal in input.refusals.iter().filter(|refusal| refusal.age_ms < REFUSAL_MEMORY_MS) {
            refused.entry((refusal.group, refusal.spec)).or_default().insert(refusal.cell, &refusal.reason);
        }
        Self { cells, spread, refused }
    }

    /// An instance stops being the primary of its group. Its memory stays taken until the cell says it is gone.
    pub(super) fn leave(&mut self, placed: &Placed) {
        if placed.role == Role::Primary
            && let Some(count) = self.spread.get_mut(&placed.group).and_then(|cells| cells.get_mut(&placed.cell))
        {
            *count = count.saturating_sub(1);
        }
    }

    /// An instance becomes the primary again.
    pub(super) fn enter(&mut self, placed: &Placed) {
        *self.spread.entry(placed.group).or_default().entry(placed.cell).or_default() += 1;
    }

    /// A new instance goes to a cell.
    pub(super) fn take(&mut self, wanted: &Wanted, cell: CellId, slot: u16) {
        if let Some(free) = self.cells.get_mut(&cell) {
            free.memory_mb = free.memory_mb.saturating_sub(wanted.memory_mb);
            free.disk_mb = free.disk_mb.saturating_sub(wanted.disk_mb);
            free.slots.taken.insert(slot);
        }
        *self.spread.entry(wanted.group).or_default().entry(cell).or_default() += 1;
    }

    /// The best cell and a free slot on it: fewest of the group in the zone, then on the cell, then one that has the
    /// stack unpacked, then the emptiest.
    ///
    /// # Errors
    /// With figures, why there is none.
    pub(super) fn choose(&self, need: &Need<'_>) -> Result<(CellId, u16), Unplaceable> {
        let wanted = need.wanted;
        let candidates = self.candidates(need)?;
        let none = BTreeMap::new();
        let spread = self.spread.get(&wanted.group).unwrap_or(&none);
        let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
        for (cell, count) in spread {
            if let Some(free) = self.cells.get(cell) {
                *zones.entry(&free.cell.zone).or_default() += count;
            }
        }
        let best = candidates.into_iter().min_by_key(|free| {
            let cell = free.cell;
            (
                zones.get(cell.zone.as_str()).copied().unwrap_or(0),
                spread.get(&cell.id).copied().unwrap_or(0),
                !cell.stacks.contains(&wanted.stack),
                std::cmp::Reverse(free.memory_mb.saturating_mul(1_000) / free.promised_memory_mb.max(1)),
                cell.id,
            )
        });
        let free = best.ok_or_else(|| Unplaceable::other("no cell is left"))?;
        let slot = free.slot().ok_or_else(|| Unplaceable::other("no slot is left"))?;
        Ok((free.cell.id, slot))
    }

    /// Narrows step by step; the step that leaves nothing gives the reason.
    fn candidates(&self, need: &Need<'_>) -> Result<Vec<&Free<'a>>, Unplaceable> {
        let wanted = need.wanted;
        let connected: Vec<&Free<'a>> = self
            .cells
            .values()
            .filter(|free| free.cell.state == CellState::Connected && Some(free.cell.id) != need.not_on)
            .collect();
        if connected.is_empty() {
            let other = if need.not_on.is_some() { "other " } else { "" };
            return Err(Unplaceable::other(format!("no {other}cell is connected")));
        }
        let open = keep(connected, |free| !free.cell.cordoned)
            .ok_or_else(|| Unplaceable::other("every connected cell is cordoned"))?;
        let tagged = keep(open, |free| wanted.tags.is_subset(&free.cell.tags)).ok_or_else(|| {
            let tags: Vec<&str> = wanted.tags.iter().map(String::as_str).collect();
            Unplaceable::incompatible(&format!("has the tags {}", tags.join(", ")))
        })?;
        let segment = |of: &Option<String>| of.as_ref().map(|name| name.to_lowercase());
        let own =
            keep(tagged, |free| segment(&free.cell.segment) == segment(&wanted.segment)).ok_or_else(
                || match &wanted.segment {
                    Some(name) => Unplaceable::incompatible(&format!("is in the isolation segment {name:?}")),
                    None => Unplaceable::incompatible("is in the shared isolation segment"),
                },
            )?;
        let refused = self.refused.get(&(wanted.group, wanted.spec));
        let willing = keep(own, |free| refused.is_none_or(|cells| !cells.contains_key(&free.cell.id)));
        let willing = willing.ok_or_else(|| {
            let (cell, reason) = refused
                .and_then(|cells| cells.iter().next())
                .map_or(("a cell".to_owned(), ""), |(cell, reason)| (cell_name(*cell), *reason));
            Unplaceable::other(format!("{cell} refused it: {reason}"))
        })?;
        // However much is promised: one alone never gets more than is there.
        let fits = fitting(willing, "", wanted.memory_mb, |free| free.memory_mb.min(free.cell.memory_mb))?;
        let fits = fitting(fits, " of disk", wanted.disk_mb, |free| free.disk_mb.min(free.cell.disk_mb))?;
        let slots = fits.len();
        keep(fits, |free| free.slot().is_some())
            .ok_or_else(|| Unplaceable::room(&format!("no slot is free on any of the {slots} cell(s) with room")))
    }
}

/// Why there is no place, with words for people.
#[derive(Clone, Debug)]
pub(super) struct Unplaceable {
    pub(super) reason: UnplacedReason,
    pub(super) details: String,
}

impl Unplaceable {
    fn other(details: impl Into<String>) -> Self {
        Self { reason: UnplacedReason::Other, details: details.into() }
    }

    /// `which` completes "no connected cell …". The words before it are Cloud Foundry's.
    fn incompatible(which: &str) -> Self {
        let details = format!("found no compatible cell: no connected cell {which}");
        Self { reason: UnplacedReason::NoCompatibleCell, details }
    }

    fn room(figures: &str) -> Self {
        Self { reason: UnplacedReason::NoRoom, details: format!("waiting for room: {figures}") }
    }
}

fn keep<T: Copy>(list: Vec<T>, pick: impl Fn(T) -> bool) -> Option<Vec<T>> {
    let picked: Vec<T> = list.into_iter().filter(|item| pick(*item)).collect();
    (!picked.is_empty()).then_some(picked)
}

fn fitting<'f, 'a>(
    cells: Vec<&'f Free<'a>>,
    what: &str,
    need: u64,
    free: impl Fn(&Free<'a>) -> u64,
) -> Result<Vec<&'f Free<'a>>, Unplaceable> {
    let largest = cells.iter().max_by_key(|cell| (free(cell), std::cmp::Reverse(cell.cell.id))).copied();
    keep(cells, |cell| free(cell) >= need).ok_or_else(|| {
        let (mb, on) =
            largest.map_or((0, String::new()), |cell| (free(cell), format!(" on {}", cell_name(cell.cell.id))));
        Unplaceable::room(&format!("needs {need} MiB{what}; the largest free is {mb} MiB{on}"))
    })
}

impl Free<'_> {
    /// The lowest free slot; one that was in use within the last minute only when there is no other.
    fn slot(&self) -> Option<u16> {
        let free = |resting: bool| {
            let taken: &BTreeSet<u16> = &self.slots.taken;
            (0..self.cell.slots).find(|slot| !taken.contains(slot) && (resting || !self.slots.resting.contains(slot)))
        };
        free(false).or_else(|| free(true))
    }
}
