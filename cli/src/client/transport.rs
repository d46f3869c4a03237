//! The connection pool: which certificates are trusted, which proxy is not asked.

use std::time::Duration;

use reqwest::{Certificate, redirect};
use url::Url;

use super::error::ClientError;
use super::resolver::{Resolver, is_localhost};
use crate::settings::Settings;

/// Whom to trust.
#[derive(Clone, Debug)]
enum Trust {
    /// The system's authorities.
    System,
    /// Only this authority, as PEM text: a cluster's own.
    Authority(String),
    /// Everybody.
    Anybody,
}

impl Trust {
    /// As stored at login.
    fn of(settings: &Settings) -> Self {
        match (&settings.ca, settings.skip_ssl_validation) {
            (_, true) => Self::Anybody,
            (Some(pem), false) => Self::Authority(pem.clone()),
            (None, false) => Self::System,
        }
    }
}

/// An HTTP client for these addresses, with the trust of a login and the place that it has for names below `localhost`.
pub(super) fn client(settings: &Settings, addresses: &[&Url]) -> Result<reqwest::Client, ClientError> {
    // Another part of the same program may have installed a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Resolver(settings.localhost))
        .connect_timeout(Duration::from_secs(10))
        // Longer than any pause in an answer; uploads have no limit as a whole.
        .read_timeout(Duration::from_secs(300))
        // A redirect of an API would carry the token to a place nobody logged in to.
        .redirect(redirect::Policy::none());
    if addresses.iter().any(|url| url.host_str().is_some_and(is_localhost)) {
        builder = builder.no_proxy();
    }
    builder = match Trust::of(settings) {
        Trust::Anybody => builder.tls_danger_accept_invalid_certs(true),
        Trust::Authority(pem) => {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|source| {
                ClientError::Authority { place: "the stored login".to_owned(), source: source.into() }
            })?;
            builder.tls_certs_only(certificates)
        }
        // Reading the system's bundle costs tens of milliseconds, in vain without TLS.
        Trust::System if addresses.iter().all(|url| url.scheme() == "http") => builder.tls_certs_only([]),
        Trust::System => builder,
    };
    builder.build().map_err(ClientError::Setup)
}
