//! Warnings for whoever types: header `X-Cf-Warnings`, each URL-encoded, because clients split at commas.

use axum::response::Response;
use http::{HeaderName, HeaderValue};

const HEADER: HeaderName = HeaderName::from_static("x-cf-warnings");

/// Adds a warning to an answer.
pub fn add(response: &mut Response, text: &str) {
    let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    // What is percent-encoded is always a valid value.
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        response.headers_mut().append(HEADER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_spaces_do_not_split_a_warning() {
        let mut response = Response::default();
        add(&mut response, "a, b 100%");
        add(&mut response, "c");
        let values: Vec<_> = response.headers().get_all(HEADER).iter().collect();
        assert_eq!(values, ["a%2C+b+100%25", "c"]);
    }
}
