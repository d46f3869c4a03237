//! How a job went.

use std::time::Duration;

/// How a handler ended, when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Done, with what the user should be told.
    Done(Vec<String>),
    /// Something else must happen first; ask again after the pause. The job reads `POLLING` meanwhile when the flag
    /// is set: only for work that a broker does, because clients stop waiting then.
    Wait(Duration, bool),
}

impl JobOutcome {
    /// Done, nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::Done(Vec::new())
    }
}
