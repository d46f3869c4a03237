//! The one state machine of instances, bindings and keys: what is being done to them, and how far it is.
//!
//! ```text
//! (nothing) --create--> initial --answered--> in progress --answered--> succeeded | failed
//! succeeded | failed --update, delete--> initial …         deleted and succeeded = the row is gone
//! ```

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_api_types::{ErrorCode, Timestamp};

use crate::domain::{DomainError, DomainResult};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is removed.
    Delete,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The provider has not answered yet.
    #[serde(rename = "initial")]
    Initial,
    /// The provider works on it.
    #[serde(rename = "in progress")]
    InProgress,
    /// Done.
    #[serde(rename = "succeeded")]
    Succeeded,
    /// Not done; what was before stays.
    #[serde(rename = "failed")]
    Failed,
}

/// The response of a service's provider to an operation, or to a poll of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderResponse {
    /// Done, in words if there are any.
    Done(Option<String>),
    /// It goes on; ask again.
    Going(Option<String>),
    /// It cannot be done, for this reason.
    Failed(String),
}

/// The latest operation, as stored and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastOperation {
    /// What.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// How far.
    pub state: State,
    /// In words.
    #[serde(default)]
    pub description: Option<String>,
    /// Its beginning.
    pub created_at: Timestamp,
    /// Its latest answer.
    pub updated_at: Timestamp,
}

impl LastOperation {
    /// Begins one, if what is under way allows it. `name` is the instance's, for the refusal.
    ///
    /// # Errors
    /// `CF-AsyncServiceInstanceOperationInProgress` while another is under way. Something that is still being made
    /// may be removed.
    pub fn begin(stored: &Value, kind: Kind, name: &str, now: DateTime<Utc>) -> DomainResult<Self> {
        let current = Self::of(stored);
        let busy = current.as_ref().is_some_and(|current| match (current.kind, current.state) {
            (_, State::Succeeded | State::Failed) => false,
            (Kind::Create, State::InProgress) => kind != Kind::Delete,
            (_, State::Initial | State::InProgress) => true,
        });
        if busy {
            return Err(DomainError::refused(
                ErrorCode::AsyncServiceInstanceOperationInProgress,
                format!("An operation for service instance {name} is in progress."),
            ));
        }
        let now = Timestamp::from(now);
        Ok(Self { kind, state: State::Initial, description: None, created_at: now, updated_at: now })
    }

    /// What it is after an answer. An answer to something that has ended changes nothing.
    #[must_use]
    pub fn answered(mut self, answer: ProviderResponse, now: DateTime<Utc>) -> Self {
        if matches!(self.state, State::Succeeded | State::Failed) {
            return self;
        }
        (self.state, self.description) = match answer {
            ProviderResponse::Done(text) => (State::Succeeded, text),
            // A provider that says nothing new leaves what it said before.
            ProviderResponse::Going(text) => (State::InProgress, text.or(self.description)),
            ProviderResponse::Failed(text) => (State::Failed, Some(text)),
        };
        self.updated_at = now.into();
        self
    }

    /// What is stored; `None` for something that never had an operation.
    #[must_use]
    pub fn of(stored: &Value) -> Option<Self> {
        serde_json::from_value(stored.clone()).ok()
    }

    /// As it is stored.
    ///
    /// # Errors
    /// Never in practice: all of it is text.
    pub fn stored(&self) -> DomainResult<Value> {
        serde_json::to_value(self).map_err(|error| DomainError::internal("writing a service operation", error))
    }

    /// Whether what was asked for has been made: there are credentials to be shown.
    #[must_use]
    pub fn has_been_made(stored: &Value) -> bool {
        Self::of(stored).is_none_or(|last| last.kind != Kind::Create || last.state == State::Succeeded)
    }

    /// Whether a removal is under way.
    #[must_use]
    pub fn is_going_away(stored: &Value) -> bool {
        Self::of(stored)
            .is_some_and(|last| last.kind == Kind::Delete && matches!(last.state, State::Initial | State::InProgress))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).expect("a time")
    }

    fn begun(kind: Kind) -> LastOperation {
        LastOperation::begin(&json!({}), kind, "db", at(0)).expect("nothing is under way")
    }

    #[test]
    fn answers_end_an_operation_once() {
        let going = begun(Kind::Create).answered(ProviderResponse::Going(Some("making".to_owned())), at(1));
        assert_eq!((going.state, going.description.as_deref()), (State::InProgress, Some("making")));
        let still = going.answered(ProviderResponse::Going(None), at(2));
        assert_eq!(still.description.as_deref(), Some("making"));
        let done = still.answered(ProviderResponse::Done(None), at(3));
        assert_eq!((done.state, done.updated_at), (State::Succeeded, at(3).into()));
        assert_eq!(done.clone().answered(ProviderResponse::Failed("late".to_owned()), at(4)), done);
        let stored = done.stored().expect("stored");
        assert_eq!(stored["type"], "create");
        assert_eq!(LastOperation::of(&stored), Some(done));
    }

    #[test]
    fn one_operation_at_a_time() {
        let begin =
            |last: &LastOperation, kind| LastOperation::begin(&last.stored().expect("stored"), kind, "db", at(9));
        let failed = begun(Kind::Update).answered(ProviderResponse::Failed("no".to_owned()), at(1));
        for kind in [Kind::Create, Kind::Update, Kind::Delete] {
            assert!(begin(&failed, kind).is_ok(), "{kind:?} after one that has ended");
            for busy in [Kind::Create, Kind::Update, Kind::Delete] {
                let error = begin(&begun(busy), kind).expect_err("under way");
                assert_eq!(error.code(), ErrorCode::AsyncServiceInstanceOperationInProgress);
            }
        }
        let making = begun(Kind::Create).answered(ProviderResponse::Going(None), at(1));
        assert!(begin(&making, Kind::Delete).is_ok(), "what is being made may be removed");
        assert!(begin(&making, Kind::Update).is_err());
        let stored = making.stored().expect("stored");
        assert!(!LastOperation::has_been_made(&stored) && !LastOperation::is_going_away(&stored));
        assert!(LastOperation::is_going_away(&begun(Kind::Delete).stored().expect("stored")));
        assert!(LastOperation::has_been_made(&json!({})));
    }
}
