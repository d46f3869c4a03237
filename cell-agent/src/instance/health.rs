//! Watches one running sandbox: start, liveness, readiness. While an app starts it is asked often at first (20 ms) and
//! then less (2 s): a quick app is seen at once, a slow one costs little. Between two looks lies a twentieth of the time
//! that the start has taken already, so that waiting for the next look never makes a start much longer.

use std::sync::Arc;
use std::time::Duration;

use slipway_protocol::v1::{CheckKind, HealthCheck, WorkloadSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::astray::{UnreachableListener, Verdict, Watch};
use super::runner::Signal;
use super::state::Event;
use crate::env;
use crate::sandbox::{SandboxId, SandboxRuntime};

const FIRST_POLL: Duration = Duration::from_millis(20);
const SLOWEST_POLL: Duration = Duration::from_secs(2);
/// A larger factor asks late (1.2: up to a fifth of the start is waiting), a smaller one asks a slow app for ever.
const GROWTH: f64 = 1.05;
/// A healthy instance is declared unhealthy after this many failures in a row: one lost answer of a busy app is no
/// reason to kill it, three seconds of silence are.
const FAILURES: u32 = 3;
const BETWEEN_FAILURES: Duration = Duration::from_secs(1);
/// How often it is looked where a starting app listens: a walk through a table of the kernel, made away from the tasks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// A program that is there takes a connection within this time.
const TAKEN: Duration = Duration::from_millis(2);
/// An app that answers its check with an error is reported after this time, since one that warms up answers so at first.
const ANSWER_REPORTED_AFTER: Duration = Duration::from_secs(5);

/// Checks one instance.
pub struct HealthMonitor {
    /// Where to ask.
    pub runtime: Arc<dyn SandboxRuntime>,
    /// Which sandbox.
    pub id: SandboxId,
    /// Its slot.
    pub slot: u32,
    /// Its checks and port.
    pub spec: Arc<WorkloadSpec>,
    /// Whether it was healthy, and ready, before (adopted).
    pub healthy: bool,
    /// See `healthy`.
    pub ready: bool,
}

fn millis(value: u32, default: u32) -> Duration {
    Duration::from_millis(u64::from(if value == 0 { default } else { value }))
}

/// How a check is asked, in words for its failure.
struct Check {
    kind: CheckKind,
    path: String,
    timeout: Duration,
    interval: Duration,
    start_timeout: Duration,
}

impl Check {
    fn of(check: Option<&HealthCheck>, fallback: CheckKind) -> Self {
        let check = check.cloned().unwrap_or_default();
        let kind = match check.kind() {
            CheckKind::Unspecified => fallback,
            kind => kind,
        };
        Self {
            kind,
            path: if check.endpoint.is_empty() { "/".to_owned() } else { check.endpoint.clone() },
            timeout: millis(check.invocation_timeout_ms, 1000),
            interval: millis(check.interval_ms, 30_000),
            start_timeout: millis(check.start_timeout_ms, 60_000),
        }
    }
}

/// Why a check failed, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CheckFailure {
    /// The app is there, and not with success.
    Answer(String),
    /// Nobody answered.
    Silence(String),
}

impl std::fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Answer(text) | Self::Silence(text)) = self;
        f.write_str(text)
    }
}

impl HealthMonitor {
    fn port(&self) -> u16 {
        env::port(&self.spec)
    }

    /// `Err` says what was seen instead.
    async fn ask(&self, check: &Check) -> Result<(), CheckFailure> {
        let port = self.port();
        match check.kind {
            CheckKind::Process | CheckKind::Unspecified => Ok(()),
            CheckKind::Port => {
                if self.runtime.probe_tcp(self.slot, port, check.timeout).await {
                    return Ok(());
                }
                Err(CheckFailure::Silence(format!("no connection to port {port} within {:?}", check.timeout)))
            }
            CheckKind::Http => match self.runtime.probe_http(self.slot, port, &check.path, check.timeout).await {
                Some(200..=299) => Ok(()),
                Some(status) => {
                    Err(CheckFailure::Answer(format!("GET {} on port {port} answered {status}", check.path)))
                }
                None => {
                    let text = format!("GET {} on port {port} was not answered within {:?}", check.path, check.timeout);
                    Err(CheckFailure::Silence(text))
                }
            },
        }
    }

    /// Asks a starting app. That its port is open says nothing where a master process opens it before the program behind it is
    /// loaded, as gunicorn does: the connection must have been taken. One that is not, which `waits`, is not made again.
    async fn ask_first(&self, check: &Check, waits: &mut bool) -> Result<(), CheckFailure> {
        if check.kind != CheckKind::Port {
            return self.ask(check).await;
        }
        let port = self.port();
        let made = !*waits;
        if made {
            self.ask(check).await?;
        }
        let mut waiting = self.runtime.unaccepted(self.id, port).await;
        if made && waiting > Some(0) {
            tokio::time::sleep(TAKEN).await;
            waiting = self.runtime.unaccepted(self.id, port).await;
        }
        *waits = waiting > Some(0);
        match waiting {
            Some(0) => Ok(()),
            // How it is cannot be seen.
            None if made => Ok(()),
            None => Err(CheckFailure::Silence(format!("nothing listens on port {port} any more"))),
            Some(_) => Err(CheckFailure::Answer(format!(
                "a program listens on port {port}, and none takes connections there yet"
            ))),
        }
    }

    /// Asks until the check passes, the start timeout is over, or it is seen that waiting is in vain. What is wrong is told
    /// as soon as it is seen.
    async fn start(&self, check: &Check, send: &mpsc::UnboundedSender<Signal>) -> Result<(), String> {
        let begun = Instant::now();
        let mut pause = FIRST_POLL;
        let (mut watch, mut next_look, mut reported) = (Watch::default(), BETWEEN_LOOKS, false);
        let mut waits = false;
        let tell = |text| send.send(self.signal(Event::Trouble(text))).ok();
        loop {
            let answer = self.ask_first(check, &mut waits).await;
            let Err(seen) = answer else { return Ok(()) };
            let at = begun.elapsed();
            if at >= check.start_timeout {
                return Err(self.never_healthy(check, &seen).await);
            }
            if at >= next_look {
                next_look = at + BETWEEN_LOOKS;
                let listeners = self.runtime.listeners(self.id).await;
                match watch.look(&listeners, self.port(), at) {
                    // An answer that changes with each look would fill the log: the first one is reported.
                    Verdict::Wait
                        if at >= ANSWER_REPORTED_AFTER && !reported && matches!(seen, CheckFailure::Answer(_)) =>
                    {
                        tell(format!("is not healthy yet: {seen}"));
                        reported = true;
                    }
                    Verdict::Wait => {}
                    Verdict::Tell(text) => _ = tell(text),
                    Verdict::End(reason) => return Err(reason),
                }
            }
            let left = check.start_timeout.saturating_sub(begun.elapsed());
            tokio::time::sleep(pause.min(left)).await;
            pause = pause.mul_f64(GROWTH).min(SLOWEST_POLL);
        }
    }

    /// Why an app that runs was never seen healthy, with what it does instead.
    async fn never_healthy(&self, check: &Check, seen: &CheckFailure) -> String {
        let seconds = check.start_timeout.as_secs_f64();
        let port = self.port();
        let listeners = self.runtime.listeners(self.id).await;
        match UnreachableListener::of(&listeners, port) {
            Some(astray) => format!("{} within {seconds} s: {}", astray.fault(port), astray.advice()),
            None if listeners.is_empty() => format!("did not listen on port {port} within {seconds} s"),
            None => format!("was not healthy within {seconds} s: {seen}"),
        }
    }

    /// Asks as often as `interval` says, until the check has failed several times in a row.
    async fn stay(&self, check: &Check) -> String {
        if check.kind == CheckKind::Process {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(check.interval).await;
            let mut failures = 0;
            while let Err(seen) = self.ask(check).await {
                failures += 1;
                if failures >= FAILURES {
                    return format!("health check failed: {seen}");
                }
                tokio::time::sleep(BETWEEN_FAILURES).await;
            }
        }
    }

    /// Tells each change of readiness.
    async fn readiness(&self, check: &Check, mut ready: bool, send: &mpsc::UnboundedSender<Signal>) {
        loop {
            let now = self.ask(check).await.is_ok();
            if now != ready {
                ready = now;
                send.send(self.signal(Event::Readiness(ready))).ok();
            }
            // An instance that is not ready waits for traffic: ask it sooner.
            tokio::time::sleep(if ready { check.interval } else { check.interval.min(SLOWEST_POLL) }).await;
        }
    }

    fn signal(&self, event: Event) -> Signal {
        Signal { incarnation: Some(self.id.incarnation), event }
    }

    /// Runs until the instance is unhealthy, or dropped with the sandbox.
    pub async fn run(self, send: mpsc::UnboundedSender<Signal>) {
        let fallback = if self.spec.ports.is_empty() { CheckKind::Process } else { CheckKind::Port };
        let health = Check::of(self.spec.health.as_ref(), fallback);
        let readiness = Check::of(self.spec.readiness.as_ref(), CheckKind::Process);
        let has_readiness_check = readiness.kind != CheckKind::Process;
        if !self.healthy {
            if let Err(reason) = self.start(&health, &send).await {
                send.send(self.signal(Event::Unhealthy(reason))).ok();
                return;
            }
            send.send(self.signal(Event::Healthy { ready: !has_readiness_check })).ok();
        } else if !self.ready && !has_readiness_check {
            send.send(self.signal(Event::Readiness(true))).ok();
        }
        // Dropping the readiness loop with the instance is right: it holds nothing.
        let reason = tokio::select! {
            reason = self.stay(&health) => reason,
            () = self.readiness(&readiness, self.ready, &send), if has_readiness_check => return,
        };
        send.send(self.signal(Event::Unhealthy(reason))).ok();
    }
}
