//! The checks of a starting instance against simulated programs, with a clock that jumps.

use std::net::SocketAddr;
use std::sync::Arc;

use slipway_protocol::v1::{CheckKind, HealthCheck, WorkloadKind, WorkloadSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::health::HealthMonitor;
use super::runner::Signal;
use super::state::Event;
use crate::sandbox::{Limits, SandboxId, SandboxRuntime as _, SandboxSpec};
use crate::sim::{Program, SimRuntime, loopback};

fn sandbox(id: SandboxId) -> SandboxSpec {
    SandboxSpec {
        id,
        slot: 0,
        layers: vec![],
        binds: vec![],
        volume: None,
        files: vec![],
        argv: vec![],
        companions: vec![],
        env: vec![],
        cwd: "/".into(),
        user: "vcap".into(),
        hostname: "x".into(),
        limits: Limits { memory_bytes: 0, disk_bytes: 0, pids: 0, cpu_weight: 0, nofile: 0 },
        egress: vec![],
        registries: false,
        log_directory: "/".into(),
        log_bytes: 0,
        log_rate_bytes: 0,
    }
}

/// What is told of a program that listens there and nowhere else, with the second at which it is told.
async fn deaf_events(elsewhere: Vec<SocketAddr>, timeout_s: u32) -> Vec<(u64, Event)> {
    events_of(Program::Deaf(elsewhere), timeout_s, usize::MAX).await
}

/// The first things that are told of a program.
async fn events_of(program: Program, timeout_s: u32, most: usize) -> Vec<(u64, Event)> {
    let id = SandboxId { assignment: Uuid::from_u128(1), incarnation: 1 };
    let runtime = SimRuntime::new(std::path::Path::new("/"), move |_, _| program.clone());
    runtime.start(sandbox(id)).await.expect("start");
    let health =
        HealthCheck { kind: CheckKind::Port.into(), start_timeout_ms: timeout_s * 1000, ..HealthCheck::default() };
    let spec = WorkloadSpec {
        ports: vec![8080],
        kind: WorkloadKind::Lrp.into(),
        health: Some(health),
        ..WorkloadSpec::default()
    };
    let monitor = HealthMonitor { runtime, id, slot: 0, spec: Arc::new(spec), healthy: false, ready: false };
    #[expect(clippy::disallowed_methods, reason = "as in a runner")]
    let (send, mut heard) = mpsc::unbounded_channel::<Signal>();
    let begun = Instant::now();
    let running = tokio::spawn(monitor.run(send));
    let mut events = Vec::new();
    while let Some(signal) = heard.recv().await {
        events.push((begun.elapsed().as_secs(), signal.event));
        if events.len() == most {
            running.abort();
            return events;
        }
    }
    running.await.expect("checks");
    events
}

#[tokio::test(start_paused = true)]
async fn an_open_port_is_not_enough_while_nobody_takes_connections() {
    let seconds = |seconds| Program::Late(std::time::Duration::from_secs(seconds));
    let quick = events_of(seconds(0), 60, 1).await;
    assert!(matches!(&quick[..], [(0, Event::Healthy { ready: true })]), "{quick:?}");
    let late = events_of(seconds(30), 60, 2).await;
    let [(early, Event::Trouble(trouble)), (end, Event::Healthy { ready: true })] = &late[..] else {
        panic!("{late:?}")
    };
    assert!(*early < 10 && (30..35).contains(end), "{late:?}");
    assert!(trouble.contains("listens on port 8080, and none takes connections there yet"), "{trouble}");
    let never = events_of(seconds(1000), 60, 2).await;
    let [_, (60.., Event::Unhealthy(reason))] = &never[..] else { panic!("{never:?}") };
    assert!(reason.starts_with("was not healthy within 60 s: a program listens on port 8080"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_port_is_reported_long_before_the_timeout() {
    let events = deaf_events(vec![loopback(3000)], 60).await;
    let [(early, Event::Trouble(trouble)), (end, Event::Unhealthy(reason))] = &events[..] else { panic!("{events:?}") };
    assert!(*early < 10 && *end >= 60, "{events:?}");
    assert!(trouble.contains("it listens on 127.0.0.1:3000 only"), "{trouble}");
    assert!(reason.starts_with("did not listen on port 8080 within 60 s: it listens on 127.0.0.1:3000"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_hopeless_start_is_ended_early() {
    let events = deaf_events(vec![loopback(8080)], 180).await;
    let [(_, Event::Trouble(_)), (end, Event::Unhealthy(reason))] = &events[..] else { panic!("{events:?}") };
    assert!(*end < 30, "{events:?}");
    assert!(reason.contains("it listens on 127.0.0.1 only; listen on 0.0.0.0"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_listens_nowhere_is_warned_and_keeps_its_timeout() {
    let events = deaf_events(vec![], 60).await;
    let [(early, Event::Trouble(trouble)), (end, Event::Unhealthy(reason))] = &events[..] else { panic!("{events:?}") };
    assert!(*early < 20 && trouble.contains("listens on no port yet"), "{events:?}");
    assert!(*end >= 60 && reason == "did not listen on port 8080 within 60 s", "{events:?}");
}
