//! Sticky sessions, as Java apps know them from Cloud Foundry: when an app sets `JSESSIONID`, the router adds
//! `__VCAP_ID__` with the instance that did; a client that sends both goes back there while that instance is routable.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

const SESSION: &str = "JSESSIONID";
const INSTANCE: &str = "__VCAP_ID__";

/// The instance that a request's session belongs to.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<String> {
    let mut session = false;
    let mut instance = None;
    for value in headers.get_all(COOKIE) {
        let Ok(text) = value.to_str() else { continue };
        for (name, value) in text.split(';').filter_map(|pair| pair.trim().split_once('=')) {
            match name {
                SESSION => session = true,
                INSTANCE => instance = Some(value),
                _ => {}
            }
        }
    }
    instance.filter(|_| session).map(str::to_owned)
}

/// Adds the cookie when the response begins (or changes) a session. It lives as long and is as secure as the session's.
/// Its path is the route's, so that two apps below paths of one host do not forget each other's instance.
pub(crate) fn remember(headers: &mut HeaderMap, assignment_id: &str, path: &str) {
    let path = if path.is_empty() { "/" } else { path };
    let mut cookie = None;
    for value in headers.get_all(SET_COOKIE) {
        let Some(rest) = value.to_str().ok().and_then(|text| text.strip_prefix(SESSION)) else { continue };
        if !rest.starts_with('=') {
            continue;
        }
        let mut text = format!("{INSTANCE}={assignment_id}; Path={path}; HttpOnly");
        for attribute in rest.split(';').skip(1).map(str::trim) {
            let name = attribute.split('=').next().unwrap_or_default();
            if ["max-age", "expires", "secure", "samesite", "partitioned"]
                .iter()
                .any(|one| name.eq_ignore_ascii_case(one))
            {
                text.push_str("; ");
                text.push_str(attribute);
            }
        }
        cookie = HeaderValue::from_str(&text).ok();
    }
    if let Some(cookie) = cookie {
        headers.append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cookies_are_needed() {
        for (cookie, expected) in [
            ("JSESSIONID=x; __VCAP_ID__=abc", Some("abc")),
            ("a=b;__VCAP_ID__=abc;JSESSIONID=x", Some("abc")),
            ("__VCAP_ID__=abc", None),
            ("JSESSIONID=x", None),
            ("XJSESSIONID=x; __VCAP_ID__=abc", None),
        ] {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(cookie))]);
            assert_eq!(wanted(&headers).as_deref(), expected, "{cookie}");
        }
    }

    #[test]
    fn a_session_cookie_gets_a_cookie_of_the_instance() {
        let value = HeaderValue::from_static("JSESSIONID=x; Path=/app; Secure; Max-Age=60; Domain=a.b");
        let mut headers = HeaderMap::from_iter([(SET_COOKIE, value)]);
        remember(&mut headers, "abc", "");
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies.len(), 2);
        assert_eq!(cookies[1], "__VCAP_ID__=abc; Path=/; HttpOnly; Secure; Max-Age=60");
        let mut other = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static("JSESSIONIDX=1"))]);
        remember(&mut other, "abc", "");
        assert_eq!(other.len(), 1);
        let mut below = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static("JSESSIONID=1; Path=/"))]);
        remember(&mut below, "abc", "/shop");
        assert_eq!(below.get_all(SET_COOKIE).iter().nth(1).expect("cookie"), "__VCAP_ID__=abc; Path=/shop; HttpOnly");
    }
}
