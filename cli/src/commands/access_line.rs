//! A router's access line for people: what was asked, what came of it, how long it took. The line itself has everything in
//! the form of Cloud Foundry's router, several hundred characters of it, for programs.

/// `GET /a?b=c 200, 14 bytes in 250 ms, from 10.0.0.9, instance 2`; `None` of a text that is no access line.
pub(super) fn short(text: &str) -> Option<String> {
    let fields = split_fields(text);
    let [_host, _, _time, request, status, _received, sent, _referer, _agent, remote, ..] = fields.as_slice() else {
        return None;
    };
    let value = |key: &str| {
        let value = fields.iter().find_map(|field| field.strip_prefix(key))?;
        Some(value).filter(|value| !value.is_empty() && *value != "-")
    };
    let (request, _version) = request.rsplit_once(' ')?;
    let seconds: f64 = value("response_time:")?.parse().ok()?;
    let status: u16 = status.parse().ok()?;
    let from = value("x_forwarded_for:").and_then(|all| all.split(',').next()).unwrap_or(remote);
    let instance = value("app_index:").map(|index| format!(", instance {index}")).unwrap_or_default();
    let error = value("x_cf_routererror:").map(|error| format!(" ({error})")).unwrap_or_default();
    Some(format!("{request} {status}{error}, {sent} bytes in {:.0} ms, from {from}{instance}", seconds * 1000.0))
}

/// Splits at blanks outside quotes; quotes and the backslashes before what they hold go.
fn split_fields(text: &str) -> Vec<String> {
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                field.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"app.test - [2023-11-14T22:13:20.123Z] "GET /a?b=\"c d\" HTTP/1.1" 502 3 14 "-" "evil\" \\ x" "10.0.0.9:5555" "10.0.0.1:61001" x_forwarded_for:"192.0.2.7, 10.0.0.9" x_forwarded_proto:"https" vcap_request_id:"rid" response_time:0.250000 gorouter_time:0.001000 app_id:"aid" app_index:"2" instance_id:"iid" x_cf_routererror:"endpoint_failure (reset)""#;

    #[test]
    fn an_access_line_is_abbreviated() {
        assert_eq!(
            short(WHOLE).as_deref(),
            Some(r#"GET /a?b="c d" 502 (endpoint_failure (reset)), 14 bytes in 250 ms, from 192.0.2.7, instance 2"#)
        );
        let plain = WHOLE
            .replace("endpoint_failure (reset)", "-")
            .replace("192.0.2.7, 10.0.0.9", "-")
            .replace("app_index:\"2\"", "app_index:\"-\"");
        assert_eq!(short(&plain).as_deref(), Some(r#"GET /a?b="c d" 502, 14 bytes in 250 ms, from 10.0.0.9:5555"#));
    }

    #[test]
    fn other_texts_are_not_touched() {
        for text in ["", "a b", "the router says something else", &WHOLE[..WHOLE.len() / 2], &"\"".repeat(50)] {
            assert_eq!(short(text), None, "{text}");
        }
        assert_eq!(short(&WHOLE.replace("502", "many")), None);
    }
}
