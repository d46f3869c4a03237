//! Benchmarks over the wire. Each prints a table of medians with their spread and writes JSON.

pub mod api;
pub mod footprint;
pub mod neighbours;
pub mod push;
pub mod router;
mod table;

pub(crate) use table::{Table, median_and_spread};
