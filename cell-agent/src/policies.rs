//! Egress policies by id: what the instances of one space may reach. They come with the set that names them and are kept
//! beside the journal, so that an instance that starts again while no controller answers gets the rules it had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use slipway_protocol::digest::sha256;
use slipway_protocol::v1::{EgressPolicy, EgressPolicyBody, EgressRule, WorkloadSpec};

use crate::sandbox;
use crate::store::Journal;
use crate::store::sealed::FileError;
use crate::workload::{self, SpecError};

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It did not come with the set, and is not kept.
    #[error(
        "the egress policy {0} is not on this cell; it will come with the next set of assignments from a controller"
    )]
    Missing(String),
    /// The bytes are the right ones and mean nothing.
    #[error("the egress policy {0} cannot be decoded")]
    Undecodable(String, #[source] prost::DecodeError),
    /// A rule cannot be read.
    #[error("the egress policy cannot be used")]
    Rule(#[from] SpecError),
}

/// See the module.
#[derive(Debug)]
pub struct PolicyBook {
    journal: Arc<Journal>,
    known: Mutex<BTreeMap<Bytes, Bytes>>,
}

impl PolicyBook {
    /// A book over the journal's kept policies.
    #[must_use]
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Bytes, Bytes>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the policies of a set in, and keeps the new ones on disk. One whose bytes are not what its id says is left
    /// out: who needs it finds it missing.
    ///
    /// # Errors
    /// When the disk refuses; they are known all the same.
    pub fn keep(&self, policies: Vec<EgressPolicyBody>) -> Result<(), FileError> {
        let mut stored = Ok(());
        for policy in policies {
            if sha256(&policy.body)[..] != policy.id[..] {
                tracing::error!(id = hex::encode(&policy.id), "an egress policy is not what its id says");
                continue;
            }
            if self.known().insert(policy.id.clone(), policy.body.clone()).is_none() {
                stored = stored.and(self.journal.put_policy(&policy.id, &policy.body));
            }
        }
        stored
    }

    /// The rules that hold: those of the policy, or the spec's own when the assignment names none.
    ///
    /// # Errors
    /// When the policy is not here, or cannot be read: a rule that was left out would silently refuse, or admit, traffic.
    pub fn rules(&self, policy: &Bytes, spec: &WorkloadSpec) -> Result<Vec<sandbox::EgressRule>, PolicyError> {
        if policy.is_empty() {
            return Ok(workload::egress(&spec.egress)?);
        }
        Ok(workload::egress(&self.wire(policy)?)?)
    }

    fn wire(&self, id: &Bytes) -> Result<Vec<EgressRule>, PolicyError> {
        let known = self.known().get(id).cloned();
        let body = known.or_else(|| self.journal.policy(id).filter(|body| sha256(body)[..] == id[..]));
        let body = body.ok_or_else(|| PolicyError::Missing(hex::encode(id)))?;
        let policy =
            EgressPolicy::decode(body.clone()).map_err(|error| PolicyError::Undecodable(hex::encode(id), error))?;
        self.known().insert(id.clone(), body);
        Ok(policy.rules)
    }

    /// Forgets all but these.
    pub fn retain(&self, wanted: &BTreeSet<Vec<u8>>) {
        self.known().retain(|id, _| wanted.contains(&id[..]));
        if let Err(error) = self.journal.retain_policies(wanted) {
            tracing::warn!(error = %slipway_chassis::chain(&error), "egress policies that nobody needs were not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(destination: &str) -> EgressPolicyBody {
        let rule = EgressRule {
            protocol: "tcp".into(),
            destination: destination.into(),
            ports: "443".into(),
            ..EgressRule::default()
        };
        let body = Bytes::from(EgressPolicy { rules: vec![rule] }.encode_to_vec());
        EgressPolicyBody { id: Bytes::copy_from_slice(&sha256(&body)), body }
    }

    #[test]
    fn policies_outlive_the_agent_until_nobody_names_them() {
        let state = tempfile::tempdir().expect("directory");
        let open = || PolicyBook::new(Arc::new(Journal::open(state.path()).expect("journal")));
        let (one, other) = (policy("10.0.0.1"), policy("10.0.0.2"));
        let forged = EgressPolicyBody { id: one.id.clone(), body: other.body.clone() };
        let book = open();
        book.keep(vec![forged]).expect("passed over");
        let spec = WorkloadSpec::default();
        assert!(matches!(book.rules(&one.id, &spec), Err(PolicyError::Missing(_))));
        book.keep(vec![one.clone(), other.clone()]).expect("kept");

        let book = open();
        assert_eq!(book.rules(&one.id, &spec).expect("kept")[0].first.to_string(), "10.0.0.1");
        book.retain(&BTreeSet::from([other.id.to_vec()]));
        assert!(matches!(book.rules(&one.id, &spec), Err(PolicyError::Missing(_))));
        assert!(book.rules(&other.id, &spec).is_ok());
    }

    #[test]
    fn without_a_policy_the_spec_decides() {
        let state = tempfile::tempdir().expect("directory");
        let book = PolicyBook::new(Arc::new(Journal::open(state.path()).expect("journal")));
        let mut spec = WorkloadSpec::default();
        assert!(book.rules(&Bytes::new(), &spec).expect("nothing").is_empty());
        spec.egress =
            vec![EgressRule { protocol: "all".into(), destination: "0.0.0.0/0".into(), ..EgressRule::default() }];
        assert_eq!(book.rules(&Bytes::new(), &spec).expect("everything").len(), 1);
    }
}
