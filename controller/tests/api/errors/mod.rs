//! Every error that the `cf` command line reacts to, in its situation: status, code, title and words. Those of
//! deployments are in `deployments/refusals.rs`; `docs/api-coverage.md` says which test holds which.

mod access;
mod builds;
mod platform;
mod requests;
mod services;
mod things;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::TestClient;

/// What must come back. The detail is compared whole.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    status: u16,
    code: u64,
    title: &'static str,
    detail: String,
}

pub(crate) fn expected(status: u16, code: u64, title: &'static str, detail: impl Into<String>) -> Expected {
    Expected { status, code, title, detail: detail.into() }
}

pub(crate) fn unprocessable(detail: impl Into<String>) -> Expected {
    expected(422, 10008, "CF-UnprocessableEntity", detail)
}

pub(crate) fn missing(detail: &str) -> Expected {
    expected(404, 10010, "CF-ResourceNotFound", detail)
}

impl Expected {
    /// As it stands in an answer, and in a job that has failed.
    pub(crate) fn errors(&self) -> Value {
        json!([{ "code": self.code, "title": self.title, "detail": self.detail }])
    }

    /// How an answer differs from it.
    fn difference(&self, status: StatusCode, answer: &Value) -> Option<String> {
        let wanted = json!({ "errors": self.errors() });
        let same = status.as_u16() == self.status && *answer == wanted;
        (!same).then(|| format!("{status} {answer}\n  not {} {wanted}", self.status))
    }
}

/// An answer is this error and nothing else.
pub(crate) fn assert_error(answer: &(StatusCode, Value), expected: &Expected) {
    if let Some(difference) = expected.difference(answer.0, &answer.1) {
        panic!("{difference}");
    }
}

/// A job has failed with this error and no other.
pub(crate) fn failed(job: &Value, expected: &Expected) {
    assert_eq!((&job["state"], &job["errors"]), (&json!("FAILED"), &expected.errors()), "{job}");
}

/// A call, and what it gives.
struct Case {
    client: TestClient,
    method: Method,
    path: String,
    body: Option<Value>,
    expected: Expected,
}

/// Calls that are made one after the other.
#[derive(Default)]
pub(crate) struct Cases(Vec<Case>);

impl Cases {
    pub(crate) fn add(&mut self, client: &TestClient, call: (&str, &str), body: Option<Value>, expected: Expected) {
        let method = Method::from_bytes(call.0.as_bytes()).expect("a method");
        self.0.push(Case { client: client.clone(), method, path: call.1.to_owned(), body, expected });
    }

    /// Makes the calls; all that differ are told together.
    pub(crate) async fn check(self) {
        let mut wrong = Vec::new();
        for case in self.0 {
            let mut request = case.client.request(case.method.clone(), &case.path);
            if let Some(body) = &case.body {
                request = request.json(body);
            }
            let (status, answer) = case.client.send(request).await;
            if let Some(difference) = case.expected.difference(status, &answer) {
                wrong.push(format!("{} {}: {difference}", case.method, case.path));
            }
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}

pub(crate) fn to_one(guid: impl ToString) -> Value {
    json!({ "data": { "guid": guid.to_string() } })
}
