//! Asynchronous work of the platform: followed until it ends.

use std::time::{Duration, Instant};

use super::views::Job;
use super::{Answer, Client, ClientError, url};
use crate::error::CliError;

/// A job that takes longer is left to itself.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// First pause; most jobs are done by then. It grows by half up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_millis(500);

impl Client {
    /// Waits for the job in an answer's `Location`; an answer without one is done already. Prints the job's warnings.
    pub(crate) async fn finish(&self, answer: &Answer) -> Result<(), CliError> {
        self.finish_without(answer, |_| false).await
    }

    /// As [`Self::finish`], without the warnings that were printed before (`is_known`).
    pub(crate) async fn finish_without(
        &self,
        answer: &Answer,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(), CliError> {
        let Some(location) = answer.location.as_deref().filter(|_| answer.status == 202) else { return Ok(()) };
        let path = url::path_of(location).ok_or_else(|| ClientError::Address { address: location.to_owned() })?;
        let begun = Instant::now();
        let mut pause = SHORTEST;
        loop {
            let job: Job = self.get(&path).await?;
            match job.state.as_str() {
                "COMPLETE" => {
                    for warning in job.warnings.iter().filter(|warning| !is_known(&warning.detail)) {
                        self.printer.warn(&warning.detail);
                    }
                    return Ok(());
                }
                "FAILED" => return Err(CliError::JobFailed { errors: job.errors }),
                _ if begun.elapsed() > LIMIT => {
                    return Err(ClientError::JobStuck { minutes: LIMIT.as_secs() / 60 }.into());
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST);
        }
    }
}
