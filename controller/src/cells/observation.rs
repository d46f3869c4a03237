//! Observations from the wire, checked: what a newer cell says and this program does not know is refused, never read
//! as absent.

use slipway_api_types::AssignmentId;
use slipway_protocol::v1;

use slipway_placement::{Exit, ObservationRow, Observed};

/// Why an observation cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ObservationError {
    /// No uuid.
    #[error("observation {counter} names no assignment: {id:?}")]
    Id {
        /// The cell's counter.
        counter: u64,
        /// What it named.
        id: String,
    },
    /// A state that is not said, or not known here.
    #[error(
        "observation {counter} of {id} has the state {state}, which this controller does not know; update the controllers before the cells"
    )]
    State {
        /// The cell's counter.
        counter: u64,
        /// The assignment.
        id: AssignmentId,
        /// As on the wire.
        state: i32,
    },
    /// A port above 65535.
    #[error("observation {counter} of {id} has the port {port}, and the largest port is 65535")]
    Port {
        /// The cell's counter.
        counter: u64,
        /// The assignment.
        id: AssignmentId,
        /// As on the wire.
        port: u32,
    },
}

/// Last second of the year 2099: a clock beyond it is broken, and Postgres need not see it.
const LATEST_MS: i64 = 4_102_444_799_000;

/// Checks one observation.
///
/// # Errors
/// When it lacks something that is needed.
pub fn check(observation: &v1::Observation) -> Result<ObservationRow, ObservationError> {
    let counter = observation.counter;
    let id = observation
        .assignment_id
        .parse()
        .map(AssignmentId)
        .map_err(|_| ObservationError::Id { counter, id: observation.assignment_id.chars().take(64).collect() })?;
    let unknown = ObservationError::State { counter, id, state: observation.state };
    let state = v1::InstanceState::try_from(observation.state).ok().and_then(observed).ok_or(unknown)?;
    let endpoint = match &observation.endpoint {
        Some(endpoint) if !endpoint.host.is_empty() => {
            let port = u16::try_from(endpoint.port).map_err(|_| ObservationError::Port {
                counter,
                id,
                port: endpoint.port,
            })?;
            Some((text(&endpoint.host), port))
        }
        _ => None,
    };
    Ok(ObservationRow {
        counter,
        assignment: id,
        state,
        ready: observation.ready && state == Observed::Running,
        endpoint,
        exit: observation.exit.as_ref().map(exit),
        crashes: observation.restart.map(|restart| restart.crashes.min(i32::MAX.unsigned_abs())),
        incarnation: observation.incarnation,
        reason: text(&observation.reason),
        refusal: (state == Observed::Refused).then(|| refusal(observation.refusal)),
        since_unix_ms: observation.since_unix_ms.clamp(0, LATEST_MS),
        crash_event: observation.crash_event,
    })
}

/// `None` for "not said".
fn observed(state: v1::InstanceState) -> Option<Observed> {
    Some(match state {
        v1::InstanceState::Unspecified => return None,
        v1::InstanceState::Preparing => Observed::Preparing,
        v1::InstanceState::Starting => Observed::Starting,
        v1::InstanceState::Running => Observed::Running,
        v1::InstanceState::Crashed => Observed::Crashed,
        v1::InstanceState::GivenUp => Observed::GivenUp,
        v1::InstanceState::Stopped => Observed::Stopped,
        v1::InstanceState::Completed => Observed::Completed,
        v1::InstanceState::Refused => Observed::Refused,
    })
}

fn exit(exit: &v1::ExitRecord) -> Exit {
    let fault = match v1::Fault::try_from(exit.fault) {
        Ok(v1::Fault::None) => "none".to_owned(),
        Ok(v1::Fault::App) => "app".to_owned(),
        Ok(v1::Fault::Cell) => "cell".to_owned(),
        Ok(v1::Fault::Platform) => "platform".to_owned(),
        Ok(v1::Fault::Unspecified) => "unspecified".to_owned(),
        // Kept for people; the planner acts only on faults it knows.
        Err(_) => format!("unknown-{}", exit.fault),
    };
    Exit {
        code: exit.code,
        signal: exit.signal,
        out_of_memory: exit.out_of_memory,
        reason: text(&exit.reason),
        fault,
        at_unix_ms: exit.at_unix_ms.clamp(0, LATEST_MS),
    }
}

fn refusal(refusal: i32) -> String {
    v1::Refusal::try_from(refusal)
        .map_or_else(|_| format!("UNKNOWN_{refusal}"), |refusal| refusal.as_str_name().to_owned())
}

/// Postgres text holds no NUL; an app's last words may.
fn text(text: &str) -> String {
    const MOST: usize = 4_000;
    text.chars().map(|c| if c == '\0' { '\u{fffd}' } else { c }).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation() -> v1::Observation {
        v1::Observation {
            counter: 3,
            assignment_id: AssignmentId::new().to_string(),
            state: v1::InstanceState::Running.into(),
            ready: true,
            endpoint: Some(v1::Endpoint { host: "10.1.2.3".into(), port: 61_000 }),
            ..v1::Observation::default()
        }
    }

    #[test]
    fn unknown_values_of_observations_are_refused() {
        assert!(check(&observation()).is_ok());
        for state in [0, 99, -1] {
            let error = check(&v1::Observation { state, ..observation() }).expect_err("refused");
            assert!(error.to_string().contains(&format!("the state {state},")), "{error}");
        }
        let id = v1::Observation { assignment_id: "x".into(), ..observation() };
        assert!(matches!(check(&id), Err(ObservationError::Id { counter: 3, .. })));
        let endpoint = Some(v1::Endpoint { host: "h".into(), port: 70_000 });
        assert!(matches!(check(&v1::Observation { endpoint, ..observation() }), Err(ObservationError::Port { .. })));
    }

    #[test]
    fn text_of_an_app_cannot_break_the_store() {
        let exit = v1::ExitRecord { reason: "a\0b".into(), fault: 77, at_unix_ms: i64::MAX, ..Default::default() };
        let row = check(&v1::Observation { exit: Some(exit), since_unix_ms: -5, ..observation() }).expect("row");
        let exit = row.exit.expect("exit");
        assert_eq!(
            (exit.reason.as_str(), exit.fault.as_str(), exit.at_unix_ms),
            ("a\u{fffd}b", "unknown-77", LATEST_MS)
        );
        assert_eq!(row.since_unix_ms, 0);
    }

    #[test]
    fn only_running_instances_are_ready() {
        let row = check(&v1::Observation { state: v1::InstanceState::Starting.into(), ..observation() }).expect("row");
        assert!(!row.ready);
    }
}
