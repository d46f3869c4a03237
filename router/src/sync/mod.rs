//! Keeping the table: a session with one controller at a time, a journal on disk, and the swap that puts a table in
//! force. The proxy never waits for any of it; without a controller the last table stands.

mod journal;
mod sealed;
mod session;
mod store;

pub use journal::JournalError;
pub use session::{SessionSettings, run};
pub use store::{SyncStatus, TableStore};
