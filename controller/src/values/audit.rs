//! Audit events: who did what to what. Written in the transaction that does it, so that neither is there without the
//! other.

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

/// Who or what an event speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSubject {
    /// Its guid.
    pub guid: String,
    /// `user`, `app`, `route`, …
    pub kind: &'static str,
    /// Its name at that time.
    pub name: String,
}

impl AuditSubject {
    /// A subject of an audit event: an app, a route, a user.
    pub fn new(kind: &'static str, guid: impl ToString, name: impl Into<String>) -> Self {
        Self { guid: guid.to_string(), kind, name: name.into() }
    }

    /// The platform itself, for what no user asked for.
    #[must_use]
    pub fn system() -> Self {
        Self::new("system", "system", "system")
    }
}

/// An event to be recorded.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// `audit.app.create`, `app.crash`, …: one of Cloud Foundry's names where it has one.
    pub kind: Cow<'static, str>,
    /// Who did it.
    pub actor: AuditSubject,
    /// What it was done to.
    pub target: AuditSubject,
    /// Details; member `request` must be an object. Never a secret.
    pub data: Map<String, Value>,
    /// Where.
    pub space: Option<Uuid>,
    /// Where.
    pub org: Option<Uuid>,
}

impl NewEvent {
    /// An event without details.
    #[must_use]
    pub fn new(kind: impl Into<Cow<'static, str>>, actor: AuditSubject, target: AuditSubject) -> Self {
        Self { kind: kind.into(), actor, target, data: Map::new(), space: None, org: None }
    }

    /// In this space of this organization.
    #[must_use]
    pub fn in_space(mut self, space: Uuid, org: Uuid) -> Self {
        self.space = Some(space);
        self.org = Some(org);
        self
    }

    /// In this organization.
    #[must_use]
    pub fn in_org(mut self, org: Uuid) -> Self {
        self.org = Some(org);
        self
    }

    /// With the request that caused it; anything but an object is left out, because clients cannot read it.
    #[must_use]
    pub fn with_request(mut self, request: Value) -> Self {
        if request.is_object() {
            self.data.insert("request".to_owned(), request);
        }
        self
    }

    /// With one more detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }
}
