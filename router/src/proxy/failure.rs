//! Why an endpoint did not answer: a word for the client, a sentence for the log, and how many such sentences a second
//! the log takes.

use std::cell::Cell;
use std::error::Error;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use slipway_chassis::chain;

/// The kinds of failures that tell a developer where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nobody listens there.
    Refused,
    /// The connection was torn down.
    Reset,
    /// The connection was closed before an answer began.
    Closed,
    /// There was no connection in time.
    Late,
    /// No way leads there.
    Unreachable,
    /// The other end did not prove who it is.
    Tls,
    /// What came is no answer to this request.
    Invalid,
    /// The endpoint ended this request by HTTP/2, and this one alone.
    StreamReset,
    /// The endpoint says by HTTP/2 that too much comes on one connection.
    Overloaded,
    /// The endpoint left the table, or was never usable.
    Gone,
    /// The client's own body ended badly: the endpoint is not at fault.
    Client,
    /// None of these; the log has the sentence.
    Other,
}

impl Cause {
    /// Value of `X-Cf-RouterError`, in the form of Cloud Foundry's router: the word, and the reason in parentheses.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Refused => "endpoint_failure (refused)",
            Self::Reset => "endpoint_failure (reset)",
            Self::Closed => "endpoint_failure (closed)",
            Self::Late => "endpoint_failure (late)",
            Self::Unreachable => "endpoint_failure (unreachable)",
            Self::Tls => "endpoint_failure (tls)",
            Self::Invalid => "endpoint_failure (invalid)",
            Self::StreamReset => "endpoint_failure (stream reset)",
            Self::Overloaded => "endpoint_failure (overloaded)",
            Self::Gone => "endpoint_failure (gone)",
            Self::Client => "endpoint_failure (client)",
            Self::Other => "endpoint_failure (other)",
        }
    }

    /// Looks through an error and what caused it.
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        let mut found = Self::Other;
        while let Some(one) = next {
            if let Some(io) = one.downcast_ref::<std::io::Error>() {
                let cause = match io.kind() {
                    ErrorKind::ConnectionRefused => Self::Refused,
                    ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Self::Reset,
                    ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof | ErrorKind::NotConnected => Self::Closed,
                    ErrorKind::TimedOut => Self::Late,
                    ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
                    _ => Self::Other,
                };
                if cause != Self::Other {
                    return cause;
                }
                // An error that wraps another one shows it here, and only what caused that one as its source.
                if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                    return Self::Tls;
                }
            } else if let Some(h2) = one.downcast_ref::<h2::Error>().filter(|h2| h2.is_remote()) {
                if h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
                    return Self::Overloaded;
                }
                if h2.is_reset() {
                    return Self::StreamReset;
                }
            } else if let Some(http) = one.downcast_ref::<hyper::Error>() {
                found = if http.is_user() {
                    Self::Client
                } else if http.is_parse() {
                    Self::Invalid
                } else if http.is_incomplete_message() || http.is_canceled() || http.is_closed() {
                    Self::Closed
                } else {
                    found
                };
            }
            next = one.source();
        }
        found
    }
}

/// Whether the endpoint says that it has not looked at the request (RFC 9113, section 8.7): it refuses the stream, or it is
/// closing the connection and the stream came too late.
pub(crate) fn is_unseen(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(h2) = one.downcast_ref::<h2::Error>() {
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            let late = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            return h2.is_remote() && (refused || late);
        }
        next = one.source();
    }
    false
}

/// One failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// For the log.
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: &str) -> Self {
        Self { cause, detail: detail.to_owned() }
    }

    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        Self { cause: Cause::of(error), detail: chain(error).to_string() }
    }

    /// The same, with a cause for an error that does not show one.
    pub(crate) fn or(cause: Cause, error: &(dyn Error + 'static)) -> Self {
        let failure = Self::of(error);
        if failure.cause == Cause::Other { Self { cause, ..failure } } else { failure }
    }
}

/// Lines about failures that one core writes in one second; an app that fails at every request must not fill the disk.
const LINES: u32 = 5;
const SPAN: Duration = Duration::from_secs(1);

/// Bounds how often failures are logged.
#[derive(Default)]
pub(crate) struct LogQuota {
    since: Cell<Option<Instant>>,
    written: Cell<u32>,
    left_out: Cell<u64>,
}

impl LogQuota {
    /// Whether a line may be written now; how many were left out since the last one.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        if self.since.get().is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            self.since.set(Some(now));
            self.written.set(0);
        }
        if self.written.get() >= LINES {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.written.set(self.written.get() + 1);
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::ConnectError;

    #[test]
    fn errors_have_cloud_foundrys_codes() {
        let address = ([127, 0, 0, 1], 1).into();
        for (kind, word) in [
            (ErrorKind::ConnectionRefused, "endpoint_failure (refused)"),
            (ErrorKind::ConnectionReset, "endpoint_failure (reset)"),
            (ErrorKind::BrokenPipe, "endpoint_failure (closed)"),
            (ErrorKind::TimedOut, "endpoint_failure (late)"),
            (ErrorKind::HostUnreachable, "endpoint_failure (unreachable)"),
            (ErrorKind::OutOfMemory, "endpoint_failure (other)"),
        ] {
            let failure = Failure::of(&ConnectError::Io(address, kind.into()));
            assert_eq!(failure.cause.word(), word);
            assert!(failure.detail.starts_with("cannot connect to 127.0.0.1:1: "), "{}", failure.detail);
        }
        let tls = std::io::Error::other(rustls::Error::DecryptError);
        assert_eq!(Failure::of(&ConnectError::Io(address, tls)).cause, Cause::Tls);
    }

    #[test]
    fn a_storm_of_failures_is_counted_instead_of_written() {
        let (quota, now) = (LogQuota::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(quota.take(now), Some(0));
        }
        assert_eq!(quota.take(now), None);
        assert_eq!(quota.take(now), None);
        assert_eq!(quota.take(now + SPAN), Some(2));
        assert_eq!(quota.take(now + SPAN), Some(0));
    }
}
