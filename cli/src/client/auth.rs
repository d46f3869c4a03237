//! Tokens: got at login, renewed when less than a minute is left and once when the platform refuses one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::error::ClientError;
use super::transport;
use super::{read_answer, refused, url as addresses};
use crate::settings::{Secret, Settings, SettingsFile};

/// A token with less time left is renewed before it is used: a request may wait in a queue.
const RENEW_BELOW_SECONDS: i64 = 60;

/// Where the parts of a platform are.
#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    /// Token endpoint.
    pub(crate) login: Url,
    /// Logs.
    pub(crate) log_cache: Url,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// Both tokens of a login.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: Secret,
    pub(crate) refresh: Secret,
}

/// Asks a platform where its parts are. Of the login that is being made, `settings` says how to get there.
pub(crate) async fn discover(api: &Url, settings: &Settings) -> Result<Discovery, ClientError> {
    let http = transport::client(settings, &[api])?;
    let response = http
        .get(api.clone())
        .header("accept", "application/json")
        .timeout(super::REQUEST_TIMEOUT)
        .send()
        .await
        .map_err(|source| ClientError::transport(api, source))?;
    let answer = read_answer(response, "GET /".to_owned(), api).await?;
    if answer.status >= 400 {
        return Err(refused(&answer));
    }
    let root: Value = answer.json()?;
    let link = |name: &str| {
        let href = root.pointer(&format!("/links/{name}/href")).and_then(Value::as_str);
        href.ok_or_else(|| ClientError::Answer {
            what: format!("GET / (link '{name}' is missing)"),
            status: answer.status,
            begins: super::error::beginning(&answer.body),
            source: None,
        })
        .and_then(addresses::api_url)
    };
    let (login, log_cache) = (link("login")?, link("log_cache")?);
    let http = transport::client(settings, &[api, &login, &log_cache])?;
    Ok(Discovery { login, log_cache, http })
}

impl Discovery {
    /// Exchanges a password for tokens.
    pub(crate) async fn password(&self, user: &str, password: &Secret) -> Result<Tokens, ClientError> {
        let form = [("grant_type", "password"), ("username", user), ("password", password.0.as_str())];
        let tokens = grant(&self.http, &self.login, &form).await?;
        Ok(Tokens { access: Secret(tokens.access_token), refresh: Secret(tokens.refresh_token.unwrap_or_default()) })
    }
}

/// `POST /oauth/token` as client `cf`, whose secret is empty.
async fn grant(http: &reqwest::Client, login: &Url, form: &[(&str, &str)]) -> Result<TokenAnswer, ClientError> {
    let url = addresses::join(login, "/oauth/token")?;
    let response = http
        .post(url.clone())
        .basic_auth("cf", Some(""))
        .header("accept", "application/json")
        .timeout(super::REQUEST_TIMEOUT)
        .form(form)
        .send()
        .await
        .map_err(|source| ClientError::transport(&url, source))?;
    let answer = read_answer(response, "POST /oauth/token".to_owned(), &url).await?;
    match answer.status {
        200 => answer.json(),
        // UAA says 401, RFC 6749 says 400 with invalid_grant.
        status @ (400 | 401) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let error = body.get("error").and_then(Value::as_str).unwrap_or_default();
            if status == 400 && error != "invalid_grant" {
                return Err(refused(&answer));
            }
            let detail = body.get("error_description").and_then(Value::as_str).unwrap_or_default();
            let known = detail.is_empty() || detail == "Bad credentials";
            let detail = if known { String::new() } else { format!(": {}", detail.trim_end_matches('.')) };
            Err(ClientError::BadCredentials { detail })
        }
        _ => Err(refused(&answer)),
    }
}

/// The tokens in use.
pub(super) struct Auth {
    http: reqwest::Client,
    login: Url,
    file: SettingsFile,
    tokens: Mutex<Tokens>,
}

impl Auth {
    pub(super) fn new(http: reqwest::Client, login: Url, settings: &Settings, file: SettingsFile) -> Self {
        let tokens = Tokens { access: settings.access_token.clone(), refresh: settings.refresh_token.clone() };
        Self { http, login, file, tokens: Mutex::new(tokens) }
    }

    /// A token that is good for at least a minute, as far as this machine's clock can tell.
    pub(super) async fn token(&self) -> Result<Secret, ClientError> {
        let current = self.tokens.lock().await.access.clone();
        let now = chrono::Utc::now().timestamp();
        match claim(&current.0, "exp").and_then(|exp| exp.as_i64()) {
            Some(exp) if exp - now < RENEW_BELOW_SECONDS => self.renew(&current).await,
            _ => Ok(current),
        }
    }

    /// Replaces a token that is old or was refused; concurrent callers renew once.
    pub(super) async fn renew(&self, old: &Secret) -> Result<Secret, ClientError> {
        let mut tokens = self.tokens.lock().await;
        if tokens.access != *old {
            return Ok(tokens.access.clone());
        }
        if tokens.refresh.0.is_empty() {
            return Err(ClientError::SessionExpired);
        }
        let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.0.as_str())];
        let fresh = match grant(&self.http, &self.login, &form).await {
            Ok(fresh) => fresh,
            Err(ClientError::BadCredentials { .. }) => return Err(ClientError::SessionExpired),
            Err(error) => return Err(error),
        };
        tokens.access = Secret(fresh.access_token);
        if let Some(refresh) = fresh.refresh_token {
            tokens.refresh = Secret(refresh);
        }
        let (access, refresh) = (tokens.access.clone(), tokens.refresh.clone());
        self.file.update(|settings| {
            settings.access_token = access;
            settings.refresh_token = refresh;
        })?;
        Ok(tokens.access.clone())
    }

    pub(super) async fn revoke(&self) {
        let access = self.tokens.lock().await.access.clone();
        let Some(Value::String(jti)) = claim(&access.0, "jti") else { return };
        if claim(&access.0, "revocable") != Some(Value::Bool(true)) {
            return;
        }
        if let Ok(url) = addresses::join(&self.login, &format!("/oauth/token/revoke/{jti}")) {
            // Logging out works without the platform: the tokens are forgotten here in any case.
            let _ = self.http.delete(url).bearer_auth(&access.0).timeout(super::REQUEST_TIMEOUT).send().await;
        }
    }
}

/// A claim of a token, unverified: only the platform can verify it.
pub(crate) fn claim(token: &str, name: &str) -> Option<Value> {
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&body).ok()?.get(name).cloned()
}

/// The user's name and guid in a token.
pub(crate) fn identity(token: &str) -> (Option<String>, Option<String>) {
    let text = |name| claim(token, name).and_then(|value| value.as_str().map(str::to_owned));
    (text("user_name").or_else(|| text("client_id")), text("user_id"))
}
