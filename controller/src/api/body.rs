//! JSON bodies: any content type (clients send `application/json` even without a body, and sometimes none with one),
//! at most 1 MiB, unknown and mistyped fields refused by name.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use slipway_api_types::MetadataPatch;

use super::error::{ApiError, ApiResult};
use crate::context::Context;

/// Larger than any honest JSON body (a manifest of hundreds of apps), small enough to be held a thousand times.
pub const MAX_BODY: usize = 1 << 20;

/// A JSON body that must be there.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

/// A JSON body that may be empty; then the default.
#[derive(Clone, Copy, Debug)]
pub struct OptionalJson<T>(pub T);

/// A body that changes labels and annotations, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataBody {
    /// What to change; absent is nothing.
    pub metadata: Option<MetadataPatch>,
}

/// Reads a whole body up to a limit.
///
/// # Errors
/// 400 when it is larger or breaks off.
pub async fn read(request: Request, limit: usize) -> ApiResult<Bytes> {
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::bad_request(format!("The request body is larger than {limit} bytes.")))
        }
        Err(_) => Err(ApiError::bad_request("The request body broke off before its end.")),
    }
}

/// Parses a body.
///
/// # Errors
/// 400 `CF-MessageParseError` when it is no JSON, 422 with the field's name when it is not the JSON that is wanted.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(explain)?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// Longest name from a body that a refusal repeats, and longest explanation of what a value is; characters.
const MAX_NAME: usize = 80;
const MAX_TEXT: usize = 300;

/// The beginning of something that came with a request: a refusal must not be as long as what it refuses.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::message_parse(format!("Request invalid due to parse error: {}", cut(&error.to_string(), MAX_TEXT)))
}

fn explain(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let error = error.into_inner();
    if !error.is_data() {
        return malformed(&error);
    }
    let text = error.to_string();
    // The position means nothing to somebody whose client wrote the body.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some(field) = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
        let parent =
            path.rsplit_once('.').map(|(parent, _)| format!(" in '{}'", cut(parent, MAX_NAME))).unwrap_or_default();
        return ApiError::unprocessable(format!("Unknown field(s): '{}'{parent}", cut(field, MAX_NAME)));
    }
    let shown = cut(&path, MAX_NAME);
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        let name = if path == "." { field.to_owned() } else { format!("{shown}.{field}") };
        return ApiError::unprocessable(format!("'{name}' is required"));
    }
    let text = cut(text, MAX_TEXT);
    if path == "." {
        return ApiError::unprocessable(format!("The request body is not as expected: {text}"));
    }
    ApiError::unprocessable(format!("'{shown}' is not as expected: {text}"))
}

impl<T: DeserializeOwned> FromRequest<Context> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Context) -> Result<Self, ApiError> {
        let bytes = read(request, MAX_BODY).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ApiError::message_parse("Request invalid due to parse error: the body is empty"));
        }
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Context> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Context) -> Result<Self, ApiError> {
        let bytes = read(request, MAX_BODY).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        parse(&bytes).map(Self)
    }
}

/// Distinguishes a field that is absent (`None`) from one that is null (`Some(None)`). Use with
/// `#[serde(default, deserialize_with = "present")]`.
///
/// # Errors
/// As the value's own.
pub fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    <Option<T> as serde::Deserialize>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code, reason = "only parsed")]
        name: String,
        #[allow(dead_code, reason = "only parsed")]
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code, reason = "only parsed")]
        count: u32,
    }

    fn refusal(body: &str) -> (u32, String) {
        let error = parse::<Outer>(body.as_bytes()).expect_err(body);
        (error.entries()[0].code, error.entries()[0].detail.clone())
    }

    #[test]
    fn refusals_name_the_field() {
        assert_eq!(refusal("{").0, 1001);
        assert_eq!(refusal(r#"{"name":"x"} y"#).0, 1001);
        assert_eq!(refusal(r#"{"nam":"x"}"#), (10008, "Unknown field(s): 'nam'".to_owned()));
        assert_eq!(refusal("{}"), (10008, "'name' is required".to_owned()));
        let (code, detail) = refusal(r#"{"name":"x","inner":{"count":"three"}}"#);
        assert_eq!(code, 10008);
        assert!(detail.starts_with("'inner.count' is not as expected: invalid type: string"), "{detail}");
        assert_eq!(refusal(r#"{"name":"x","inner":{"c":1}}"#).1, "Unknown field(s): 'c' in 'inner'");
        assert_eq!(refusal("[1]").0, 10008);
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_overflows() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let error = parse::<serde_json::Value>(deep.as_bytes()).expect_err("too deep");
        assert_eq!(error.entries()[0].code, 1001);
        assert!(error.entries()[0].detail.contains("recursion limit"), "{}", error.entries()[0].detail);
    }

    #[test]
    fn refusals_are_shorter_than_what_they_refuse() {
        let long = "ä".repeat(100_000);
        let name = refusal(&format!(r#"{{"{long}":1}}"#)).1;
        assert_eq!(name, format!("Unknown field(s): '{}…'", "ä".repeat(80)));
        let inner = refusal(&format!(r#"{{"name":"x","inner":{{"{long}":1}}}}"#)).1;
        assert_eq!(inner, format!("Unknown field(s): '{}…' in 'inner'", "ä".repeat(80)));
        for body in [format!(r#"{{"name":"x","inner":{{"count":"{long}"}}}}"#), format!(r#""{long}""#)] {
            let text = refusal(&body).1;
            assert!(text.contains("ääää") && text.chars().count() < 400, "{text}");
        }
    }
}
