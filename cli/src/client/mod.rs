//! The HTTP client: requests with a fresh token, answers as JSON, errors that say who refused what.
//!
//! Answers are read leniently (only the members a command needs, see `views`), so that a newer platform does not break
//! an older command line. Bodies are bounded and text of a server is never trusted to be JSON.

mod auth;
mod error;
mod jobs;
pub(crate) mod logs;
mod resolver;
mod transport;
mod url;
pub(crate) mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::url::Url;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use slipway_api_types::error::{ApiErrorBody, ApiErrorEntry};

pub(crate) use auth::{discover, identity};
pub use error::ClientError;
pub(crate) use url::{api_url, query};

use crate::printer::Printer;
use crate::settings::{Settings, SettingsFile};

/// Largest JSON answer that is read: a list of 5000 resources stays far below.
const BODY_LIMIT: usize = 64 << 20;
/// One request with a JSON answer. Longer than any lock the platform waits for, shorter than a person's patience.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Repetitions of a request that may be repeated, with growing pauses.
const RETRIES: u32 = 2;

/// What a request carries.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    None,
    Json(Value),
    Yaml(String),
    /// Anything, with its content type.
    Raw(Vec<u8>, String),
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
    what: String,
    /// The request had been sent before, and that answer was lost.
    repeated: bool,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| ClientError::Answer {
            what: self.what.clone(),
            status: self.status,
            begins: error::beginning(&self.body),
            source: Some(source),
        })
    }
}

/// A client of one platform as one user.
pub(crate) struct Client {
    http: reqwest::Client,
    api: Url,
    login: Url,
    log_cache: Url,
    auth: auth::Auth,
    printer: Arc<Printer>,
}

impl Client {
    /// A client for a stored login.
    pub(crate) fn open(settings: &Settings, file: SettingsFile, printer: Arc<Printer>) -> Result<Self, ClientError> {
        let api = api_url(&settings.api)?;
        let login = api_url(&settings.login)?;
        let log_cache = api_url(&settings.log_cache)?;
        let http = transport::client(settings, &[&api, &login, &log_cache])?;
        let auth = auth::Auth::new(http.clone(), login.clone(), settings, file);
        Ok(Self { http, api, login, log_cache, auth, printer })
    }

    /// The address of the API.
    pub(crate) fn api(&self) -> &Url {
        &self.api
    }

    /// `GET` of one resource.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Body::None).await?.json()
    }

    /// All resources of a list, page after page.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next.take() {
            let page: views::Page = self.get(&path).await?;
            all.extend(page.resources);
            // Only path and query are taken: the token goes to the API that was logged in to, whatever a page says.
            next = page.pagination.next.and_then(|link| url::path_of(&link.href)).filter(|next| *next != path);
        }
        Ok(all)
    }

    /// As [`list`](Self::list), decoded.
    pub(crate) async fn list_as<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        self.list(path).await?.into_iter().map(|value| views::decode(value, path)).collect()
    }

    /// Sends a request and gives its JSON.
    pub(crate) async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<T, ClientError> {
        self.send(method, path, Body::Json(body)).await?.json()
    }

    /// Sends a request; anything but success is an error.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Body) -> Result<Answer, ClientError> {
        let deletes = method == Method::DELETE;
        let answer = self.exchange(method, path, body, &[]).await?;
        self.warnings(&answer);
        // The try whose answer was lost has done it already.
        let done_before = deletes && answer.repeated && answer.status == 404;
        if answer.status < 400 || done_before { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// Sends a request and gives whatever comes back, errors included.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Body,
        headers: &[(String, String)],
    ) -> Result<Answer, ClientError> {
        let url = url::join(&self.api, path)?;
        self.authorized(method, url, body, headers).await
    }

    /// `GET` with headers of its own; anything but success is an error.
    pub(crate) async fn fetch(&self, path: &str, headers: &[(String, String)]) -> Result<Answer, ClientError> {
        let answer = self.exchange(Method::GET, path, Body::None, headers).await?;
        if answer.status < 400 { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// A request to the part of the platform that knows accounts and their passwords.
    pub(crate) async fn accounts(&self, method: Method, path: &str, body: Body) -> Result<Answer, ClientError> {
        let url = url::join(&self.login, path)?;
        let answer = self.authorized(method, url, body, &[]).await?;
        if answer.status < 400 { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// `GET` at the log cache.
    async fn log_cache(&self, path: &str) -> Result<Answer, ClientError> {
        let url = url::join(&self.log_cache, path)?;
        let answer = self.authorized(Method::GET, url, Body::None, &[]).await?;
        if answer.status < 400 { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// One request with a token: refreshed before it ends, and once more when the platform does not accept it.
    async fn authorized(
        &self,
        method: Method,
        url: Url,
        body: Body,
        headers: &[(String, String)],
    ) -> Result<Answer, ClientError> {
        let token = self.auth.token().await?;
        let answer = self.with_retries(&method, &url, &body, headers, &token.0).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let token = self.auth.renew(&token).await?;
        self.with_retries(&method, &url, &body, headers, &token.0).await
    }

    async fn with_retries(
        &self,
        method: &Method,
        url: &Url,
        body: &Body,
        headers: &[(String, String)],
        token: &str,
    ) -> Result<Answer, ClientError> {
        // A POST may have been carried out although its answer was lost.
        let tries = if *method == Method::POST { 0 } else { RETRIES };
        let mut tried = 0;
        loop {
            let result = self.once(method, url, body, headers, token).await;
            let again = match &result {
                Ok(answer) => matches!(answer.status, 502..=504),
                Err(error) => error.is_passing(),
            };
            if !again || tried >= tries {
                return result.map(|answer| Answer { repeated: tried > 0, ..answer });
            }
            tried += 1;
            tokio::time::sleep(Duration::from_millis(200) * tried).await;
        }
    }

    async fn once(
        &self,
        method: &Method,
        url: &Url,
        body: &Body,
        headers: &[(String, String)],
        token: &str,
    ) -> Result<Answer, ClientError> {
        let mut request = self.http.request(method.clone(), url.clone()).timeout(REQUEST_TIMEOUT).bearer_auth(token);
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(value),
            Body::Yaml(text) => request.header("content-type", "application/x-yaml").body(text.clone()),
            Body::Raw(bytes, kind) => request.header("content-type", kind).body(bytes.clone()),
        };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let begun = Instant::now();
        let response = request.send().await.map_err(|source| ClientError::transport(url, source));
        let what = format!("{method} {}", url.path());
        self.printer.detail(|| {
            let outcome = match &response {
                Ok(response) => response.status().as_u16().to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            format!("{what}{query} -> {outcome} in {} ms", begun.elapsed().as_millis())
        });
        read_answer(response?, what, url).await
    }

    /// Sends an upload; it is not repeated here, since its body is a stream.
    pub(crate) async fn upload(&self, path: &str, form: reqwest::multipart::Form) -> Result<Answer, ClientError> {
        let url = url::join(&self.api, path)?;
        let token = self.auth.token().await?;
        let request = self.http.post(url.clone()).bearer_auth(&token.0).multipart(form);
        let response = request.send().await.map_err(|source| ClientError::transport(&url, source))?;
        let answer = read_answer(response, format!("POST {}", url.path()), &url).await?;
        self.warnings(&answer);
        match answer.status {
            401 => {
                self.auth.renew(&token).await?;
                Err(refused(&answer))
            }
            400.. => Err(refused(&answer)),
            _ => Ok(answer),
        }
    }

    /// Takes the login back at the platform; what cannot be reached is left to expire.
    pub(crate) async fn revoke(&self) {
        self.auth.revoke().await;
    }

    /// Shows `X-Cf-Warnings`.
    fn warnings(&self, answer: &Answer) {
        for header in answer.headers.get_all("x-cf-warnings") {
            for item in header.to_str().unwrap_or_default().split(',').filter(|item| !item.is_empty()) {
                self.printer.warn(&url::decode_form(item));
            }
        }
    }
}

async fn read_answer(mut response: reqwest::Response, what: String, url: &Url) -> Result<Answer, ClientError> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let location = headers.get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| ClientError::transport(url, source))? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(ClientError::TooLong { what, limit: BODY_LIMIT });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, location, body, what, repeated: false })
}

/// The error in an answer of 400 and above: the API's own words when it is the API that answered.
fn refused(answer: &Answer) -> ClientError {
    match serde_json::from_slice::<ApiErrorBody>(&answer.body) {
        Ok(body) if !body.errors.is_empty() => {
            ClientError::Refused { status: answer.status, what: answer.what.clone(), errors: body.errors }
        }
        Err(_) if described(answer).is_some() => {
            let detail = described(answer).unwrap_or_default();
            let entry = ApiErrorEntry { code: 0, title: String::new(), detail };
            ClientError::Refused { status: answer.status, what: answer.what.clone(), errors: vec![entry] }
        }
        _ if matches!(answer.status, 401 | 403 | 404) && answer.body.is_empty() => {
            ClientError::Refused { status: answer.status, what: answer.what.clone(), errors: Vec::new() }
        }
        _ => ClientError::Answer {
            what: answer.what.clone(),
            status: answer.status,
            begins: error::beginning(&answer.body),
            source: None,
        },
    }
}

/// What the part of the platform that knows accounts says in an error of its own form.
fn described(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let text = ["error_description", "message", "error"].iter().find_map(|key| body.get(key)?.as_str())?;
    Some(text.to_owned())
}
