//! Detects apps that run but do not listen where they should, and decides whether waiting can still help.
//!
//! The reason is reported once it has been seen for a while, long before the start times out. The start is ended early in
//! one case only: something listens on the right port at 127.0.0.1. While it does, nobody can listen on that port on all
//! addresses, so waiting changes nothing. An app that listens on *another* port gets a warning and the time that its
//! developer gave it: an app that first serves its metrics and then waits for its database looks the same from here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long the same is seen before it is reported: programs open what they need one after the other.
const REPORTED_AFTER: Duration = Duration::from_secs(2);
/// How long an app may listen nowhere before that is reported: it may load much before it opens its port.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// How long something must hold the port at 127.0.0.1 before the start is ended: a server that is started anew when it has
/// read its settings must have had its chance.
const ENDED_AFTER: Duration = Duration::from_secs(10);

/// Where an app listens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnreachableListener {
    /// On the port, where nobody but itself reaches it.
    Loopback(IpAddr),
    /// On another port only.
    Elsewhere(SocketAddr),
}

impl UnreachableListener {
    /// Of an app that should listen on `port`; `None` when it does, or listens nowhere.
    pub(super) fn of(listeners: &[SocketAddr], port: u16) -> Option<Self> {
        let mut on_port = listeners.iter().filter(|address| address.port() == port).peekable();
        if let Some(first) = on_port.peek() {
            let first = first.ip();
            return on_port.all(|address| address.ip().is_loopback()).then_some(Self::Loopback(first));
        }
        let open = listeners.iter().find(|address| !address.ip().is_loopback()).or(listeners.first());
        open.map(|address| Self::Elsewhere(*address))
    }

    /// What is wrong, up to the time that it has lasted.
    pub(super) fn fault(self, port: u16) -> String {
        match self {
            Self::Loopback(_) => format!("could not be reached on port {port}"),
            Self::Elsewhere(_) => format!("did not listen on port {port}"),
        }
    }

    /// What it does and what to do about it.
    pub(super) fn advice(self) -> String {
        match self {
            Self::Loopback(address) => format!("it listens on {address} only; listen on 0.0.0.0"),
            Self::Elsewhere(address) if address.ip().is_loopback() => {
                format!("it listens on {address} only; listen on 0.0.0.0 and the port in $PORT")
            }
            Self::Elsewhere(address) => format!("it listens on port {}; listen on the port in $PORT", address.port()),
        }
    }
}

/// What is to be done about what was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Wait,
    /// Reported to the developer, once.
    Tell(String),
    /// It cannot become right any more.
    End(String),
}

/// Watches one start.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Option<(UnreachableListener, Duration)>,
    reported: Option<UnreachableListener>,
    reported_silence: bool,
}

impl Watch {
    /// Takes in where the app listens, so long after its start.
    pub(super) fn look(&mut self, listeners: &[SocketAddr], port: u16, at: Duration) -> Verdict {
        let now = UnreachableListener::of(listeners, port);
        let since = match (self.seen, now) {
            (Some((before, since)), Some(now)) if before == now => since,
            (_, Some(now)) => {
                self.seen = Some((now, at));
                at
            }
            (_, None) => {
                self.seen = None;
                if listeners.is_empty() && at >= SILENT_FOR && !self.reported_silence {
                    self.reported_silence = true;
                    let seconds = at.as_secs();
                    return Verdict::Tell(format!(
                        "listens on no port yet, {seconds} s after its start: listen on the port in $PORT, or, if it \
                         serves no requests, have the check `process`"
                    ));
                }
                return Verdict::Wait;
            }
        };
        let Some(astray) = now else { return Verdict::Wait };
        let stood = at.saturating_sub(since);
        if matches!(astray, UnreachableListener::Loopback(_)) && stood >= ENDED_AFTER {
            let seconds = at.as_secs();
            return Verdict::End(format!("{} within {seconds} s: {}", astray.fault(port), astray.advice()));
        }
        if stood >= REPORTED_AFTER && self.reported != Some(astray) {
            self.reported = Some(astray);
            let fault = match astray {
                UnreachableListener::Loopback(_) => "cannot be reached",
                UnreachableListener::Elsewhere(_) => "does not listen",
            };
            return Verdict::Tell(format!("{fault} on port {port} yet: {}", astray.advice()));
        }
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("address")
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn only_unreachable_listeners_are_astray() {
        let (loopback, open, other) = (at("127.0.0.1:8080"), at("0.0.0.0:8080"), at("0.0.0.0:3000"));
        assert_eq!(UnreachableListener::of(&[], 8080), None);
        assert_eq!(UnreachableListener::of(&[loopback, open], 8080), None);
        assert_eq!(
            UnreachableListener::of(&[loopback, other], 8080),
            Some(UnreachableListener::Loopback(loopback.ip()))
        );
        assert_eq!(
            UnreachableListener::of(&[at("127.0.0.1:9000"), other], 8080),
            Some(UnreachableListener::Elsewhere(other))
        );
        let hidden = at("127.0.0.1:9000");
        assert_eq!(UnreachableListener::of(&[hidden], 8080), Some(UnreachableListener::Elsewhere(hidden)));
        let both = "it listens on 127.0.0.1:9000 only; listen on 0.0.0.0 and the port in $PORT";
        assert_eq!(
            UnreachableListener::Elsewhere(hidden).advice(),
            both,
            "whoever mends the one only comes back with the other"
        );
    }

    #[test]
    fn an_app_on_another_port_is_warned_once_and_keeps_its_timeout() {
        let mut watch = Watch::default();
        let metrics = [at("0.0.0.0:9000")];
        assert_eq!(watch.look(&metrics, 8080, seconds(1)), Verdict::Wait);
        let verdict = watch.look(&metrics, 8080, seconds(3));
        let words = "does not listen on port 8080 yet: it listens on port 9000; listen on the port in $PORT";
        assert_eq!(verdict, Verdict::Tell(words.to_owned()));
        for second in 4..600 {
            assert_eq!(watch.look(&metrics, 8080, seconds(second)), Verdict::Wait, "it may only wait for its database");
        }
        assert_eq!(watch.look(&[metrics[0], at("0.0.0.0:8080")], 8080, seconds(600)), Verdict::Wait);
    }

    #[test]
    fn an_app_that_listens_nowhere_is_warned_once() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(&[], 8080, seconds(9)), Verdict::Wait);
        let verdict = watch.look(&[], 8080, seconds(10));
        assert!(
            matches!(verdict, Verdict::Tell(text) if text.starts_with("listens on no port yet, 10 s after its start"))
        );
        for second in 11..600 {
            assert_eq!(watch.look(&[], 8080, seconds(second)), Verdict::Wait, "it may only load much");
        }
    }

    #[test]
    fn an_app_that_listens_on_loopback_is_warned_and_then_ended() {
        let mut watch = Watch::default();
        let hidden = [at("127.0.0.1:8080")];
        assert_eq!(watch.look(&hidden, 8080, seconds(1)), Verdict::Wait);
        assert!(
            matches!(watch.look(&hidden, 8080, seconds(3)), Verdict::Tell(text) if text.contains("127.0.0.1 only"))
        );
        // It begins anew: so does the time.
        assert_eq!(watch.look(&[], 8080, seconds(8)), Verdict::Wait);
        assert_eq!(watch.look(&hidden, 8080, seconds(9)), Verdict::Wait);
        assert_eq!(watch.look(&hidden, 8080, seconds(12)), Verdict::Wait, "it was told");
        let ended = watch.look(&hidden, 8080, seconds(19));
        let words = "could not be reached on port 8080 within 19 s: it listens on 127.0.0.1 only; listen on 0.0.0.0";
        assert_eq!(ended, Verdict::End(words.to_owned()));
    }
}
