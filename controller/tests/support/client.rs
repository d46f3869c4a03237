//! A client of the API: sends, reads JSON, follows jobs.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// A client with a token.
#[derive(Clone)]
pub struct TestClient {
    http: reqwest::Client,
    base: String,
    pub token: Option<String>,
}

impl TestClient {
    /// For this address, with this token (or none).
    pub fn new(base: &str, token: Option<&str>) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned(), token: token.map(ToOwned::to_owned) }
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        // An absolute link of an answer may be followed as it is.
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header("authorization", format!("bearer {token}")),
            None => request,
        }
    }

    /// Sends and reads status and JSON (null when empty).
    pub async fn send(&self, request: RequestBuilder) -> (StatusCode, Value) {
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let bytes = response.bytes().await.expect("a body");
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into()))
        };
        (status, body)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` without a body: actions.
    pub async fn act(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::POST, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Follows the `Location` of a 202 until the job has ended; the job.
    pub async fn job(&self, request: RequestBuilder) -> Value {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{:?}", response.text().await);
        let location = response.headers()["location"].to_str().expect("text").to_owned();
        slipway_test_support::eventually("the job ends", slipway_test_support::PATIENCE, || async {
            let (status, job) = self.get(&location).await;
            assert_eq!(status, StatusCode::OK, "{job}");
            match job["state"].as_str() {
                Some("COMPLETE" | "FAILED") => Ok(job),
                _ => Err(job),
            }
        })
        .await
    }

    /// `DELETE` and wait; the job.
    pub async fn delete_job(&self, path: &str) -> Value {
        self.job(self.request(Method::DELETE, path)).await
    }
}

/// The only error's code and detail.
pub fn error(body: &Value) -> (u64, String) {
    let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no errors in {body}"));
    assert_eq!(errors.len(), 1, "{body}");
    (errors[0]["code"].as_u64().expect("a code"), errors[0]["detail"].as_str().expect("a detail").to_owned())
}
