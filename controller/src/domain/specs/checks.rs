//! Health and readiness checks: from the API's seconds to the wire's milliseconds.

use slipway_api_types::views::CheckView;
use slipway_protocol::v1;

/// The check that says whether an instance lives. A port check of a workload without ports watches the process.
#[must_use]
pub fn liveness(check: &CheckView, has_port: bool) -> v1::HealthCheck {
    let kind = match check.kind.as_str() {
        "http" if has_port => v1::CheckKind::Http,
        "port" if has_port => v1::CheckKind::Port,
        _ => v1::CheckKind::Process,
    };
    with_settings(kind, check)
}

/// The check that says whether an instance takes traffic; none for `process`: alive is ready.
#[must_use]
pub fn readiness(check: &CheckView) -> Option<v1::HealthCheck> {
    let kind = match check.kind.as_str() {
        "http" => v1::CheckKind::Http,
        "port" => v1::CheckKind::Port,
        _ => return None,
    };
    Some(with_settings(kind, check))
}

fn with_settings(kind: v1::CheckKind, check: &CheckView) -> v1::HealthCheck {
    let ms = |seconds: Option<u32>| seconds.unwrap_or(0).saturating_mul(1000);
    v1::HealthCheck {
        kind: kind.into(),
        endpoint: match kind {
            v1::CheckKind::Http => check.data.endpoint.clone().unwrap_or_else(|| "/".to_owned()),
            _ => String::new(),
        },
        invocation_timeout_ms: ms(check.data.invocation_timeout),
        interval_ms: ms(check.data.interval),
        start_timeout_ms: ms(check.data.timeout),
    }
}

#[cfg(test)]
mod tests {
    use slipway_api_types::views::CheckData;

    use super::*;

    #[test]
    fn seconds_become_milliseconds_and_nothing_overflows() {
        let check = CheckView {
            kind: "http".to_owned(),
            data: CheckData { timeout: Some(90), invocation_timeout: Some(u32::MAX), interval: None, endpoint: None },
        };
        let wire = liveness(&check, true);
        assert_eq!(wire.kind(), v1::CheckKind::Http);
        assert_eq!((wire.endpoint.as_str(), wire.start_timeout_ms, wire.interval_ms), ("/", 90_000, 0));
        assert_eq!(wire.invocation_timeout_ms, u32::MAX);
        assert_eq!(liveness(&check, false).kind(), v1::CheckKind::Process);
        assert!(readiness(&CheckView { kind: "process".to_owned(), data: CheckData::default() }).is_none());
    }
}
